"""Follow the lists, branches and loops of a shell script, and collect the servers that it starts.

What a script does for sure is followed in its state. What it may do (a branch, a loop, the right
side of `&&`) is followed in a branch of the state, and where branches meet, there are alternatives.
"""

from __future__ import annotations

from eplb_launch.command.context import PARSED
from eplb_launch.command.shell.expand import elements, expand
from eplb_launch.command.shell.lexer import (
    COMMAND,
    PARAMETER,
    Array,
    Word,
    literal,
    parts,
)
from eplb_launch.command.shell.state import (
    FUNCTION,
    GAP,
    MOST,
    Shell,
    State,
    TooMuch,
)
from eplb_launch.command.shell.syntax import Node, Place, parse
from eplb_launch.entrypoints import HINTS, MARKS, NO_ENGINE, VLLM, entry_at
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from eplb_launch.command.context import Context
    from eplb_launch.command.shell.simple import Followed
    from eplb_launch.command.shell.state import Arm
    from eplb_launch.command.shell.syntax import Item
    from eplb_launch.model import Server

    Search: TypeAlias = Callable[[list[str], list[int], Context], Server | None]

SERVERS = 100  # to look at in one script
LEVELS = 150  # commands, functions and strings inside of each other
UNROLLED = 64  # turns of loops inside of each other
FOLLOWED = 96  # what it takes to follow a command
# The method that follows a kind of node.
KINDS = {
    "simple": "simple",
    "list": "commands",
    "pipe": "pipe",
    "if": "branches",
    "case": "case",
    "(": "subshell",
    "{": "parts",
    "function": "function",
    "for": "for_loop",
    "while": "loop",
}


