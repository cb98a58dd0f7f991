"""The grammar of vLLM's arguments: how `vllm serve` reads them.

vLLM changes its arguments before argparse sees them (`FlexibleArgumentParser.parse_args` in
`vllm/utils/argparse_utils.py`). These are its steps, in its order:

1. `--model M` moves to the front, as the positional argument (`vllm serve` only);
2. the two words `--config FILE` are replaced by the options in the file, placed before all others;
3. `_` becomes `-` in option names, up to the first dot;
4. dotted options (`--eplb-config.use_async true`) become one JSON option each, placed last;
5. argparse reads abbreviations, `--x v` and `--x=v`; the last one wins.

`settings` says what the options mean.
"""

from __future__ import annotations

from eplb_launch.model import UNKNOWN, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from eplb_launch.model import Server
    from eplb_launch.vllm.releases import Release

    # A word and its source: its index in the command, the name of a file, or the dotted options
    # that it replaces.
    Word = tuple[str, int | str | "Given"]

# What an option takes: one word, one or more words, a JSON object, or nothing.
VALUE = "value"
LIST = "list"
JSON = "json"
SWITCH = True
# The options that are read (vllm/engine/arg_utils.py): what each takes, its spellings (the first
# names the setting), and the spellings that turn it off. The rules need these:
_RULE_OPTIONS = (
    (VALUE, "--data-parallel-size -dp", ""),
    (SWITCH, "--enable-eplb", "--no-enable-eplb --disable-eplb"),
    (JSON, "--eplb-config", ""),
    (VALUE, "--all2all-backend", ""),
    (VALUE, "--moe-backend", ""),
    (JSON, "--kernel-config", ""),
    (SWITCH, "--enable-elastic-ep", "--no-enable-elastic-ep --disable-elastic-ep"),
)
# These say where the server runs: see nccl.cases.
_PLACEMENT_OPTIONS = (
    (VALUE, "--distributed-executor-backend", ""),
    (VALUE, "--data-parallel-backend -dpb", ""),
    (VALUE, "--nnodes -n", ""),
    (SWITCH, "--headless", ""),
    (VALUE, "--data-parallel-size-local -dpl", ""),
    (VALUE, "--data-parallel-start-rank -dpr", ""),
    (VALUE, "--data-parallel-rank -dpn", ""),
    (VALUE, "--data-parallel-address -dpa", ""),
    (SWITCH, "--data-parallel-hybrid-lb -dph", "--no-data-parallel-hybrid-lb"),
    (SWITCH, "--data-parallel-external-lb -dpe", "--no-data-parallel-external-lb"),
)
# These say which model it is, and how many tokens a step may have: see deepep.cap and deepep.grids.
_MODEL_OPTIONS = (
    (VALUE, "--model", ""),
    (VALUE, "--hf-config-path", ""),
    (VALUE, "--hf-overrides", ""),
    (VALUE, "--tensor-parallel-size -tp", ""),
    (VALUE, "--max-num-batched-tokens", ""),
    (VALUE, "--max-num-seqs", ""),
    (SWITCH, "--enable-chunked-prefill", "--no-enable-chunked-prefill --disable-chunked-prefill"),
    (VALUE, "--performance-mode", ""),
    (SWITCH, "--enforce-eager", "--no-enforce-eager"),
    (LIST, "--cudagraph-capture-sizes --cuda-graph-sizes", ""),
    (VALUE, "--max-cudagraph-capture-size", ""),
    (JSON, "--compilation-config -cc", ""),
    (VALUE, "--optimization-level", ""),
    (JSON, "--speculative-config -sc", ""),
    (SWITCH, "--enable-dbo", "--no-enable-dbo --disable-dbo"),
    (VALUE, "--ubatch-size", ""),
)


