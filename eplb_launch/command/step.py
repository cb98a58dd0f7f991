"""The own words of a program that starts another one: its options and operands, by its row."""

from __future__ import annotations

from eplb_launch.command.context import DEPTH
from eplb_launch.command.wrappers import BARE, GROUPS, PAIRS, SHELLS, VALUED, WRAPPERS, row_of
from eplb_launch.entrypoints import NO_ENGINE, VLLM, entry_at
from eplb_launch.model import is_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from eplb_launch.command.context import Said
    from eplb_launch.command.find import Trail
    from eplb_launch.command.wrappers import Row


class Step:
    """A walk over them: where the command is, and what the options say."""

    def __init__(self, trail: Trail, start: int) -> None:
        self.trail = trail
        self.end = start  # the first word of the command
        self.own_end = 0  # where it ended before words were inserted
        self.said: list[Said] = []
        self.string: str | None = None  # the command, for a shell
        self.program: str | None = None  # its program, where an option names it
        self.at = 0  # where the value stands that one of these two comes from
        self.module = False  # the command is a Python module and its arguments
        self.settled = False  # no command is started

    def over(self, path: str) -> Row | None:
        """Skip options and operands; return what the rows say together, None: no command."""
        rows: Row = {}
        while path in WRAPPERS:
            row = row_of(path)
            rows = {**rows, **row}
            if not self._level(row):
                break
            if self.settled or path not in GROUPS:
                self.own_end = self.own_end or self.end
                return rows
            path += " " + "".join(self.trail.words[self.end : self.end + 1])
            self.end += 1
        return None

    def _level(self, row: Row) -> bool:
        """As over, for one level of sub-commands; False where what the row needs is not there."""
        kinds = _kinds_of(row)
        operands = int(row.get("operands", "0"))
        stops = row.get("stops", "").split()
        needs = row.get("needs", "").split()
        options = True
        while self.end < len(self.trail.words) and not self.settled:
            word = self.trail.words[self.end]
            self.end += 1
            if options and word == "--":
                options = False
            elif options and word.startswith("-"):
                for kind, option, value in self._take(word, kinds, row):
                    needs = [] if option in needs else needs
                    operands *= kind != "replaces"
                    self._note(kind, option, value)
            elif options and word in stops:
                self.settled = True
            elif "assignments" in row and "=" in word:
                self.said.append(("sets", "", word))
            elif operands and ("elsewhere" in row or not is_server(self.trail.words, self.end - 1)):
                operands -= 1
                options = options and (operands > 0 or "mixed" in row)
            else:
                self.end -= 1
                break
        self.end = min(self.end, len(self.trail.words))
        return not needs

    def _take(self, word: str, kinds: dict[str, str], row: Row) -> list[Said]:
        """Return what the options in a word say, and go past their values."""
        words = self.trail.words
        said: list[Said] = []
        for option, glued in _options(word, kinds, row):
            kind = kinds.get(option, "")
            value = glued or ""
            if glued is None and (kind in VALUED or kind in PAIRS):
                value = "".join(words[self.end : self.end + 1])
                self.end += 1
            if kind in PAIRS:
                value += "=" + "".join(words[self.end : self.end + 1])
                self.end += 1
            elif not kind and glued is None and "flags" in row and not option.startswith("--no-"):
                # Right before a program it is an operand rather: `docker run --new IMAGE vllm`.
                operand = "operands" in row and is_program(words, self.end + 1)
                self.end += is_value(words, self.end) and not operand
            said.append((kind, option, value))
        return said

    def _note(self, kind: str, option: str, value: str) -> None:
        """Note what an option says; its value, if it has one, has just been passed."""
        self.said.append((kind, option, value))
        at = min(self.end, len(self.trail.words)) - 1
        if kind == "splits":  # into more words of the program itself
            self.own_end = self.own_end or at + 1
            self.trail.split(value, at)
            self.settled = self.trail.context.depth > DEPTH
        elif kind == "string":
            self.string, self.at = value, at
        elif kind == "program":
            self.program, self.at = value, at
        elif kind == "module":
            self.module = True
        elif kind == "refuses":
            self.settled = True


def _kinds_of(row: Row) -> dict[str, str]:
    """Return the column in which each option of a row stands."""
    columns = (*VALUED, *PAIRS, *BARE)
    return {option: column for column in columns for option in row.get(column, "").split()}


def _options(word: str, kinds: dict[str, str], row: Row) -> list[tuple[str, str | None]]:
    """Return the options in a word, each with the value that is glued to it."""
    if word in kinds:
        return [(word, None)]
    if word.startswith("--") or "words" in row or len(word) < 3:
        option, equals, value = word.partition("=")
        if option not in kinds:
            option = option.replace("_", "-")
        return [(option, value if equals else None)]
    found: list[tuple[str, str | None]] = []
    for at in range(1, len(word)):
        option = "-" + word[at]
        if kinds.get(option) in VALUED:
            found.append((option, word[at + 1 :].removeprefix("=") or None))
            break
        if option in kinds:
            found.append((option, None))
        elif "flags" in row:
            break  # what follows is its value
    return found


def is_server(words: Sequence[str], index: int) -> bool:
    """Whether a server starts at `index`."""
    if words[index].rpartition("/")[2] not in VLLM:
        return False
    return entry_at(words, index) not in (None, NO_ENGINE)


def is_program(words: Sequence[str], index: int) -> bool:
    """Whether a program starts at `index` that may be, or start, a server."""
    if index >= len(words):
        return False
    name = words[index].rpartition("/")[2]
    known = name in WRAPPERS or name in SHELLS or is_python(name)
    return known or is_server(words, index)


def is_value(words: Sequence[str], index: int) -> bool:
    """Whether the word at `index` could be the value of an option that is not known."""
    return index < len(words) and words[index][:1] != "-" and not is_program(words, index)