class Flow:
    """A script that is being followed; `simple` says what a simple command does."""

    def __init__(self, shell: Shell, search: Search) -> None:
        self.shell = shell
        self.search = search  # for the server in the words of a command
        self.way = shell.way
        self.source = ""
        self.found: list[tuple[Server, bool]] = []  # each with whether `exec` starts it
        self.nets: list[tuple[frozenset[str], Server]] = []  # what is put into variables
        self.used: set[str] = set()  # variables that servers were started with, or that are shown
        # All that are defined, each with the script that it is in.
        self.functions: dict[int, tuple[Node, int, str, str]] = {}
        self.called: set[int] = set()  # functions
        self.calls: list[Node] = []  # functions that are being followed
        self.followed: dict[int, list[Followed]] = {}  # calls of each function
        self.heard = 0  # how often there was something of a server, or that is not kept
        self.returns: list[Arm] | None = None  # of the function that is being followed
        self.frame: State | None = None  # its state
        self.sourcing = 0  # files, one in another
        self.sure = False  # the command before succeeded
        self.probing = False  # a loop, for what it changes
        self.turns = 1  # of the loops around, as far as they are followed one by one
        self.level = 0
        self.partly = False  # the rest was too much to follow
        # Where that is: in the text of which script, and the file.
        self.left: tuple[int, str, int, str] = (0, "", 0, "")

    def choice(self, script: str) -> Server | None:
        """Return the server to report."""
        self.probing = False
        started = list(self.found)
        for names, server in self.nets:
            if self.used.isdisjoint(names):
                self.add(server, execs=False)
        if self.partly:
            # What stands there is not followed: nothing is known of it.
            for position, source, at, file in {
                self.left,
                (self.shell.position, script, 0, self.way.script),
            }:
                if stands(source[at:]):
                    self.shell.position, self.way.script = position, file
                    self.found.append((self.nothing_known(at, len(source)), False))
            if not self.found and any(mark in script for mark in MARKS):
                self.found.append((self.nothing_known(0, len(script)), False))
        if not self.found:
            return None
        mains = [pair for pair in started if pair[0].entry] or started[-1:] or self.found[:1]
        server = ([server for server, execs in mains if execs] or [mains[-1][0]])[-1]
        others = [other for other, _ in self.found if other is not server]
        return server.replace(others=tuple(others))

    def nothing_known(self, begin: int, end: int) -> Server:
        """Return a server of which nothing is known but where it stands in the text."""
        found = self.way.server((), (), NO_ENGINE, "")
        return found.replace(complete=False, place=self.shell.place(Word((), begin, end)))

    def add(self, server: Server, *, execs: bool) -> None:
        """Keep a server."""
        self.heard += 1
        if self.probing:
            return
        if len(self.found) > SERVERS:
            self.partly = True
            return
        others = server.others
        for one in (server.replace(others=()) if others else server, *others):
            same = (one.entry, one.words, one.environ, _offset(one.place))
            if not any(
                (o.entry, o.words, o.environ, _offset(o.place)) == same and e == execs
                for o, e in self.found[-MOST:]
            ):
                self.found.append((one, execs))

    def text(self, script: str, state: State, position: int | None = None) -> None:
        """Follow a script in a state."""
        before = self.source, self.shell.position
        state.charge(PARSED * len(script))
        self.source = script
        if position is not None:
            self.shell.position = position
        self.node(parse(script), state)
        self.source, self.shell.position = before

    def node(self, node: Node, state: State) -> None:
        """Follow a command."""
        state.charge(FOLLOWED + 2 * self.level)
        self.level += 1
        if len(self.found) > SERVERS:
            raise TooMuch
        if not self.partly:
            self.left = self.shell.position, self.source, node.at, self.way.script
        if self.level > LEVELS or node.kind == "deep":
            self.partly = True
            self.heard += 1
        else:
            getattr(self, KINDS[node.kind])(node, state)
        self.level -= 1

    def simple(self, node: Node, state: State) -> None:
        """Follow a simple command."""
        raise NotImplementedError

    def parts(self, node: Node, state: State) -> None:
        """Follow the only part of a command."""
        for part in node.parts:
            self.node(part, state)

    def commands(self, node: Node, state: State) -> None:
        """Follow a list of commands."""
        at = 0
        while at < len(node.parts) and not state.ended:
            end = at
            while node.operators[end] in ("&&", "||") and end + 1 < len(node.parts):
                end += 1
            here = state.branch() if node.operators[end] == "&" else state
            if end == at:
                self.node(node.parts[at], here)
            else:
                self.chain(node, at, end, here)
            at = end + 1

    def chain(self, node: Node, at: int, end: int, state: State) -> None:
        """Follow commands that are connected by `&&` and `||`."""
        self.node(node.parts[at], state)
        if state.ended:
            return
        after: State | None = state.branch()  # where the command before has succeeded
        failed: list[Arm] = [] if self.sure else [({}, {})]
        for number in range(at + 1, end + 1):
            state.charge(FOLLOWED)
            if node.operators[number - 1] == "&&":
                if after is None:
                    continue
            elif failed:
                succeeded = [] if after is None else [after.changes(state)]
                after = state.branch()
                after.join(failed)
                self.node(node.parts[number], after)
                failed = [] if self.sure or after.ended else [copied(after.changes(state))]
                succeeded += [] if after.ended else [after.changes(state)]
                after = None
                if succeeded:
                    after = state.branch()
                    after.join(succeeded)
                continue
            else:
                continue
            self.node(node.parts[number], after)
            if after.ended:
                after = None
            elif not self.sure:
                arm = copied(after.changes(state))
                failed += [] if failed and failed[-1] == arm else [arm]
        arms = [*([] if after is None else [after.changes(state)]), *failed]
        state.join([arm for i, arm in enumerate(arms) if arm not in arms[:i][-MOST:]])
        self.sure = self.sure and not failed

    def pipe(self, node: Node, state: State) -> None:
        """Follow a pipeline: what its commands do has no effect on this shell."""
        for part in node.parts:
            here = state.branch()
            self.node(part, here)
            if part is node.parts[-1] and self.shell.kind in ("zsh", "ksh", "mksh"):
                state.join([here.changes(state)])
        self.sure = False

    def branches(self, node: Node, state: State) -> None:
        """Follow `if`; one that asks what an earlier one has asked goes the same way."""
        from eplb_launch.command.shell.questions import is_a_test, same_way

        arms: list[Arm] = []
        taken: list[int] = []  # the numbers of these arms
        asked: list[str] | None = []
        read: set[str] = set()
        for number, part in enumerate(node.parts):
            here = state.branch()
            if number % 2 == 0 and number + 1 < len(node.parts):  # a condition
                here.reads = read
                self.node(part, here)
                if number == 0 and here.ended:
                    state.ended = True
                    return
                changed = here.changes(state)
                state.join([changed] if number == 0 else [changed, ({}, {})])
                text = self.source[part.at : node.parts[number + 1].at]
                text = text.rpartition("then")[0].rstrip("; \n\t")
                runs = "$(" in text or "`" in text or any(map(len, changed))
                if asked is not None and is_a_test(part) and not runs:
                    asked.append(text)
                else:
                    asked = None
                continue
            self.node(part, here)
            if not here.ended:
                arms.append(here.changes(state))
                taken.append(number)
        if len(node.parts) % 2 == 0:  # no else
            arms.append(({}, {}))
            taken.append(len(node.parts))
        state.join(arms, same_way(asked, read, taken, state))
        self.sure = False

    def case(self, node: Node, state: State) -> None:
        """Follow `case`."""
        for item in node.items:
            self.substitutions(item, state)
        arms: list[Arm] = [] if node.every else [({}, {})]
        for part in node.parts:
            here = state.branch()
            self.node(part, here)
            if not here.ended:
                arms.append(here.changes(state))
        state.join(arms)
        self.sure = False

    def subshell(self, node: Node, state: State) -> None:
        """Follow `(..)`."""
        self.parts(node, state.branch())
        self.sure = False

    def function(self, node: Node, state: State) -> None:
        """Keep a function for when it is called."""
        self.functions[id(node)] = node, self.shell.position, self.source, self.way.script
        state.variables[node.names[0] + FUNCTION] = node
        self.sure = True

    def for_loop(self, node: Node, state: State) -> None:
        """Follow `for`: turn by turn where its words are known."""
        for item in node.items:
            self.substitutions(item, state)
        fields = [
            field
            for item in node.items
            if isinstance(item, Word)
            for field in expand(item, state, self.shell.place(item))
        ]
        if node.every:
            fields = list(state.parameters())
        self.used |= self.shell.read
        texts = [text for text, _ in elements(fields)]
        known = not any(UNKNOWN in text for text in texts)
        turns = self.turns * max(1, len(texts))
        if known and len(texts) <= MOST and turns <= UNROLLED and not _leaves(node):
            before, self.turns = self.turns, turns
            for text in texts:
                state.put(node.names[0] or "_", text)
                for part in node.parts:
                    if not state.ended:
                        self.node(part, state)
            self.turns = before
        else:
            for name in node.names:
                if name:
                    state.doubt((name,))
            self.loop(node, state)
        self.sure = False

    def loop(self, node: Node, state: State) -> None:
        """Follow a loop of which it is not known how often it is run."""
        state.doubt(name for name in node.names if name)
        body = node.parts[-1:] if node.kind == "for" else node.parts
        if not self.probing:
            self.probing = True
            probe = state.branch()
            for part in body:
                self.node(part, probe)
            self.probing = False
            self.widen(state, probe)
        here = state.branch()
        for part in body:
            if not here.ended:
                self.node(part, here)
        if not here.ended:
            self.widen(state, here)
        self.sure = False

    def widen(self, state: State, turn: State) -> None:
        """Keep of what a loop changes what stays as it was: how a value begins."""
        variables, environ = turn.changes(state)
        if not variables and not environ:
            return
        before = {name: state.stored(name) for name in variables}
        state.join([(variables, environ), ({}, {})])
        for name, old in before.items():
            new = variables[name]
            if name + FUNCTION in variables or new is old or new == old:
                continue
            if name.endswith(FUNCTION) or isinstance(new, Node):
                continue
            if isinstance(old, list) and isinstance(new, list) and new[: len(old)] == old:
                kept = [field for field in old if field[0] != GAP]
                state.variables[name] = [*kept, (GAP, 0)]
            elif isinstance(old, list) or isinstance(new, list):
                state.variables[name] = [(GAP, 0)]
            elif isinstance(old, str) and isinstance(new, str) and new.startswith(old + " "):
                state.variables[name] = old.rstrip(" " + UNKNOWN) + " " + UNKNOWN
            elif name[0] != "-":
                state.variables[name] = UNKNOWN
        for name in environ:
            if state.environ[name] is not environ[name]:
                state.environ[name] = UNKNOWN

    def substitutions(self, item: Item, state: State) -> None:
        """Follow the commands in the `$(..)` of a word."""
        words = item.words if isinstance(item, Array) else [item]
        for word in words:
            for kind, text, quoted in word:
                if kind == COMMAND:
                    self.inside(text, word, state)
                elif kind == PARAMETER and ("$(" in text or "`" in text):
                    rest = text.partition(":")[2] or text
                    for inner, command, _ in parts(rest, quoted=quoted):
                        if inner == COMMAND:
                            self.inside(command, word, state)

    def inside(self, text: str, word: Word, state: State) -> None:
        """Follow the command of a `$(..)` that stands in a word."""
        state.charge(len(text))
        at = self.source.find(text, word.at)
        position = self.shell.place(word)
        if isinstance(position, Place) and word.at <= at < word.end:
            offset = position.offset + at - word.at
            position = Place(position, offset, offset + len(text), exact=True)
        self.text(text, state.branch(), position)


