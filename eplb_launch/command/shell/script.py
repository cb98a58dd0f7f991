"""Follow a shell script to the vLLM servers that it starts, without running it.

A simple command is followed once for each way through the alternatives of what it reads.
"""

from __future__ import annotations

from eplb_launch.command.context import PARSED
from eplb_launch.command.shell.builtins import BUILTINS, DECLARE, assign, assigned, declare
from eplb_launch.command.shell.expand import elements, expand, settle
from eplb_launch.command.shell.flow import FOLLOWED, Flow, copied, hints, stands
from eplb_launch.command.shell.lexer import COMMAND, Word, literal
from eplb_launch.command.shell.simple import (
    Command,
    Followed,
    text_place,
    with_input,
    without,
    write,
    written,
)
from eplb_launch.command.shell.state import (
    ABSENT,
    FUNCTION,
    GAP,
    MOST,
    OUTSIDE,
    PARAMETERS,
    Shell,
    State,
    TooMuch,
)
from eplb_launch.command.shell.syntax import Node, Place
from eplb_launch.command.wrappers import READERS, SHELLS, WRAPPERS
from eplb_launch.entrypoints import OF_EPLB, VLLM
from eplb_launch.model import ONE_WORD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    from eplb_launch.command.context import Context
    from eplb_launch.command.shell.flow import Search
    from eplb_launch.command.shell.state import Arm, Field, Guard
    from eplb_launch.command.shell.syntax import Item
    from eplb_launch.model import Server

SOURCED = 16  # files and commands to name
LOOKED_AT = 32  # of the words of an array
NAMED = 8  # of what cannot be known
ROOM = 32  # for each character of a script
# Commands that hardly ever fail, so that what follows them after `&&` is run.
SURE = frozenset((":", "true", "cd", "set", "source", ".", "unset", "pushd", *DECLARE))


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
        files = way.shared.files
        waits = files is not None and files.all_there
        way.shared.room += (PARSED if waits else ROOM) * len(script)
    follower = _Follower(found, search)
    file = way.script
    try:
        follower.text(script, state)
        follower.not_called(state)
    except TooMuch:
        follower.partly = True
        found.position, way.script = position, file
    return follower.choice(script)


