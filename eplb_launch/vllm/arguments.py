"""vLLM's argument grammar: what `vllm serve` would make of its arguments.

vLLM reworks its arguments before argparse sees them (`FlexibleArgumentParser.parse_args` in
`vllm/utils/argparse_utils.py`), in this order, followed here step by step:

1. `--model M` moves to the front, as the positional argument (`vllm serve` only);
2. the two words `--config FILE` are replaced by the file's options, placed before all others;
3. `_` becomes `-` in option names, up to the first dot;
4. dotted options (`--eplb-config.use_async true`) become one JSON option each, placed last;
5. argparse: abbreviations, `--x v` and `--x=v`, the last one wins.

Nothing is known here of an option's meaning: see `settings`.
"""

from __future__ import annotations

from eplb_launch.model import UNKNOWN, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from eplb_launch.vllm.releases import Release

    Word = tuple[str, int | str]  # a word, and where it stands: its index in the command, or a file

# The options that are read, by every spelling: the setting; VALUE or JSON where the option takes
# one, else what it sets; and the release 0.N that brought it (vllm/engine/arg_utils.py).
VALUE = "value"
JSON = "json"
OPTIONS: Mapping[str, tuple[str, object, int]] = {
    "--data-parallel-size": ("data_parallel_size", VALUE, 12),
    "-dp": ("data_parallel_size", VALUE, 12),
    "--data-parallel-size-local": ("data_parallel_size_local", VALUE, 12),
    "-dpl": ("data_parallel_size_local", VALUE, 12),
    "--enable-eplb": ("enable_eplb", True, 12),
    "--no-enable-eplb": ("enable_eplb", False, 12),
    "--disable-eplb": ("enable_eplb", False, 33),
    "--eplb-config": ("eplb_config", JSON, 12),
    "--all2all-backend": ("all2all_backend", VALUE, 12),
    "--moe-backend": ("moe_backend", VALUE, 17),
    "--kernel-config": ("kernel_config", JSON, 16),
    "--enable-elastic-ep": ("enable_elastic_ep", True, 17),
    "--no-enable-elastic-ep": ("enable_elastic_ep", False, 17),
    "--disable-elastic-ep": ("enable_elastic_ep", False, 33),
    # Not of the rules: where the server runs.
    "--distributed-executor-backend": ("distributed_executor_backend", VALUE, 12),
    "--data-parallel-backend": ("data_parallel_backend", VALUE, 12),
    "-dpb": ("data_parallel_backend", VALUE, 12),
    "--nnodes": ("nnodes", VALUE, 12),
    "-n": ("nnodes", VALUE, 12),
    "--headless": ("headless", True, 12),
    "--data-parallel-start-rank": ("data_parallel_start_rank", VALUE, 12),
    "-dpr": ("data_parallel_start_rank", VALUE, 12),
    "--data-parallel-rank": ("data_parallel_rank", VALUE, 12),
    "-dpn": ("data_parallel_rank", VALUE, 12),
    "--data-parallel-address": ("data_parallel_address", VALUE, 12),
    "-dpa": ("data_parallel_address", VALUE, 12),
    "--data-parallel-hybrid-lb": ("data_parallel_hybrid_lb", True, 12),
    "--no-data-parallel-hybrid-lb": ("data_parallel_hybrid_lb", False, 12),
    "-dph": ("data_parallel_hybrid_lb", True, 12),
    "--data-parallel-external-lb": ("data_parallel_external_lb", True, 12),
    "--no-data-parallel-external-lb": ("data_parallel_external_lb", False, 12),
    "-dpe": ("data_parallel_external_lb", True, 12),
}
# The settings of the last group.
PLACEMENT = frozenset(
    (
        *("distributed_executor_backend", "data_parallel_backend", "nnodes", "headless"),
        *("data_parallel_start_rank", "data_parallel_rank", "data_parallel_address"),
        *("data_parallel_hybrid_lb", "data_parallel_external_lb", "data_parallel_size_local"),
    )
)
# Their names, each behind a blank: to see whether a word may abbreviate one.
_NAMES = "".join(f" {name}" for name in OPTIONS)


class Given(Record):
    """One setting as the command gives it."""

    value: Any  # str for an option with a value, bool for one without, dict for a dotted one
    source: str  # "argument 7: -dp 8" or "serve.yaml: data-parallel-size"
    sources: Mapping[str, str] = {}  # of a dotted one, by key

    def source_of(self, key: str) -> str:
        """Return where a key of a JSON option came from."""
        return self.sources.get(key, self.source)