def _leaves(node: Node) -> bool:
    """Whether a loop may end before its last turn."""
    todo = [node]
    while todo:
        at = todo.pop()
        todo += at.parts
        first = at.items[0] if at.kind == "simple" and at.items else None
        if isinstance(first, Word) and literal(first) in ("break", "continue"):
            return True
    return False


def copied(arm: Arm) -> Arm:
    return dict(arm[0]), dict(arm[1])


def _offset(position: int) -> int:
    return position.offset if isinstance(position, Place) else -1


def hints(text: str) -> bool:
    return any(hint in text for hint in HINTS)


def stands(text: str) -> bool:
    """Whether the words of an entry point stand in a text, whatever it is written in."""
    if not hints(text):
        return False
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    words = "\n".join(lines).translate(_BLANKS).split()
    for index, word in enumerate(words):
        name = word.rpartition("/")[2]
        if name in VLLM or (word == "-m" and hints("".join(words[index + 1 : index + 2]))):
            start = index if name in VLLM else index - 1
            found = (
                entry_at(["python3", *words[index:]], 0)
                if start < index
                else entry_at(words, index)
            )
            if found is not None and found != NO_ENGINE:
                return True
    return False


_BLANKS = {ord(char): " " for char in "\"'\\,[]{}()=;&|"}