def _by_spelling(*rows: tuple[str | bool, str, str]) -> dict[str, tuple[str, str | bool]]:
    """Return the setting of each spelling, and what it takes (a switch: what it sets)."""
    found: dict[str, tuple[str, str | bool]] = {}
    for takes, spellings, off in rows:
        names = spellings.split()
        setting = names[0][2:].replace("-", "_")
        found.update(dict.fromkeys(names, (setting, takes)))
        found.update(dict.fromkeys(off.split(), (setting, False)))
    return found


OPTIONS = _by_spelling(*_RULE_OPTIONS, *_PLACEMENT_OPTIONS, *_MODEL_OPTIONS)
PLACEMENT = frozenset(setting for setting, _ in _by_spelling(*_PLACEMENT_OPTIONS).values())
_NAMES = " " + " ".join(OPTIONS)  # a word that abbreviates one is in here, after a blank


class Given(Record):
    """One setting, as the command gives it."""

    value: Any  # str for an option with a value, bool for a switch, dict for dotted options
    source: str  # "argument 7: -dp 8" or "serve.yaml: data-parallel-size"
    sources: Mapping[str, str] = {}  # of dotted options, by key


class Reading(Record):
    """What the arguments give."""

    given: Mapping[str, Given]  # by setting
    complete: bool  # False: a word that is not known may be any option


class RefusedError(ValueError):
    """vLLM refuses the arguments. The message holds no value of them."""

    code = "arguments-refused"
    remedy = "see what vLLM says when it starts"


def read(
    server: Server,
    release: Release,
    load_config: Callable[[str], Mapping[object, Any] | None],
    ignored: Sequence[str] = (),
) -> Reading:
    """Return what the arguments of a server give.

    `load_config` takes the name of a --config file and returns its content, or None if that is not
    known. `ignored` are options of this entry point that `vllm serve` does not have. Raises
    RefusedError if vLLM would refuse the arguments.
    """
    words = server.words
    serve = server.entry == "vllm serve"
    pairs: list[Word] = list(zip(words, server.positions, strict=True))
    if ignored:
        pairs = [pair for pair in pairs if pair[0].partition("=")[0] not in ignored]
    if serve:
        pairs = _move_model(pairs, release)
    complete = server.args_known
    if "--config" in words:
        pairs, known = _insert_config(pairs, release, load_config, serve=serve)
        complete = complete and known
    if any(word[:1] == UNKNOWN for word in words):
        from eplb_launch.vllm.options import may_be_options

        takes_model = serve and not any(word.partition("=")[0] == "--model" for word in words)
        complete = complete and not may_be_options(words, release, takes_model=takes_model)
    pairs = _join_dotted(_normalized(pairs, release), release)
    given, known = _parse(pairs, release)
    if serve and pairs and pairs[0][0][:1] != "-":
        model, source = pairs[0]
        given["model"] = Given(model, _where(source, f"model {model}"))
    return Reading(given, complete and known)


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
    """Put the options in the --config file in its place, and return whether they are all known."""
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
        # From 0.28 false becomes --no-KEY if that exists. The switches of the rules are off anyway.
        return (option,) if value else ()
    if isinstance(value, list):
        return (option, *map(_text, value)) if value else ()
    if isinstance(value, dict):
        # Before 0.16 it is str(dict), which is JSON only if it is empty.
        return (option, _json(value) if release.nested_config or not value else "{'")
    return (option, str(value))


def _json(value: dict[object, object]) -> str:
    """Return a map as JSON, with nested containers emptied: aliases can make them endless."""
    import json

    return json.dumps(
        {str(key): [] if isinstance(item, (dict, list)) else item for key, item in value.items()},
        default=str,
    )


def _text(item: object) -> str:
    # The text of a container is never an option. Aliases can make it endless.
    return "[]" if isinstance(item, (list, dict)) else str(item)


def _normalized(pairs: list[Word], release: Release) -> list[Word]:
    """Replace `_` by `-` in option names, and split `-O3`."""
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