class Reading(Record):
    """What the arguments give, by setting."""

    given: Mapping[str, Given]
    complete: bool  # False: a word that cannot be known may be any option
    others: Mapping[str, Given]  # by setting: OTHERS


class RefusedError(ValueError):
    """The arguments are such that vLLM refuses them; the message holds no value of them."""

    code = "arguments-refused"
    remedy = "see what vLLM says when it starts"


def read(
    words: Sequence[str],
    positions: Sequence[int],
    release: Release,
    *,
    serve: bool,
    load_config: Callable[[str], Mapping[object, Any] | None],
    own: Sequence[str] = (),
) -> Reading:
    """Return what the arguments give.

    `words` are the arguments and `positions` where each stands in the command; `serve` says
    whether they follow `vllm serve`; `own` are options that `vllm serve` has not. `load_config`
    returns the content of a --config file, given its name, or None where it cannot be known.
    Raises RefusedError where vLLM would refuse the arguments.
    """
    pairs: list[Word] = list(zip(words, positions, strict=True))
    if own:
        pairs = [pair for pair in pairs if pair[0].partition("=")[0] not in own]
    if serve:
        pairs = _move_model(pairs, release)
    complete = True
    if "--config" in words:
        pairs, complete = _insert_config(pairs, release, load_config, serve=serve)
    if any(word[:1] == UNKNOWN for word in words):
        from eplb_launch.vllm.options import may_be_options

        takes_model = serve and not any(word.partition("=")[0] == "--model" for word in words)
        complete = complete and not may_be_options(words, release, takes_model=takes_model)
    pairs, dotted = _join_dotted(_normalized(pairs, release), release)
    others = _others(pairs, dotted, serve=serve)
    reading = _parse(pairs, dotted, release).replace(others=others)
    return reading if complete else reading.replace(complete=False)


def _move_model(pairs: list[Word], release: Release) -> list[Word]:
    for index, (word, _) in enumerate(pairs):
        if word == "--model":
            if index + 1 == len(pairs):
                raise RefusedError("--model has no value")
            return [pairs[index + 1], *pairs[:index], *pairs[index + 2 :]]
        if word.startswith("--model=") and (word != "--model=" or release.empty_model):
            return [(word[8:], pairs[index][1]), *pairs[:index], *pairs[index + 1 :]]
    return pairs


def _insert_config(
    pairs: list[Word],
    release: Release,
    load_config: Callable[[str], Mapping[object, Any] | None],
    *,
    serve: bool,
) -> tuple[list[Word], bool]:
    """Put the options of the --config file in its place; and whether it could be known."""
    places = [index for index, (word, _) in enumerate(pairs) if word == "--config"]
    if not places:
        return pairs, True
    index = places[0]
    if len(places) > 1:
        raise RefusedError("--config is given twice")
    if index + 1 == len(pairs):
        raise RefusedError("--config has no file")
    name = pairs[index + 1][0]
    if UNKNOWN not in name and name.rpartition(".")[2] not in ("yaml", "yml"):
        raise RefusedError("the --config file is not named .yaml or .yml")
    config = load_config(name)
    if config is None:
        return pairs[:index] + pairs[index + 2 :], False
    inserted: list[Word] = []
    for key, value in config.items():
        if not isinstance(key, str):
            raise RefusedError("a key of the --config file is not a string")
        inserted += [(word, name) for word in _config_words(key, value, release)]
    front = 0 if pairs[0][0].startswith("-") else 1
    if serve and not front and not any(word == "--model" for word, _ in inserted):
        raise RefusedError("no model is given")
    return pairs[:front] + inserted + pairs[front:index] + pairs[index + 2 :], True


def _config_words(key: str, value: object, release: Release) -> Iterable[str]:
    option = "--" + key
    if isinstance(value, bool):
        # From 0.28 false is --no-KEY where that exists: off, as all that is read here is anyway.
        return (option,) if value else ()
    if isinstance(value, list):
        return (option, *map(_text, value)) if value else ()
    if isinstance(value, dict):
        # Else it is str(dict): no JSON, but for an empty one.
        return (option, _json(value) if release.nested_config or not value else "{'")
    return (option, str(value))


def _json(value: dict[object, object]) -> str:
    """Return a map as JSON, the containers in it left out: aliases can make them endless."""
    import json

    return json.dumps(
        {str(key): [] if isinstance(item, (dict, list)) else item for key, item in value.items()},
        default=str,
    )


def _text(item: object) -> str:
    # The text of a container is never an option, and aliases can make it endless.
    return "[]" if isinstance(item, (list, dict)) else str(item)


