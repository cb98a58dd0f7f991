"""Follow a shell script to the vLLM servers that it starts, without running it.

What a script does for sure is followed in its state. What it may do (a branch, a loop, the right
side of `&&`) is followed in a branch of the state, and where branches meet, there are alternatives.
A command is followed once for each way through the alternatives of what it reads.
"""

from __future__ import annotations

from eplb_launch.command.context import PARSED
from eplb_launch.command.shell.builtins import BUILTINS, DECLARE, assign, assigned, declare
from eplb_launch.command.shell.expand import elements, expand, settle
from eplb_launch.command.shell.lexer import COMMAND, PARAMETER, Array, Word, literal, parts
from eplb_launch.command.shell.state import (
    ABSENT,
    FUNCTION,
    GAP,
    LOCAL,
    MOST,
    OUTSIDE,
    PARAMETERS,
    Either,
    Place,
    Shell,
    State,
    TooMuch,
)
from eplb_launch.command.shell.syntax import Node, parse
from eplb_launch.command.wrappers import PREFIXES, READERS, SHELLS
from eplb_launch.entrypoints import HINTS, MARKS, NOTHING, VLLM, entry_at
from eplb_launch.model import ONE_WORD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, TypeAlias

    from eplb_launch.command.context import Context
    from eplb_launch.command.shell.lexer import Redirection
    from eplb_launch.command.shell.state import Arm, Field, Guard
    from eplb_launch.command.shell.syntax import Item
    from eplb_launch.model import Server

    Search: TypeAlias = Callable[[list[str], list[int], Context], Server | None]

