"""A simple command of a shell script, expanded, and what a call of a function has done."""

from __future__ import annotations

import os

from eplb_launch.command.shell.expand import settle, value
from eplb_launch.command.shell.lexer import Word, parts
from eplb_launch.command.shell.state import LOCAL, OUTSIDE, PARAMETERS, WRITTEN, Either
from eplb_launch.command.shell.syntax import Place
from eplb_launch.command.wrappers import SHELLS
from eplb_launch.entrypoints import HINTS
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eplb_launch.command.shell.lexer import Redirection
    from eplb_launch.command.shell.state import Arm, Field, Shell, State
    from eplb_launch.command.shell.syntax import Item, Node

# They change no file that they name.
_SHOWN_BY = frozenset(("[", "cat", "echo", "grep", "head", "less", "ls", "tail", "test"))
# They run what they are given as input.
INPUTS = SHELLS | {"sbatch", "ssh"}


class Command:
    """A simple command, expanded."""

    def __init__(
        self, node: Node, fields: list[Field], assignments: list[Item], state: State
    ) -> None:
        self.node = node
        self.assignments = assignments  # before it
        self.state = state
        self.settle(fields)

    def settle(self, fields: list[Field]) -> None:
        """Take the words; of `words` those are left out that cannot be known."""
        self.fields = fields
        self.words, self.gap = settle(fields)
        self.names = [text.rpartition("/")[2] for text, _ in self.words]

    def reads_script(self) -> bool:
        """Whether a here-document is a script that it runs."""
        given = any(one.operator in ("<<", "<<-") for one in self.node.redirections)
        return given and not INPUTS.isdisjoint(self.names)


def with_input(command: Command, shell: Shell) -> list[Field]:
    """Return a command with the script that it reads as one that it is given."""
    fields = command.fields
    document = [one for one in command.node.redirections if one.operator in ("<<", "<<-")][-1]
    text = document.text
    place = text_place(document, shell)
    names = [word.rpartition("/")[2] for word, _ in fields]
    if "ssh" in names:  # hands its words to a shell
        end = next((i for i, name in enumerate(names) if name in SHELLS), len(fields))
        return [*fields[:end], (text, place)]
    if names[-1] in SHELLS or names[-1] in ("-s", "-"):
        kept = [field for field in fields if field[0] not in ("-s", "-")]
        return [*kept, ("-c", place), (text, place)]
    return [*fields, ("sh", place), ("-c", place), (text, place)]


def text_place(document: Redirection, shell: Shell) -> int:
    """Return the place of a here-document, which stands in the script as it is."""
    place = shell.place(Word((), document.at, document.at + len(document.text)))
    position = shell.position
    if isinstance(place, Place) and (not isinstance(position, Place) or position.exact):
        place.exact = True
    return place


def write(command: Command, shell: Shell) -> None:
    """Keep the text of a file that `cat > FILE <<END` writes; UNKNOWN if that may be changed here.

    A change may be out of sight (in a group, a pipe, by a pattern): the text can show that a server
    may hang, but not that it cannot.
    """
    state = command.state
    documents = [one for one in command.node.redirections if one.operator[:2] == "<<"]
    for one in command.node.redirections:
        name = value(one.word, state, 0)
        if one.operator not in (">", ">|", ">>", "&>") or UNKNOWN in name:
            continue
        text = UNKNOWN
        if one.operator != ">>" and command.names == ["cat"] and len(documents) == 1:
            text = documents[0].text
            if documents[0].expands:
                text = value(parts(text, quoted=True), state, 0)
        path = _path(name, state)
        if documents or path in shell.written:
            shell.written.add(path)
            state.variables[WRITTEN + path] = text
    starts = any(hint in text for text, _ in command.words for hint in HINTS)
    if shell.written and not starts and command.names[0] not in _SHOWN_BY:
        for name, _ in command.words[1:]:
            if _path(name, state) in shell.written:
                state.variables[WRITTEN + _path(name, state)] = UNKNOWN


def written(state: State) -> tuple[tuple[str, str], ...]:
    """Return the files that the script has written here, with their texts."""
    found = []
    state.charge(16 * len(state.shell.written))
    for path in sorted(state.shell.written):
        text = state.stored(WRITTEN + path)
        if text != OUTSIDE:
            found.append((path, text if isinstance(text, str) else UNKNOWN))
    return tuple(found)


def _path(name: str, state: State) -> str:
    return os.path.normpath(os.path.join(state.directory() or "", name))


class Followed:
    """What a call of a function did in which nothing was heard of a server.

    Where all that it read is the same, another call does the same.
    """

    def __init__(
        self, parameters: list[Field], names: set[str], arms: list[Arm], state: State
    ) -> None:
        """Take what it was given, what it read, what it changed, and where it was called."""
        self.parameters = parameters
        self.read = state.read(names)
        self.arms = arms
        alternatives = [value for value in self.read.values() if isinstance(value, Either)]
        self.branches = {branch for one in alternatives for case in one.cases for branch in case[0]}
        self.way = self.way_of(state)

    def way_of(self, state: State) -> list[int | None]:
        """Return the arms taken, as far as what it read depends on them."""
        return [state.shell.choices.get(branch) for branch in self.branches]

    def fits(self, state: State) -> bool:
        """Whether a call of the function with these parameters does the same."""
        state.charge(8 * len(self.read))
        return self.way == self.way_of(state) and state.read(self.read) == self.read


def without(arm: Arm, names: set[str]) -> Arm:
    """Return what a function leaves behind of what it changes."""
    own = names | {name[len(LOCAL) :] for name in arm[0] if name.startswith(LOCAL)} | {PARAMETERS}
    return (
        {
            name: value
            for name, value in arm[0].items()
            if name not in own and name[1:] not in own and not name.startswith(LOCAL)
        },
        {name: value for name, value in arm[1].items() if name not in own},
    )