def _normalized(pairs: list[Word], release: Release) -> list[Word]:
    """Replace `_` by `-` in option names, and take `-O3` apart."""
    result: list[Word] = []
    for pair in pairs:
        word, source = pair
        if word[:2] == "--" and "_" in word:
            name, equals, value = word.partition("=")
            name, dot, keys = name.partition(".")
            result.append((name.replace("_", "-") + dot + keys + equals + value, source))
        elif word[:2] == "-O" and word != "-O" and not (word[2] == "." and release.dotted_o):
            result.append(("--optimization-level", source))
            result.append((word[3:] if word[2] == "=" else word[2:], source))
        else:
            result.append(pair)
    return result


def _join_dotted(pairs: list[Word], release: Release) -> tuple[list[Word], dict[str, Given]]:
    """Take the dotted options out: the other words, and by option its merged keys."""
    rest: list[Word] = []
    dotted: dict[str, Given] = {}
    sources: dict[str, dict[str, str]] = {}
    index = 0
    while index < len(pairs):
        word, source = pairs[index]
        index += 1
        name, equals, text = word.partition("=")
        if word[:1] != "-" or "." not in name:
            rest.append((word, source))
            continue
        if not equals:
            if index == len(pairs):
                raise RefusedError("a dotted option has no value")
            text = pairs[index][0]
            index += 1
        values: Any
        if name.endswith("+"):
            name = name[:-1]
            values = text.split(",")
        else:
            values = value_of(text, release)
        option, *keys = name.split(".")
        for key in reversed(keys):
            values = {key: values}
        where = _where(source, word if equals else f"{word} {text}")
        if option not in dotted:
            sources[option] = {}
            dotted[option] = Given({}, where, sources[option])
        _update(dotted[option].value, values)
        sources[option][keys[0]] = where
    return rest, dotted


_LITERALS: Mapping[str, Any] = {"true": True, "false": False, "null": None}


def value_of(text: str, release: Release) -> Any:
    """Return the value of a dotted option: JSON where it is JSON, else the string itself.

    What is plainly no JSON, or a plain number, is told without importing json.
    """
    if text in _LITERALS:
        return _LITERALS[text]
    if UNKNOWN in text:
        return text
    if text.isascii():
        if text.isdigit() and (text[0] != "0" or text == "0") and len(text) < 10:
            return int(text)
        # JSON may be followed by blanks.
        if text[:1].isalpha() and text.rstrip() not in (*_LITERALS, "NaN", "Infinity"):
            return text
    from eplb_launch.vllm.values import parse_dotted

    return parse_dotted(text, human_readable=release.human_readable)


def _update(original: dict[str, Any], update: dict[str, Any]) -> None:
    stack = [(original, update)]
    while stack:
        into, new = stack.pop()
        for key, value in new.items():
            old = into.get(key)
            if isinstance(value, dict) and isinstance(old, dict):
                stack.append((old, value))
            elif isinstance(value, list) and isinstance(old, list):
                old += value
            else:
                into[key] = value


def _parse(pairs: list[Word], dotted: Mapping[str, Given], release: Release) -> Reading:
    """Do as argparse does, for the options that are read."""
    given: dict[str, Given] = {}
    names: dict[str, str | None] = {}  # an option as written: its name, None for one not read
    complete = True
    ended = len(pairs)
    for index, (word, source) in enumerate(pairs):
        if word[:1] != "-" or len(word) < 2:
            continue
        if word == "--":
            ended = index
            break
        written, equals, value = word.partition("=")
        if written not in names:
            names[written] = _option(written, release)
        name = names[written]
        if name is None:
            complete = complete and UNKNOWN not in written
            continue
        setting, takes, _ = OPTIONS[name]
        if takes not in (VALUE, JSON):
            if equals:
                raise RefusedError(f"{name} takes no value")
            given[setting] = Given(takes, _where(source, written))
            continue
        if not equals:
            if index + 1 == len(pairs) or not _is_argument(pairs[index + 1][0], release):
                raise RefusedError(f"{name} has no value")
            value = pairs[index + 1][0]
        given[setting] = Given(value, _where(source, word if equals else f"{written} {value}"))
    if ended == len(pairs):  # what stands after "--" is no option any more, and these stand last
        _parse_dotted(dotted, given, release)
    return Reading(given, complete, {})