SOURCED = 16  # files and commands to name
SERVERS = 100  # to look at in one script
LEVELS = 150  # commands, functions and strings inside of each other
UNROLLED = 64  # turns of loops inside of each other
LOOKED_AT = 32  # of the words of an array
NAMED = 8  # of what cannot be known
ROOM = 32  # for each character of a script
# Commands that hardly ever fail, so that what follows them after `&&` is run.
SURE = frozenset((":", "true", "cd", "set", "source", ".", "unset", "pushd", *DECLARE))
# The operators of `[` that look at no file.
_OF_VALUES = frozenset(("-n", "-z", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"))
# They run what they are given as input.
INPUTS = SHELLS | {"sbatch", "ssh"}


def run(
    script: str, position: int, shell: str, words: list[Field], way: Context, *, search: Search
) -> Server | None:
    """Return the server that a script starts; all others are among its `others`.

    `position` is where the script stands in the command; `words` are its `$0`, `$1` and so on. Of
    several servers it is the last one that takes the shell's place (`exec`), else the last one.
    """
    found = Shell(way, shell, position)
    state = State(found)
    state.variables["0"] = words[0][0] if words else shell
    state.variables[PARAMETERS] = list(words[1:])
    if way.depth == 1 and not way.level:
        # Who starts a server waits for it.
        waits = way.files is not None and way.files[0].all_there
        way.room[0] += (PARSED if waits else ROOM) * len(script)
    follower = _Follower(found, search)
    file = way.script
    try:
        follower.text(script, state)
        follower.not_called(state)
    except TooMuch:
        follower.partly = True
        found.position, way.script = position, file
    return follower.choice(script)


class _Follower:
    """A script that is being followed."""

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
        self.followed: dict[int, list[_Followed]] = {}  # calls of each function
        self.heard = 0  # how often there was something of a server, or that is not kept
        self.returns: list[Arm] | None = None  # of the function that is being followed
        self.frame: State | None = None  # its state
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
                if _stands(source[at:]):
                    self.shell.position, self.way.script = position, file
                    self.add(self.nothing_known(at, len(source)), execs=False)
            if not self.found and any(mark in script for mark in MARKS):
                self.add(self.nothing_known(0, len(script)), execs=False)
        if not self.found:
            return None
        mains = [pair for pair in started if pair[0].entry] or started[-1:] or self.found[:1]
        server = ([server for server, execs in mains if execs] or [mains[-1][0]])[-1]
        others = [other for other, _ in self.found if other is not server]
        return server.replace(others=tuple(others))

    def nothing_known(self, begin: int, end: int) -> Server:
        """Return a server of which nothing is known but where it stands in the text."""
        found = self.way.server((), (), NOTHING, "")
        return found.replace(complete=False, place=self.shell.place(Word((), begin, end)))

    def add(self, server: Server, *, execs: bool) -> None:
        """Keep a server."""
        self.heard += 1
        if self.probing or len(self.found) > SERVERS:
            return
        others = server.others
        for one in (server.replace(others=()) if others else server, *others):
            same = (one.entry, one.words, one.environ, _offset(one.place))
            if not any(
                (o.entry, o.words, o.environ, _offset(o.place)) == same and e == execs
                for o, e in self.found[-MOST:]
            ):
                self.found.append((one, execs))

    # Scripts and what is in them

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
        state.charge(16)
        self.level += 1
        if len(self.found) > SERVERS:
            raise TooMuch
        if not self.partly:
            self.left = self.shell.position, self.source, node.at, self.way.script
        if self.level > LEVELS or node.kind == "deep":
            self.partly = True
            self.heard += 1
        else:
            self.kinds[node.kind](self, node, state)
        self.level -= 1

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
            if node.operators[number - 1] == "&&":
                if after is None:
                    continue
            elif failed:
                succeeded = [] if after is None else [after.changes(state)]
                after = state.branch()
                after.join(failed)
                self.node(node.parts[number], after)
                failed = [] if self.sure or after.ended else [_copy(after.changes(state))]
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
                arm = _copy(after.changes(state))
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
                if asked is not None and _is_a_test(part) and not runs:
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
        state.join(arms, self.same_way(asked, read, taken, state))
        self.sure = False

    def same_way(
        self, asked: list[str] | None, names: set[str], taken: list[int], state: State
    ) -> list[Guard]:
        """Return the choices that lead to the arms `taken` of an `if`: those of one like it."""
        if not asked or len(taken) < 2:
            return []
        values = state.read(names)
        known = self.shell.asked.setdefault(tuple(asked), [])
        for before, branch in known:
            if before == values:
                return [{branch: number} for number in taken]
        self.shell.branches += 1
        known.append((values, self.shell.branches))
        return [{self.shell.branches: number} for number in taken]

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

    # Simple commands

    def simple(self, node: Node, state: State) -> None:
        """Follow a simple command, on each way through what it reads."""
        for item in node.items:
            self.substitutions(item, state)
        shell = self.shell
        if not shell.forked:
            self.command(node, state)
            return
        outer = shell.choices, shell.agenda, shell.room
        agenda: list[Guard] = [shell.choices]
        room = MOST - 1
        arms: list[tuple[Arm, Guard]] = []
        while agenda:
            shell.choices, shell.agenda, shell.room = dict(agenda.pop(0)), agenda, room
            here = state.branch()
            self.command(node, here)
            room = shell.room
            if not here.ended:
                chosen = {b: arm for b, arm in shell.choices.items() if b not in outer[0]}
                arms.append((here.changes(state), chosen))
        shell.choices, shell.agenda, shell.room = outer
        state.join([arm for arm, _ in arms], [guard for _, guard in arms])

    def command(self, node: Node, state: State) -> None:
        """Do what a simple command does to the shell, or look for a server in it."""
        shell = self.shell
        words = node.items
        shell.blamed, shell.read = [], set()
        first = 0
        while first < len(words) and assigned(words[first]):
            first += 1
        rest = words[first:]
        if rest and isinstance(rest[0], Word) and literal(rest[0]) in DECLARE:
            self.note_sourced(literal(rest[0]), [], rest)
            self.assignments(rest[1:], state, lambda: declare(rest, state))
            self.sure = True
            return
        fields = [
            field
            for word in rest
            if isinstance(word, Word)
            for field in expand(word, state, shell.place(word))
        ]
        command = _Command(node, fields, words[:first], state)
        if command.words:
            self.execute(command)
            return

        def assigns() -> None:
            for item in words[:first]:
                assign(item, state)

        self.assignments(words[:first], state, assigns)
        self.sure = not any(
            kind == COMMAND for item in words if isinstance(item, Word) for kind, _, _ in item
        )

    def assignments(self, items: list[Item], state: State, assigns: Callable[[], object]) -> None:
        """Do assignments, and keep in mind what they are made of."""
        shell = self.shell
        shell.blamed, shell.read = [], set()
        assigns()
        for item in items:
            name = assigned(item)
            if not name:
                continue
            shell.origins[name] = tuple(dict.fromkeys(shell.blamed))
            if not shell.origins[name]:
                del shell.origins[name]
            value = state.variables.get(name)
            if isinstance(value, str) and _hints(value):
                self.used |= shell.read - {name}
                self.net(
                    frozenset((name,)), [("sh", 0), ("-c", 0), (value, shell.place(item))], state
                )
            elif isinstance(value, list) and any(_hints(text) for text, _ in value[:LOOKED_AT]):
                self.used |= shell.read - {name}
                self.net(frozenset((name,)), value, state)

    def net(self, names: frozenset[str], fields: list[Field], state: State) -> None:
        """Keep what stands in variables and may be started unseen."""
        self.heard += 1
        if self.probing:
            return
        way = self.way_to(state)
        texts, gap = settle(fields)
        way.gap = gap
        server = self.search([text for text, _ in texts], [at for _, at in texts], way)
        if server is not None and server.entry:
            self.nets.append((names, server.replace(complete=False)))

    def execute(self, command: _Command) -> None:
        """Do what a command with a name does."""
        words, state = command.words, command.state
        while words[1:] and (
            (words[0][0] in ("command", "builtin") and words[1][0] in BUILTINS)
            or (words[0][0] == "time" and self.is_function(words[1][0], state))
        ):
            command.settle(command.fields[1:])
            words = command.words
        name = words[0][0]
        self.sure = name in SURE
        if command.node.redirections and not command.reads_script():
            self.documents(command)
        if name in ("source", ".") and self.source_file(command):
            return
        self.note_sourced(name, command.fields, command.node.items[len(command.assignments) :])
        if name in self.own:
            self.used |= self.shell.read
            self.own[name](self, command)
        elif name in BUILTINS:
            BUILTINS[name](command.fields, state)
            if name == "let" and _stands(words[-1][0]):  # `((` that is no arithmetic
                node = command.node
                self.add(self.nothing_known(node.at, node.items[-1].end), execs=False)
            elif name == "set" and any(_hints(text) for text, _ in words[1:]):
                self.used |= self.shell.read - {PARAMETERS}
                self.net(frozenset((PARAMETERS,)), state.parameters(), state)
        elif self.is_function(name, state):
            self.used |= self.shell.read
            function = state.known(name + FUNCTION)
            if isinstance(function, Node):
                self.call(function, command.fields, command.assignments, state)
        elif name in READERS:
            self.used |= self.shell.read
        else:
            self.look(command)

    def source_file(self, command: _Command) -> bool:
        """Follow a file that is sourced; False where it is not read."""
        state, way, words = command.state, self.way, command.words
        scripts = way.scripts()
        if len(words) < 2 or scripts is None or words[1][0].endswith("/activate"):
            return False
        state.charge(32)
        here = way.branch()
        here.directory = state.directory()
        text = scripts.text(words[1][0], here, sourced=True)
        self.heard += 1
        if text is None:
            return False
        way.room[0] += ROOM * len(text)
        before = way.level, way.script, state.stored(PARAMETERS)
        way.level, way.script = way.level + 1, words[1][0]
        if words[2:]:
            state.put(PARAMETERS, words[2:])
        self.text(text, state, Place(words[1][1], 0, len(text), exact=True))
        way.level, way.script, state.variables[PARAMETERS] = before
        state.ended = False
        return True

    def trap(self, command: _Command) -> None:
        """`trap COMMANDS SIGNALS`."""
        words = command.words
        if words[1:]:
            self.text(words[1][0], command.state.branch(), _inexact(words[1][1]))

    def evaluate(self, command: _Command) -> None:
        """`eval WORDS`."""
        state, words = command.state, command.words
        text = " ".join([text for text, _ in words[1:]])
        if text.lstrip()[:1] == UNKNOWN:
            state.lose_sight()
        state.charge(2 * len(text))
        names = [assigned(item) for item in command.assignments]
        for item in command.assignments:
            assign(item, state, export=True)
        self.text(text, state, _inexact(words[-1][1]))
        state.doubt(names)

    def ends(self, command: _Command) -> None:
        """`exit`, `return`, `exec COMMAND`."""
        name, state = command.words[0][0], command.state
        if name == "exec" and len(command.words) == 1:
            return
        if name == "exec":
            self.look(command)
        elif name == "return" and self.returns is not None and self.frame is not None:
            self.returns.append(_copy(state.changes(self.frame)))
        state.ended = True

    def is_function(self, name: str, state: State) -> bool:
        """Whether a function has this name, or may have it."""
        return bool(name) and isinstance(state.known(name + FUNCTION), Node)

    def note_sourced(self, name: str, fields: list[Field], given: list[Item]) -> None:
        """Note what sets variables here: a file, the command of `eval "$(..)"`, `export $(..)`."""
        if name not in ("env", "eval", "source", ".", *DECLARE):
            return
        found = [
            f"$({text.strip()})"
            for item in given
            if isinstance(item, Word)
            for at, (kind, text, _) in enumerate(item)
            if kind == COMMAND and (not at or name == "eval")
        ]
        if not found and name in ("source", "."):
            found = [UNKNOWN if text in (GAP, ABSENT) else text for text, _ in fields[1:2]]
        if found and len(self.way.sourced) < SOURCED:
            self.way.sourced += (found[0],)

    def call(self, node: Node, fields: list[Field], before: list[Item], state: State) -> None:
        """Follow a function, with the assignments `before` it."""
        self.called.add(id(node))
        if self.calls.count(node) > 1:  # it calls itself
            self.sure = False
            self.heard += 1
            return
        parameters = elements(fields[1:])
        known = self.followed.setdefault(id(node), [])
        for one in known if not before else ():
            if one.parameters == parameters and one.fits(state):
                state.join(one.arms)
                self.sure = False
                return
        heard = self.heard
        self.calls.append(node)
        outer = self.frame, self.returns, self.shell.position, self.source, self.way.script
        self.frame = frame = state.branch()
        returns: list[Arm] = []
        self.returns = returns
        frame.reads = set()
        for item in before:
            assign(item, frame, export=True)
        frame.variables[PARAMETERS] = parameters
        _, self.shell.position, self.source, self.way.script = self.functions[id(node)]
        self.parts(node, frame)
        self.calls.pop()
        self.frame, self.returns, self.shell.position, self.source, self.way.script = outer
        arms = [*([] if frame.ended else [frame.changes(state)]), *returns]
        own = {assigned(item) for item in before}
        arms = [_without(arm, own) for arm in arms]
        if heard == self.heard and not before and len(known) < MOST:
            known.append(_Followed(parameters, frame.reads, arms, state))
        state.join(arms)

    def not_called(self, state: State) -> None:
        """Follow the functions that nothing has called: what does may be out of sight."""
        state.ended = False
        seen = 0
        while seen < len(self.functions):
            nodes = list(self.functions.values())[seen:]
            seen += len(nodes)
            for node, _, _, script in nodes:
                # Those of a file that is sourced are for others, too.
                if id(node) not in self.called and script == self.way.script:
                    self.call(node, [("", 0), (GAP, 0)], [], state.branch())

    def way_to(self, state: State, *, choose: bool = True) -> Context:
        """Return what a command gets that is started here."""
        way = self.way.branch()
        way.directory = state.directory()
        way.environ.changes.update(state.handed_on(choose=choose))
        way.environ.looked_at = set()
        return way

    def is_script(self, program: str, state: State) -> bool:
        """Whether a program is a script."""
        scripts = self.way.scripts()
        if scripts is None:
            return False
        stored = state.stored("PATH")
        path: str | None = stored if isinstance(stored, str) else UNKNOWN
        if stored is None or stored == OUTSIDE:
            path = self.way.environ.get("PATH") if stored else None
        return bool(scripts.started(program, state.directory(), path))

    def look(self, command: _Command) -> None:
        """Look for a server in a command."""
        state = command.state
        if command.node.redirections and command.reads_script():
            command.settle(_with_input(command, self.shell))
        words, gap, name = command.words, command.gap, command.names[0]
        state.charge(32 + len(words))
        starts = gap >= 0 or name in PREFIXES or name in SHELLS
        if not (
            starts
            or any(_hints(text) or UNKNOWN in text or text[:2] == "--" for text, _ in words)
            or self.is_script(words[0][0], state)
        ):
            self.way.idle[0] = False
            return
        blamed = list(self.shell.blamed)
        server = self.started(command, choose=False)
        if server is not None:
            server = self.started(command, choose=True) or server
            self.used |= self.shell.read
            unknown = tuple(dict.fromkeys((*server.unknown, *blamed)))[:NAMED]
            self.add(server.replace(unknown=unknown), execs=words[0][0] == "exec")

    def started(self, command: _Command, *, choose: bool) -> Server | None:
        """Return the server that a command starts; with a way to `choose`, what it gets."""
        state = command.state
        fields, words, gap = command.fields, command.words, command.gap
        name = command.names[0]
        way = self.way_to(state, choose=choose)
        way.gap = gap
        for item in command.assignments:
            here = state.branch()
            assign(item, here)
            value = here.variables[assigned(item)]
            if isinstance(value, str):
                known = UNKNOWN if value == ABSENT else value.replace(ONE_WORD, UNKNOWN)
                way.environ.changes[assigned(item)] = known
        server = self.search([text for text, _ in words], [at for _, at in words], way.branch())
        if gap >= 0 and name in PREFIXES and name not in VLLM and not (server and server.entry):
            # `ssh $HOST "vllm serve"`: what is not known may be just the operand that is wanted.
            one = elements(fields)
            way.gap = max([index for index, (text, _) in enumerate(one) if text == GAP], default=-1)
            texts = [UNKNOWN if text == GAP else text for text, _ in one]
            server = self.search(texts, [at for _, at in one], way) or server
        for asked in way.environ.looked_at or ():
            state.exported_value(asked)
        return server

    def documents(self, command: _Command) -> None:
        """Keep the here-documents of a command, unless it only shows them."""
        node, name = command.node, command.names[0]
        writes = any(one.operator in (">", ">>", ">|", "&>") for one in node.redirections)
        shows = name in READERS or name in (":", "true")
        if self.probing or (shows and name != "tee" and not writes):
            return
        for one in node.redirections:
            if one.operator not in ("<<", "<<-") or not _stands(one.text):
                continue
            self.heard += 1
            text = one.text.replace("ExecStart=", "          ")  # of a unit of systemd
            place = _text_place(one, self.shell)
            way = self.way_to(command.state)
            server = self.search(["sh", "-c", text], [0, 0, place], way)
            if server is None or not server.entry:
                server = self.nothing_known(one.at, one.at + len(text))
            self.nets.append((frozenset(), server.replace(complete=False)))

    own: ClassVar = {
        "trap": trap,
        "eval": evaluate,
        "exec": ends,
        "exit": ends,
        "return": ends,
    }
    kinds: ClassVar = {
        "simple": simple,
        "list": commands,
        "pipe": pipe,
        "if": branches,
        "case": case,
        "(": subshell,
        "{": parts,
        "function": function,
        "for": for_loop,
        "while": loop,
    }


def _is_a_test(node: Node) -> bool:
    """Whether a condition asks for nothing but variables: asked again, the answer is the same."""
    if node.kind == "list":
        return all(map(_is_a_test, node.parts))
    words = [literal(item) for item in node.items if isinstance(item, Word)]
    flags = {word for word in words if word[:1] == "-"}
    return node.kind == "simple" and words[:1] in (["["], ["test"]) and flags <= _OF_VALUES


class _Followed:
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


class _Command:
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


def _with_input(command: _Command, shell: Shell) -> list[Field]:
    """Return a command with the script that it reads as one that it is given."""
    fields = command.fields
    document = [one for one in command.node.redirections if one.operator in ("<<", "<<-")][-1]
    text = document.text
    place = _text_place(document, shell)
    names = [word.rpartition("/")[2] for word, _ in fields]
    if "ssh" in names:  # hands its words to a shell
        end = next((i for i, name in enumerate(names) if name in SHELLS), len(fields))
        return [*fields[:end], (text, place)]
    if names[-1] in SHELLS or names[-1] in ("-s", "-"):
        kept = [field for field in fields if field[0] not in ("-s", "-")]
        return [*kept, ("-c", place), (text, place)]
    return [*fields, ("sh", place), ("-c", place), (text, place)]


def _text_place(document: Redirection, shell: Shell) -> int:
    """Return the place of a here-document, which stands in the script as it is."""
    place = shell.place(Word((), document.at, document.at + len(document.text)))
    position = shell.position
    if isinstance(place, Place) and (not isinstance(position, Place) or position.exact):
        place.exact = True
    return place


def _copy(arm: Arm) -> Arm:
    return dict(arm[0]), dict(arm[1])


def _without(arm: Arm, names: set[str]) -> Arm:
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


def _inexact(position: int) -> int:
    return (
        Place(position, position.offset, position.end) if isinstance(position, Place) else position
    )


def _offset(position: int) -> int:
    return position.offset if isinstance(position, Place) else -1


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


def _hints(text: str) -> bool:
    return any(hint in text for hint in HINTS)


def _stands(text: str) -> bool:
    """Whether the words of an entry point stand in a text, whatever it is written in."""
    if not _hints(text):
        return False
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    words = "\n".join(lines).translate(_BLANKS).split()
    for index, word in enumerate(words):
        name = word.rpartition("/")[2]
        if name in VLLM or (word == "-m" and _hints("".join(words[index + 1 : index + 2]))):
            start = index if name in VLLM else index - 1
            found = (
                entry_at(["python3", *words[index:]], 0)
                if start < index
                else entry_at(words, index)
            )
            if found is not None and found != NOTHING:
                return True
    return False


_BLANKS = {ord(char): " " for char in "\"'\\,[]{}()=;&|"}
