"""Skip the own words of a program that starts another one, by the table in `prefixes`."""

from __future__ import annotations

from eplb_launch.command.entrypoints import NOTHING, VLLM, entry_at, is_python
from eplb_launch.command.wrappers import PREFIXES, SHELLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from eplb_launch.command.context import Way
    from eplb_launch.command.wrappers import Row


class Step:
    """What `skip` found of a program: where its command is, if it has one."""

    __slots__ = ("at", "end", "module", "program", "row", "settled", "split", "string")

    def __init__(self, row: Row) -> None:
        """Begin with the last sub-command's row."""
        self.row = row
        self.end = 0  # the first word of the command
        self.string: str | None = None  # the command, for a shell
        self.split: str | None = None  # words of the command, for `env -S`
        self.program: str | None = None  # its program, where an option names it
        self.at = 0  # where the value stands that one of these three comes from
        self.module = False  # the command is a Python module and its arguments
        self.settled = False  # no command is started

    def note(self, kind: str, value: str, index: int) -> None:
        """Note what an option says of the command; its value stands at `index`."""
        if kind == "string":
            self.string, self.at = value, index
        elif kind == "splits":
            self.split, self.at = value, index
        elif kind == "program":
            self.program, self.at = value, index
        elif kind == "module":
            self.module = True
        elif kind == "refuses":
            self.settled = True


if TYPE_CHECKING:
    Said: TypeAlias = tuple[str, str, str]  # kind, option, value

_VALUED = "values", "exports", "sets", "unsets", "chdir", "string", "splits", "program", "replaces"
_BARE = "flags", "clears", "keeps", "module", "refuses"
_kinds: dict[int, dict[str, str]] = {}


def skip(words: Sequence[str], index: int, row: Row, way: Way) -> Step | None:
    """Skip the options and operands, from `index` on, of the program that `row` describes.

    What they say of environment and directory goes into `way`. None: they start no command.
    """
    while True:
        step = _skip_level(words, index, row, way)
        if step is None or "subs" not in row:
            return step
        index = step.end + 1
        sub = "".join(words[step.end : index])
        if sub not in row["subs"]:
            return None
        row = row["subs"][sub]


def _skip_level(words: Sequence[str], index: int, row: Row, way: Way) -> Step | None:
    """As skip, for one level of sub-commands."""
    kinds = _kinds.get(id(row))
    if kinds is None:
        listed: dict[str, str] = row  # type: ignore[assignment]
        keys = (*_VALUED, "pairs", *_BARE)
        kinds = {option: key for key in keys for option in listed.get(key, "").split()}
        _kinds[id(row)] = kinds
    step = Step(row)
    operands = row.get("operands", 0)
    said: list[Said] = []
    options = True
    i = index
    while i < len(words) and step.split is None and not step.settled:
        word = words[i]
        i += 1
        if options and word == "--":
            options = False
        elif options and word.startswith("-"):
            more, i = _take(words, i, kinds, row)
            for kind, _, value in more:
                step.note(kind, value, min(i, len(words)) - 1)
                operands *= kind != "replaces"
            said += more
        elif options and word in row.get("stops", "").split():
            step.settled = True
        elif "assignments" in row and "=" in word:
            said.append(("sets", "", word))
        elif operands and ("elsewhere" in row or not _is_server(words, i - 1)):
            operands -= 1
            options = options and (operands > 0 or "mixed" in row)
        else:
            i -= 1
            break
    step.end = min(i, len(words))
    needs = row.get("needs", "").split()
    if needs and not any(option in needs for _, option, _ in said):
        return None
    _apply(said, row, way)
    return step


def _take(
    words: Sequence[str], index: int, kinds: dict[str, str], row: Row
) -> tuple[list[Said], int]:
    """Return what the options in the word before `index` say, and the index after their values."""
    said: list[Said] = []
    for option, glued in _options(words[index - 1], kinds, row):
        kind = kinds.get(option, "")
        value = glued or ""
        if glued is None and (kind in _VALUED or kind == "pairs"):
            value = "".join(words[index : index + 1])
            index += 1
        if kind == "pairs":
            value += "=" + "".join(words[index : index + 1])
            index += 1
        elif not kind and glued is None and "greedy" in row and _is_value(words, index):
            index += 1
        said.append((kind, option, value))
    return said, index


def _options(word: str, kinds: dict[str, str], row: Row) -> list[tuple[str, str | None]]:
    """Return the options in a word, each with the value that is glued to it."""
    if word in kinds:
        return [(word, None)]
    if word.startswith("--") or "words" in row or len(word) < 3:
        option, equals, value = word.partition("=")
        return [(option, value if equals else None)]
    found: list[tuple[str, str | None]] = []
    for at in range(1, len(word)):
        option = "-" + word[at]
        if kinds.get(option) in _VALUED:
            found.append((option, word[at + 1 :].removeprefix("=") or None))
            break
        if option in kinds:
            found.append((option, None))
    return found


def _apply(said: list[Said], row: Row, way: Way) -> None:
    """Change the environment and the directory as a program's options say."""
    before = way.environ
    kinds = {kind for kind, _, _ in said}
    if "own" in row and "keeps" not in kinds:
        way.replace_environ(opaque=True)
    if "clears" in kinds:
        way.replace_environ(opaque="elsewhere" in row)
    for kind, option, value in said:
        if kind == "exports":
            names = value.split(",")
            if "ALL" not in names:
                way.replace_environ(opaque=True)
            for name in names:
                if name not in ("ALL", "NONE", "NIL"):
                    way.put(name, before)
        elif kind == "sets" or option == "--setenv":
            way.put(value, before)
        elif kind == "unsets":
            way.environ.changes[value] = None
        elif kind == "chdir":
            way.change_directory(value)
    if "appends" in row:
        way.complete = False


def _is_server(words: Sequence[str], index: int) -> bool:
    """Whether a server starts at `index`."""
    if words[index].rpartition("/")[2] not in VLLM:
        return False
    return entry_at(words, index) not in (None, NOTHING)


def _is_value(words: Sequence[str], index: int) -> bool:
    """Whether the word at `index` could be the value of an option that is not known."""
    if index >= len(words) or words[index].startswith("-") or _is_server(words, index):
        return False
    name = words[index].rpartition("/")[2]
    return not (name in PREFIXES or name in SHELLS or is_python(name))


def shell_string(words: Sequence[str], index: int) -> int:
    """Return where the command string of the shell at `index` stands; 0 if it is given none."""
    i = index + 1
    string = False
    while i < len(words):
        word = words[i]
        if len(word) < 2 or word[0] not in "-+":
            break
        i += 1
        if word == "--":
            break
        if word.startswith("--"):
            i += word in ("--rcfile", "--init-file")
        else:
            string = string or (word[0] == "-" and "c" in word)
            i += word.count("o") + word.count("O")  # the name of a shell option: -euo pipefail
    return i if string and i < len(words) else 0
