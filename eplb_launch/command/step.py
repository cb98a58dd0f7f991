"""The own words of a wrapper: its options and operands, as its row lists them."""

from __future__ import annotations

from eplb_launch.command.context import DEPTH
from eplb_launch.command.wrappers import BARE, GROUPS, PAIRS, SHELLS, VALUED, WRAPPERS, row_of
from eplb_launch.entrypoints import NO_ENGINE, VLLM, entry_at
from eplb_launch.model import is_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from eplb_launch.command.context import Option
    from eplb_launch.command.find import Trail
    from eplb_launch.command.wrappers import Row


class Step:
    """The step over one wrapper, to the command that it starts."""

    def __init__(self, trail: Trail, start: int) -> None:
        self.trail = trail
        self.end = start  # the first word of the command
        self.own_end = 0  # the end of the wrapper's own words, before words were inserted
        self.options: list[Option] = []  # of the wrapper, in their order
        self.string: str | None = None  # the command, if it is a shell string
        self.program: str | None = None  # the command's program, if an option names it
        self.at = 0  # the word that holds the string or the program
        self.module = False  # the command is a Python module and its arguments
        self.ends = False  # no command is started

    def over(self, path: str) -> Row | None:
        """Skip options and operands, and return the row, with the rows of sub-commands added.

        Return None if no command can follow.
        """
        rows: Row = {}
        while path in WRAPPERS:
            row = row_of(path)
            rows = {**rows, **row}
            if not self._skip(row):
                break
            if self.ends or path not in GROUPS:
                self.own_end = self.own_end or self.end
                return rows
            path += " " + "".join(self.trail.words[self.end : self.end + 1])
            self.end += 1
        return None

    def _skip(self, row: Row) -> bool:
        """Skip what one row lists, and return False if an option is missing that it needs."""
        columns = _columns_of(row)
        operands = int(row.get("operands", "0"))
        stops = row.get("stops", "").split()
        needs = row.get("needs", "").split()
        may_be_option = True
        while self.end < len(self.trail.words) and not self.ends:
            word = self.trail.words[self.end]
            self.end += 1
            if may_be_option and word == "--":
                may_be_option = False
            elif may_be_option and word.startswith("-"):
                for option, joined in _options(word, columns, row):
                    column = columns.get(option, "")
                    needs = [] if option in needs else needs
                    operands *= column != "replaces"
                    self._note(column, self._value(option, joined, column, row))
            elif may_be_option and word in stops:
                self.ends = True
            elif "assignments" in row and "=" in word:
                self.options.append(("sets", word))
            elif operands and ("remote" in row or not is_server(self.trail.words, self.end - 1)):
                operands -= 1
                may_be_option = may_be_option and (operands > 0 or "mixed" in row)
            else:
                self.end -= 1
                break
        self.end = min(self.end, len(self.trail.words))
        return not needs

    def _value(self, option: str, joined: str | None, column: str, row: Row) -> str:
        """Return the value of an option, and skip the words that belong to it."""
        words = self.trail.words
        value = joined or ""
        if joined is None and (column in VALUED or column in PAIRS):
            value = "".join(words[self.end : self.end + 1])
            self.end += 1
        if column in PAIRS:
            value += "=" + "".join(words[self.end : self.end + 1])
            self.end += 1
        elif not column and joined is None and "flags" in row and not option.startswith("--no-"):
            # The word before a program is an operand: `docker run --new IMAGE vllm`.
            operand = "operands" in row and is_program(words, self.end + 1)
            self.end += is_value(words, self.end) and not operand
        return value

    def _note(self, column: str, value: str) -> None:
        """Note what an option says. Its words have just been skipped."""
        self.options.append((column, value))
        at = min(self.end, len(self.trail.words)) - 1
        if column == "splits":  # into further words of the wrapper
            self.own_end = self.own_end or at + 1
            self.trail.split(value, at)
            self.ends = self.trail.context.depth > DEPTH
        elif column == "string":
            self.string, self.at = value, at
        elif column == "program":
            self.program, self.at = value, at
        elif column == "module":
            self.module = True
        elif column == "refuses":
            self.ends = True


def _columns_of(row: Row) -> dict[str, str]:
    """Return the column of each option."""
    columns = (*VALUED, *PAIRS, *BARE)
    return {option: column for column in columns for option in row.get(column, "").split()}


def _options(word: str, columns: dict[str, str], row: Row) -> list[tuple[str, str | None]]:
    """Return the options in a word, each with the value that is joined to it."""
    if word in columns:
        return [(word, None)]
    if word.startswith("--") or "words" in row or len(word) < 3:
        option, equals, value = word.partition("=")
        if option not in columns:
            option = option.replace("_", "-")
        return [(option, value if equals else None)]
    found: list[tuple[str, str | None]] = []
    for at in range(1, len(word)):
        option = "-" + word[at]
        if columns.get(option) in VALUED:
            found.append((option, word[at + 1 :].removeprefix("=") or None))
            break
        if option in columns:
            found.append((option, None))
        elif "flags" in row:
            break  # the rest is the value of an option that is not listed
    return found


def is_server(words: Sequence[str], index: int) -> bool:
    """Whether the words at `index` are a server."""
    if words[index].rpartition("/")[2] not in VLLM:
        return False
    return entry_at(words, index) not in (None, NO_ENGINE)


def is_program(words: Sequence[str], index: int) -> bool:
    """Whether the word at `index` is a program that may be a server, or start one."""
    if index >= len(words):
        return False
    name = words[index].rpartition("/")[2]
    known = name in WRAPPERS or name in SHELLS or is_python(name)
    return known or is_server(words, index)


def is_value(words: Sequence[str], index: int) -> bool:
    """Whether the word at `index` may be the value of an option that is not listed."""
    return index < len(words) and words[index][:1] != "-" and not is_program(words, index)
