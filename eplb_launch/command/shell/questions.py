"""What `if` asks: a question that is asked again about the same values has the same answer."""

from __future__ import annotations

from eplb_launch.command.shell.expand import OPERATORS
from eplb_launch.command.shell.lexer import PARAMETER, TEXT, Word, is_name, literal
from eplb_launch.command.shell.state import ABSENT, GAP, OUTSIDE, OWN
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eplb_launch.command.shell.state import Guard, State, Stored
    from eplb_launch.command.shell.syntax import Node

# The operators of `[` that look at no file: test(1).
_OF_VALUES = frozenset(("-n", "-z", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"))


def same_way(
    asked: list[str] | None, names: set[str], taken: list[int], state: State
) -> list[Guard]:
    """Return the choices that lead to the arms `taken` of an `if`: those of one like it.

    `asked` are its conditions, None if they are not alike whenever they are asked; `names` what
    they have read.
    """
    values = state.read(names)
    if not asked or len(taken) < 2 or not all(map(_is_known, values.values())):
        return []
    shell = state.shell
    known = shell.asked.setdefault(tuple(asked), [])
    for before, branch in known:
        if before == values:
            return [{branch: number} for number in taken]
    shell.branches += 1
    known.append((values, shell.branches))
    return [{shell.branches: number} for number in taken]


def is_a_test(node: Node) -> bool:
    """Whether a condition asks for nothing but variables that only the script itself changes."""
    if node.kind == "list":
        return all(map(is_a_test, node.parts))
    items = [item for item in node.items if isinstance(item, Word)]
    words = [literal(item) for item in items]
    flags = {word for word in words if word[:1] == "-"}
    pieces = [(kind, text) for item in items for kind, text, _ in item]
    return (
        node.kind == "simple"
        and words[:1] in (["["], ["test"])
        and flags <= _OF_VALUES
        and all(kind == TEXT or (kind == PARAMETER and _is_own(text)) for kind, text in pieces)
    )


def _is_own(parameter: str) -> bool:
    """Whether `$NAME` or `${NAME:-x}` is a variable that the shell does not set itself."""
    name = parameter
    for operator in OPERATORS:
        name = name.partition(operator)[0]
    return is_name(name) and name not in OWN and "$" not in parameter and "`" not in parameter


def _is_known(value: Stored) -> bool:
    """Whether two values that are alike are the same; what nobody has set here is."""
    if isinstance(value, list):
        return all(UNKNOWN not in text and text not in (GAP, ABSENT) for text, _ in value)
    return value is None or value == OUTSIDE or (isinstance(value, str) and UNKNOWN not in value)