def _join_dotted(pairs: list[Word], release: Release) -> list[Word]:
    """Replace the dotted options by one JSON option for each name, after all other words."""
    rest: list[Word] = []
    joined: dict[str, Given] = {}
    sources: dict[str, dict[str, str]] = {}
    words = iter(pairs)
    for word, source in words:
        name, equals, text = word.partition("=")
        if word[:1] != "-" or "." not in name:
            rest.append((word, source))
            continue
        if not equals:
            following = next(words, None)
            if following is None:
                raise RefusedError("a dotted option has no value")
            text = following[0]
        values: Any = text.split(",") if name[-1] == "+" else value_of(text, release)
        option, *keys = name.removesuffix("+").split(".")
        for key in reversed(keys):
            values = {key: values}
        where = _where(source, word if equals else f"{word} {text}")
        sources.setdefault(option, {})[keys[0]] = where
        entry = joined.setdefault(option, Given({}, where, sources[option]))
        _update(entry.value, values)
    for option, entry in joined.items():
        rest += [(option, entry), ("{}", entry)]
    return rest


_LITERALS: Mapping[str, Any] = {"true": True, "false": False, "null": None}


def value_of(text: str, release: Release) -> Any:
    """Return the value of a dotted option: the JSON value if it is JSON, else the text.

    Plain words and numbers are read without importing json.
    """
    if text in _LITERALS:
        return _LITERALS[text]
    if UNKNOWN in text:
        return text
    if text.isascii():
        if text.isdigit() and (text[0] != "0" or text == "0") and len(text) < 10:
            return int(text)
        # JSON allows blanks at the end.
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


def _parse(pairs: list[Word], release: Release) -> tuple[dict[str, Given], bool]:
    """Do as argparse does for the options that are read, and return whether all words are known."""
    given: dict[str, Given] = {}
    names: dict[str, str | None] = {}  # by spelling; None: the option is not read
    known = True
    for index, (word, source) in enumerate(pairs):
        if word[:1] != "-" or len(word) < 2:
            continue
        if word == "--":
            break
        written, equals, value = word.partition("=")
        if written not in names:
            names[written] = _option(written, release)
        name = names[written]
        if name is None:
            known = known and UNKNOWN not in written
            continue
        setting, takes = OPTIONS[name]
        if isinstance(takes, bool):
            if equals:
                raise RefusedError(f"{name} takes no value")
            given[setting] = Given(takes, _where(source, written))
        elif isinstance(source, Given):
            by_key = takes is JSON
            given[setting] = source if by_key else source.replace(value=_json(source.value))
        else:
            value = value if equals else _value(pairs, index, name, release)
            given[setting] = Given(value, _where(source, word if equals else f"{written} {value}"))
    return given, known


def _value(pairs: list[Word], index: int, name: str, release: Release) -> str:
    """Return the value after an option: one word, or a list up to the next option."""
    last = index + 1
    most = len(pairs) if OPTIONS[name][1] is LIST else min(index + 2, len(pairs))
    while last < most and _is_argument(pairs[last][0], release):
        last += 1
    if last == index + 1:
        raise RefusedError(f"{name} has no value")
    return " ".join(word for word, _ in pairs[index + 1 : last])


def _where(source: int | str | Given, shown: str) -> str:
    if isinstance(source, Given):
        return source.source
    if isinstance(source, int):
        return f"argument {source}: {shown.replace(UNKNOWN, '…')}"
    return f"{source}: {shown.partition('=')[0].split(' ')[0].lstrip('-')}"


def _option(written: str, release: Release) -> str | None:
    """Return the option that argparse reads `written` as; None if that option is not read."""
    if written in OPTIONS:
        return written
    if written == "-" or f" {written}" not in _NAMES:  # "-" is no option
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
    """Whether argparse reads a word as a value, not as an option."""
    if word[:1] != "-" or len(word) == 1:
        return True
    if word == "--":
        return False
    whole, dot, fraction = word[1:].partition(".")
    if (fraction if dot else whole).isdecimal() and (whole.isdecimal() or not whole):
        return True  # a negative number
    return " " in word and _option(word.partition("=")[0], release) is None