def _parse_dotted(dotted: Mapping[str, Given], given: dict[str, Given], release: Release) -> None:
    """Do as argparse does with the dotted options: each is two words, its name and its JSON."""
    for written, entry in dotted.items():
        if written == "--":  # of `--.x`
            break
        name = _option(written, release)
        if name is None:
            continue
        setting, takes, _ = OPTIONS[name]
        given[setting] = entry
        if takes is VALUE:
            given[setting] = entry.replace(value=_json(entry.value))
        elif takes is not JSON:  # its JSON is a word by itself, which may pass for the model
            given[setting] = entry.replace(value=takes)


# Not of the rules, and read only as far as they are written in full: which model it is, and how
# many tokens a step may have (`deepep.grids`). VALUE, JSON, LIST: one word or all up to an option.
LIST = "list"
OTHERS: Mapping[str, tuple[str, object]] = {
    "--model": ("model", VALUE),
    "--hf-config-path": ("hf_config_path", VALUE),
    "--hf-overrides": ("hf_overrides", VALUE),
    "--tensor-parallel-size": ("tensor_parallel_size", VALUE),
    "-tp": ("tensor_parallel_size", VALUE),
    "--max-num-batched-tokens": ("max_num_batched_tokens", VALUE),
    "--max-num-seqs": ("max_num_seqs", VALUE),
    "--enable-chunked-prefill": ("enable_chunked_prefill", True),
    "--no-enable-chunked-prefill": ("enable_chunked_prefill", False),
    "--performance-mode": ("performance_mode", VALUE),
    "--enforce-eager": ("enforce_eager", True),
    "--no-enforce-eager": ("enforce_eager", False),
    "--cuda-graph-sizes": ("cudagraph_capture_sizes", LIST),  # 0.12
    "--cudagraph-capture-sizes": ("cudagraph_capture_sizes", LIST),
    "--max-cudagraph-capture-size": ("max_cudagraph_capture_size", VALUE),
    "--compilation-config": ("compilation_config", JSON),
    "-cc": ("compilation_config", JSON),
    "--optimization-level": ("optimization_level", VALUE),
    "--speculative-config": ("speculative_config", JSON),
    "-sc": ("speculative_config", JSON),
    "--enable-dbo": ("enable_dbo", True),
    "--no-enable-dbo": ("enable_dbo", False),
    "--ubatch-size": ("ubatch_size", VALUE),
}


def _others(pairs: list[Word], dotted: Mapping[str, Given], *, serve: bool) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for index, (word, source) in enumerate(pairs):
        name, equals, value = word.partition("=")
        if name not in OTHERS:
            continue
        setting, takes = OTHERS[name]
        if isinstance(takes, bool):
            found[setting] = Given(takes, _where(source, name))
            continue
        if not equals and index + 1 == len(pairs):
            continue
        if not equals:
            value = pairs[index + 1][0]
            last = index + 2
            while takes is LIST and last < len(pairs) and pairs[last][0][:1] != "-":
                value += f" {pairs[last][0]}"
                last += 1
        found[setting] = Given(value, _where(source, f"{name} {value}"))
    for name, entry in dotted.items():
        if name in OTHERS:
            found[OTHERS[name][0]] = entry
    if serve and pairs and pairs[0][0][:1] != "-":
        found["model"] = Given(pairs[0][0], _where(pairs[0][1], f"model {pairs[0][0]}"))
    return found


def _where(source: int | str, shown: str) -> str:
    if isinstance(source, int):
        return f"argument {source}: {shown.replace(UNKNOWN, '…')}"
    return f"{source}: {shown.partition('=')[0].split(' ')[0].lstrip('-')}"


def _option(written: str, release: Release) -> str | None:
    """Return the option that is read and that argparse takes `written` for, or None."""
    if written in OPTIONS:
        return written if release.has(OPTIONS[written][2]) else None
    if written == "-" or f" {written}" not in _NAMES:  # "-" is a word
        return None
    from eplb_launch.vllm.options import options

    known = options(release.minor)
    if written in known:
        return None
    matches = [name for name in known if name.startswith(written)]
    if len(matches) > 1:
        raise RefusedError(f"{written} is ambiguous")
    return matches[0] if matches and matches[0] in OPTIONS else None


def _is_argument(word: str, release: Release) -> bool:
    """Whether argparse takes a word for a value rather than for an option."""
    if word[:1] != "-" or len(word) == 1:
        return True
    if word == "--":
        return False
    whole, dot, fraction = word[1:].partition(".")
    if (fraction if dot else whole).isdecimal() and (whole.isdecimal() or not whole):
        return True  # a negative number
    return " " in word and _option(word.partition("=")[0], release) is None
