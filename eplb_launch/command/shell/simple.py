"""A simple command of a shell script, with its here-document and the files that it writes."""

from __future__ import annotations

import os

from eplb_launch.command.shell.expand import settle, value
from eplb_launch.command.shell.lexer import Word, parts
from eplb_launch.command.shell.state import WRITTEN
from eplb_launch.command.shell.syntax import Place
from eplb_launch.command.wrappers import SHELLS
from eplb_launch.entrypoints import HINTS
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eplb_launch.command.shell.lexer import Redirection
    from eplb_launch.command.shell.state import Field, Shell, State
    from eplb_launch.command.shell.syntax import Item, Node

# Commands that do not change the files that they name.
_ONLY_READ = frozenset(("[", "cat", "echo", "grep", "head", "less", "ls", "tail", "test"))
# Commands that run their input as a script.
_RUN_INPUT = SHELLS | {"sbatch", "ssh"}


class Command:
    """A simple command with its expanded words."""

    def __init__(
        self, node: Node, fields: list[Field], assignments: list[Item], state: State
    ) -> None:
        self.node = node
        self.assignments = assignments  # before the words
        self.state = state
        self.settle(fields)

    def settle(self, fields: list[Field]) -> None:
        """Take the fields, and make words of them."""
        self.fields = fields
        self.words, self.gap = settle(fields)
        self.names = [text.rpartition("/")[2] for text, _ in self.words]

    @property
    def documents(self) -> list[Redirection]:
        """Return the here-documents."""
        return [one for one in self.node.redirections if one.operator in ("<<", "<<-")]

    def runs_input(self) -> bool:
        """Whether it runs a here-document as a script."""
        return bool(self.documents) and not _RUN_INPUT.isdisjoint(self.names)


def with_input(command: Command, shell: Shell) -> list[Field]:
    """Return a command that runs its input, with the script in an argument instead."""
    fields = command.fields
    document = command.documents[-1]
    place = text_place(document, shell)
    script = (document.text, place)
    names = [word.rpartition("/")[2] for word, _ in fields]
    if "ssh" in names:  # passes its words to a shell
        end = next((i for i, name in enumerate(names) if name in SHELLS), len(fields))
        return [*fields[:end], script]
    if names[-1] in SHELLS or names[-1] in ("-s", "-"):
        kept = [field for field in fields if field[0] not in ("-s", "-")]
        return [*kept, ("-c", place), script]
    return [*fields, ("sh", place), ("-c", place), script]


def text_place(document: Redirection, shell: Shell) -> int:
    """Return the place of a here-document."""
    place = shell.place(Word((), document.at, document.at + len(document.text)))
    position = shell.position
    if isinstance(place, Place) and (not isinstance(position, Place) or position.exact):
        place.exact = True
    return place


def note_written(command: Command, shell: Shell) -> None:
    """Store the text of a file that `cat > FILE <<END` writes; UNKNOWN if a command may change it.

    A change may be out of sight (in a group, in a pipe, by a pattern). The text can show that a
    server may hang, but not that it cannot.
    """
    state = command.state
    documents = [one for one in command.node.redirections if one.operator[:2] == "<<"]
    for one in command.node.redirections:
        name = value(one.word, state)
        if one.operator not in (">", ">|", ">>", "&>") or UNKNOWN in name:
            continue
        text = UNKNOWN
        if one.operator != ">>" and command.names == ["cat"] and len(documents) == 1:
            text = documents[0].text
            if documents[0].expands:
                text = value(parts(text, quoted=True), state)
        path = _path(name, state)
        if documents or path in shell.written:
            shell.written.add(path)
            state.values[WRITTEN + path] = text
    starts = any(hint in text for text, _ in command.words for hint in HINTS)
    if shell.written and not starts and command.names[0] not in _ONLY_READ:
        for name, _ in command.words[1:]:
            if _path(name, state) in shell.written:
                state.values[WRITTEN + _path(name, state)] = UNKNOWN


def written(state: State) -> tuple[tuple[str, str], ...]:
    """Return the files that the script has written so far, with their texts."""
    state.charge(16 * len(state.shell.written))
    texts = [(path, state.stored(WRITTEN + path)) for path in sorted(state.shell.written)]
    return tuple((path, text if isinstance(text, str) else UNKNOWN) for path, text in texts)


def _path(name: str, state: State) -> str:
    return os.path.normpath(os.path.join(state.directory() or "", name))
