"""What goes the same way as before: an `if` with the same condition, a call of a function."""

from __future__ import annotations

from eplb_launch.command.shell.expand import OPERATORS
from eplb_launch.command.shell.lexer import PARAMETER, TEXT, Word, is_name, literal
from eplb_launch.command.shell.state import (
    ANY_WORDS,
    ENVIRON,
    EXPORTED,
    FUNCTION,
    INHERITED,
    LOCAL,
    SET_BY_SHELL,
    UNSET,
    Alternatives,
)
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eplb_launch.command.shell.state import Changes, Choices, Field, State, Stored
    from eplb_launch.command.shell.syntax import Node

# The operators of `[` that look at no file: test(1).
_NO_FILE = frozenset(("-n", "-z", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"))
_PATTERNS = frozenset("*?[~")  # the shell looks at files, or at HOME


def variables_of_test(node: Node) -> set[str] | None:
    """Return what a condition reads; None for one that reads more than variables and text."""
    if node.kind == "list":
        found = [variables_of_test(part) for part in node.parts]
        return None if None in found else {name for names in found for name in names or ()}
    words = [item for item in node.items if isinstance(item, Word) and item]
    program = literal(words[0]) if words else ""
    if node.kind != "simple" or node.redirections or len(words) < len(node.items):
        return None
    if program not in ("[", "test"):
        return None
    read = {"IFS", program + FUNCTION}
    for word in words[1:]:
        kind, text, _ = word[0]
        if kind == TEXT and text[:1] == "-" and text not in _NO_FILE:
            return None
        for kind, text, quoted in word:
            if kind == PARAMETER and _variable(text):
                read.add(_variable(text))
            elif kind != TEXT or (not quoted and text != "]" and not _PATTERNS.isdisjoint(text)):
                return None
    return read


def _variable(parameter: str) -> str:
    """Return the NAME of `$NAME` or `${NAME:-x}`; "" if not only the script changes it."""
    name = parameter
    for operator in OPERATORS:
        name = name.partition(operator)[0]
    by_script = is_name(name) and name not in SET_BY_SHELL
    return name if by_script and frozenset("$`=").isdisjoint(parameter) else ""


def same_choices(
    conditions: tuple[str, ...], read: set[str], arms: list[int], state: State
) -> list[Choices]:
    """Return the choices for the `arms` of an `if`: those of an `if` with the same conditions.

    `read` are the variables that the conditions read.
    """
    values = {name: state.stored(name) for name in read}
    if not conditions or len(arms) < 2 or not all(map(_is_certain, values.values())):
        return []
    shell = state.shell
    earlier = shell.asked.setdefault(conditions, [])
    branch = next((branch for before, branch in earlier if before == values), None)
    if branch is None:
        shell.branches += 1
        branch = shell.branches
        earlier.append((values, branch))
    return [{branch: number} for number in arms]


def _is_certain(value: Stored) -> bool:
    """Whether equal values mean the same at run time, and no value is an operator of `[`."""
    if isinstance(value, list):
        return all(UNKNOWN not in text and text not in (ANY_WORDS, UNSET) for text, _ in value)
    if value is None or value == INHERITED:
        return True
    return isinstance(value, str) and UNKNOWN not in value and value[:1] != "-"


def lasting(arm: Changes, own: set[str]) -> Changes:
    """Return the changes of a function that outlast it: not of its `own` names, not of locals."""
    own = own | {name[len(LOCAL) :] for name in arm if name.startswith(LOCAL)}
    hidden = {prefix + name for name in own for prefix in ("", EXPORTED, ENVIRON)}
    return {
        name: value
        for name, value in arm.items()
        if name not in hidden and not name.startswith(LOCAL)
    }


class Call:
    """A call of a function in which nothing was noted. A call that reads the same does the same."""

    def __init__(
        self, parameters: list[Field], names: set[str], arms: list[Changes], state: State
    ) -> None:
        """Keep the parameters, the names that were read, and the arms at the end of the call."""
        self.parameters = parameters
        self.arms = arms
        self.read = {name: state.stored(name) for name in names}
        self.choices = {
            branch: state.shell.choices.get(branch)
            for value in self.read.values()
            if isinstance(value, Alternatives)
            for choices, _ in value.cases
            for branch in choices
        }

    def is_like(self, parameters: list[Field], state: State) -> bool:
        """Whether a call with these parameters in this state does the same."""
        state.charge(8 * len(self.read))
        choices = state.shell.choices
        return (
            parameters == self.parameters
            and all(choices.get(branch) == arm for branch, arm in self.choices.items())
            and all(state.stored(name) == value for name, value in self.read.items())
        )