class _Follower(Flow):
    """A script that is being followed, with what its simple commands do."""

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
            state.charge(2 * FOLLOWED)
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
        command = Command(node, fields, words[:first], state)
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
            if isinstance(value, str) and hints(value):
                self.used |= shell.read - {name}
                self.net(
                    frozenset((name,)), [("sh", 0), ("-c", 0), (value, shell.place(item))], state
                )
            elif isinstance(value, list) and any(hints(text) for text, _ in value[:LOOKED_AT]):
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

    def execute(self, command: Command) -> None:
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
        write(command, self.shell)
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
            if name == "let" and stands(words[-1][0]):  # `((` that is no arithmetic
                node = command.node
                self.add(self.nothing_known(node.at, node.items[-1].end), execs=False)
            elif name == "set" and any(hints(text) for text, _ in words[1:]):
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

    def source_file(self, command: Command) -> bool:
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
        before = way.level, way.script, state.stored(PARAMETERS)
        way.level, way.script = way.level + 1, words[1][0]
        if words[2:]:
            state.put(PARAMETERS, words[2:])
        self.sourcing += 1
        self.text(text, state, Place(words[1][1], 0, len(text), exact=True))
        self.sourcing -= 1
        way.level, way.script, state.variables[PARAMETERS] = before
        state.ended = False
        return True

    def trap(self, command: Command) -> None:
        """`trap COMMANDS SIGNALS`."""
        words = command.words
        if words[1:]:
            self.text(words[1][0], command.state.branch(), _inexact(words[1][1]))

    def evaluate(self, command: Command) -> None:
        """`eval WORDS`."""
        state, words = command.state, command.words
        text = " ".join([text for text, _ in words[1:]])
        if text.lstrip()[:1] == UNKNOWN:
            state.lose_sight()
        state.charge(2 * len(text))
        names = [assigned(item) for item in command.assignments]
        for item in command.assignments:
            assign(item, state, export=True)
        blamed, first = list(self.shell.blamed), len(self.found)
        self.text(text, state, _inexact(words[-1][1]))
        for at, (server, execs) in enumerate(self.found[first:], first):
            unknown = tuple(dict.fromkeys((*server.unknown, *blamed)))[:NAMED]
            self.found[at] = server.replace(unknown=unknown), execs
        state.doubt(names)

    def ends(self, command: Command) -> None:
        """`exit`, `return`, `exec COMMAND`."""
        name, state = command.words[0][0], command.state
        if name == "exec" and len(command.words) == 1:
            return
        if name == "exec":
            self.look(command)
        elif name == "return" and self.returns is not None and self.frame is not None:
            self.returns.append(copied(state.changes(self.frame)))
        elif name == "return" and not self.sourcing:  # bash goes on, dash exits
            return
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
                state.join(one.again(self.shell))
                self.sure = False
                return
        heard, first = self.heard, self.shell.branches + 1
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
        arms = [without(arm, own) for arm in arms]
        if heard == self.heard and not before and len(known) < MOST:
            known.append(Followed(parameters, frame.reads, arms, state, first))
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

    def way_to(self, state: State) -> Context:
        """Return what a command gets that is started here."""
        way = self.way.branch()
        way.directory = state.directory()
        way.set_by_shell(dict(state.handed_on()))
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

    def look(self, command: Command) -> None:
        """Look for a server in a command."""
        state = command.state
        if command.node.redirections and command.reads_script():
            command.settle(with_input(command, self.shell))
        words, gap, name = command.words, command.gap, command.names[0]
        state.charge(32 + 16 * len(words))
        starts = gap >= 0 or name in WRAPPERS or name in SHELLS
        if not (
            starts
            or any(hints(text) or UNKNOWN in text or text[:2] == "--" for text, _ in words)
            or self.is_script(words[0][0], state)
        ):
            self.way.shared.idle = False
            return
        blamed = list(self.shell.blamed)
        server = self.started(command, {})
        if server is not None:
            chosen = state.chosen()
            server = (self.started(command, chosen) if chosen else None) or server
            self.used |= self.shell.read
            unknown = tuple(dict.fromkeys((*server.unknown, *blamed)))[:NAMED]
            files = written(state)
            self.add(server.replace(unknown=unknown, written=files), execs=words[0][0] == "exec")

    def started(self, command: Command, chosen: dict[str, str | None]) -> Server | None:
        """Return the server that a command starts, with what was `chosen` for it to get."""
        state = command.state
        fields, words, gap = command.fields, command.words, command.gap
        name = command.names[0]
        way = self.way_to(state)
        way.gap = gap
        changes = {**chosen}
        for item in command.assignments:
            here = state.branch()
            assign(item, here)
            value = here.variables[assigned(item)]
            if isinstance(value, str):
                known = UNKNOWN if value == ABSENT else value.replace(ONE_WORD, UNKNOWN)
                changes[assigned(item)] = known
        way.set_by_shell(changes)
        server = self.search([text for text, _ in words], [at for _, at in words], way.branch())
        if gap >= 0 and name in WRAPPERS and name not in VLLM and not (server and server.entry):
            # `ssh $HOST "vllm serve"`: what is not known may be just the operand that is wanted.
            one = elements(fields)
            way.gap = max([index for index, (text, _) in enumerate(one) if text == GAP], default=-1)
            texts = [UNKNOWN if text == GAP else text for text, _ in one]
            server = self.search(texts, [at for _, at in one], way) or server
        for asked in way.environ.looked_at or ():
            state.exported_value(asked)
        return server

    def documents(self, command: Command) -> None:
        """Keep the here-documents of a command, unless it only shows them."""
        node, name = command.node, command.names[0]
        writes = any(one.operator in (">", ">>", ">|", "&>") for one in node.redirections)
        shows = name in READERS or name in (":", "true")
        if self.probing or (shows and name != "tee" and not writes):
            return
        for one in node.redirections:
            text = one.text.replace("ExecStart=", "          ")  # of a unit of systemd
            # A manifest for kubectl, say: EPLB's options stand in no command of a shell.
            marks = [text.find(mark) for mark in OF_EPLB if mark in text and hints(text)]
            command_stands = stands(one.text)
            if one.operator not in ("<<", "<<-") or not (command_stands or marks):
                continue
            self.heard += 1
            server = None
            if command_stands:
                place = text_place(one, self.shell)
                way = self.way_to(command.state)
                server = self.search(["sh", "-c", text], [0, 0, place], way)
            if server is None or not server.entry:
                begin = 0 if command_stands else min(marks)
                server = self.nothing_known(one.at + begin, one.at + len(text))
            self.nets.append((frozenset(), server.replace(complete=False)))

    own: ClassVar = {
        "trap": trap,
        "eval": evaluate,
        "exec": ends,
        "exit": ends,
        "return": ends,
    }


def _inexact(position: int) -> int:
    return (
        Place(position, position.offset, position.end) if isinstance(position, Place) else position
    )
