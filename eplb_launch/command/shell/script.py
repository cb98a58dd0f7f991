"""Follow a shell script to the vLLM servers that it starts, without running it.

A simple command is followed once for each combination of the alternatives that it reads.
"""

from __future__ import annotations

from eplb_launch.command.context import PARSED
from eplb_launch.command.shell.builtins import BUILTINS, DECLARE, assign, assigned, declare
from eplb_launch.command.shell.expand import expand, settle, without_unset
from eplb_launch.command.shell.flow import COMMAND_COST, Flow, has_entry_point, has_hint
from eplb_launch.command.shell.lexer import COMMAND, Word, literal
from eplb_launch.command.shell.repeats import Call, lasting
from eplb_launch.command.shell.simple import Command, note_written, text_place, with_input, written
from eplb_launch.command.shell.state import (
    ANY_WORDS,
    ENVIRON,
    FUNCTION,
    INHERITED,
    MAX_ALTERNATIVES,
    PARAMETERS,
    UNSET,
    Alternatives,
    Shell,
    State,
    TooMuch,
)
from eplb_launch.command.shell.syntax import Node, Place
from eplb_launch.command.wrappers import READERS, SHELLS, WRAPPERS
from eplb_launch.entrypoints import OF_EPLB, VLLM
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    from eplb_launch.command.context import Context
    from eplb_launch.command.shell.flow import Search
    from eplb_launch.command.shell.state import Changes, Choices, Field
    from eplb_launch.command.shell.syntax import Item
    from eplb_launch.model import Server

MAX_SOURCED = 16  # files and commands to name
MAX_ELEMENTS = 32  # of an array, to search for a server
MAX_NAMED = 8  # unknown variables and commands
ROOM = 32  # of work, for each character of a script
# Commands that hardly ever fail: what follows them after `&&` runs.
SUCCEED = frozenset((":", "true", "cd", "set", "source", ".", "unset", "pushd", *DECLARE))


def run(
    script: str, position: int, shell: str, words: list[Field], context: Context, *, search: Search
) -> Server | None:
    """Return the server that a script starts; all others are among its `others`.

    `position` is where the script stands in the command; `words` are its `$0`, `$1` and so on. Of
    several servers it is the last that replaces the shell (`exec`), or else the last.
    """
    found = Shell(context, shell, position)
    state = State(found)
    state.values["0"] = words[0][0] if words else shell
    state.values[PARAMETERS] = list(words[1:])
    if context.depth == 1 and not context.level:
        # A launch gets less room than check and ps: somebody waits for the server.
        files = context.shared.files
        launches = files is not None and files.all_there
        context.shared.room += (PARSED if launches else ROOM) * len(script)
    follower = _Follower(found, search)
    file = context.script
    try:
        follower.text(script, state)
        follower.uncalled_functions(state)
    except TooMuch:
        follower.gave_up = True
        found.position, context.script = position, file
    return follower.result(script)


class _Follower(Flow):
    """A script that is being followed, with its simple commands."""

    def simple(self, node: Node, state: State) -> None:
        """Follow a simple command, once for each combination of alternatives that it reads."""
        for item in node.items:
            self.substitutions(item, state)
        shell = self.shell
        if not shell.has_alternatives:
            self.command(node, state)
            return
        outer = shell.choices, shell.agenda, shell.room
        agenda: list[Choices] = [shell.choices]
        room = MAX_ALTERNATIVES - 1
        arms: list[Changes] = []
        choices: list[Choices] = []
        while agenda:
            shell.choices, shell.agenda, shell.room = dict(agenda.pop(0)), agenda, room
            state.charge(2 * COMMAND_COST)
            here = state.fork()
            self.command(node, here)
            room = shell.room
            if not here.ended:
                arms.append(here.changes(state))
                choices.append({b: arm for b, arm in shell.choices.items() if b not in outer[0]})
        shell.choices, shell.agenda, shell.room = outer
        state.merge(arms, choices)

    def command(self, node: Node, state: State) -> None:
        """Follow a simple command, given the choices so far."""
        shell = self.shell
        items = node.items
        shell.unknown, shell.read = [], set()
        first = 0
        while first < len(items) and assigned(items[first]):
            first += 1
        rest = items[first:]
        if rest and isinstance(rest[0], Word) and literal(rest[0]) in DECLARE:
            self.note_sourced(literal(rest[0]), [], rest)
            self.assignments(rest[1:], state, lambda: declare(rest, state))
            self.succeeded = True
            return
        command = Command(node, expand(rest, state), items[:first], state)
        if command.words:
            self.execute(command)
            return

        def assigns() -> None:
            for item in items[:first]:
                assign(item, state)

        self.assignments(items[:first], state, assigns)
        self.succeeded = not any(
            kind == COMMAND for item in items if isinstance(item, Word) for kind, _, _ in item
        )

    def assignments(self, items: list[Item], state: State, assigns: Callable[[], object]) -> None:
        """Do assignments, and note what is unknown in them and which servers are in the values."""
        shell = self.shell
        shell.unknown, shell.read = [], set()
        assigns()
        for item in items:
            name = assigned(item)
            if not name:
                continue
            shell.origins.pop(name, None)
            if shell.unknown:
                shell.origins[name] = tuple(dict.fromkeys(shell.unknown))
            value = state.values.get(name)
            if isinstance(value, str) and has_hint(value):
                value = [("sh", 0), ("-c", 0), (value, shell.place(item))]
            if isinstance(value, list) and any(has_hint(text) for text, _ in value[:MAX_ELEMENTS]):
                self.note_value(name, value, state)

    def note_value(self, name: str, fields: list[Field], state: State) -> None:
        """Note a server in the value of a variable: something unseen may start it."""
        self.used |= self.shell.read - {name}
        self.noted += 1
        if self.probing:
            return
        context = self.context_of(state, state.environ())
        words, context.gap = settle(fields)
        server = self.search([text for text, _ in words], [at for _, at in words], context)
        if server is not None and server.entry:
            self.in_values.append((name, server.replace(args_known=False)))

    def execute(self, command: Command) -> None:
        """Follow a command that has a name."""
        words, state = command.words, command.state
        while words[1:] and (
            (words[0][0] in ("command", "builtin") and words[1][0] in BUILTINS)
            or (words[0][0] == "time" and self.function_named(words[1][0], state))
        ):
            command.settle(command.fields[1:])
            words = command.words
        name = words[0][0]
        self.succeeded = name in SUCCEED
        note_written(command, self.shell)
        if command.node.redirections and not command.runs_input():
            self.note_documents(command)
        if name in ("source", ".") and self.source_file(command):
            return
        self.note_sourced(name, command.fields, command.node.items[len(command.assignments) :])
        if name in self.builtins:
            self.used |= self.shell.read
            self.builtins[name](self, command)
        elif name in BUILTINS:
            BUILTINS[name](command.fields, state)
            if name == "let" and has_entry_point(words[-1][0]):  # `((` that is no arithmetic
                node = command.node
                self.add(self.unknown_server(node.at, node.items[-1].end), execs=False)
            elif name == "set" and any(has_hint(text) for text, _ in words[1:]):
                self.note_value(PARAMETERS, state.parameters(), state)
        elif function := self.function_named(name, state):
            self.used |= self.shell.read
            self.call(function, command.fields, command.assignments, state)
        elif name in READERS:
            self.used |= self.shell.read
        else:
            self.find_server(command)

    # Builtins that run commands

    def source_file(self, command: Command) -> bool:
        """Follow a file that is sourced. Return False if it is not read."""
        state, context, words = command.state, self.context, command.words
        scripts = context.scripts()
        if len(words) < 2 or scripts is None or words[1][0].endswith("/activate"):
            return False
        state.charge(32)
        here = context.branch()
        here.directory = state.directory()
        text = scripts.text(words[1][0], here, sourced=True)
        self.noted += 1
        if text is None:
            return False
        before = context.level, context.script, state.stored(PARAMETERS)
        context.level, context.script = context.level + 1, words[1][0]
        if words[2:]:
            state.put(PARAMETERS, words[2:])
        self.sourcing += 1
        self.text(text, state, Place(words[1][1], 0, len(text), exact=True))
        self.sourcing -= 1
        context.level, context.script, state.values[PARAMETERS] = before
        state.ended = False
        return True

    def trap(self, command: Command) -> None:
        """Follow `trap COMMANDS SIGNALS`."""
        words = command.words
        if words[1:]:
            self.text(words[1][0], command.state.fork(), words[1][1])

    def evaluate(self, command: Command) -> None:
        """Follow `eval WORDS`."""
        state, words = command.state, command.words
        text = " ".join([text for text, _ in words[1:]])
        if text.lstrip()[:1] == UNKNOWN:
            state.forget_all()
        state.charge(2 * len(text))
        for item in command.assignments:
            assign(item, state, export=True)
        unknown, first = list(self.shell.unknown), len(self.found)
        self.text(text, state, words[-1][1])
        for at, (server, execs) in enumerate(self.found[first:], first):
            self.found[at] = _with_unknown(server, unknown), execs
        state.forget(map(assigned, command.assignments))

    def end(self, command: Command) -> None:
        """Follow `exit`, `return` or `exec COMMAND`."""
        name, state = command.words[0][0], command.state
        if name == "exec" and len(command.words) == 1:
            return
        if name == "exec":
            self.find_server(command)
        elif name == "return" and self.returns is not None and self.frame is not None:
            self.returns.append(state.changes(self.frame))
        elif name == "return" and not self.sourcing:  # bash goes on, dash exits
            return
        state.ended = True

    builtins: ClassVar = {
        "trap": trap,
        "eval": evaluate,
        "exec": end,
        "exit": end,
        "return": end,
    }

    def note_sourced(self, name: str, fields: list[Field], items: list[Item]) -> None:
        """Note what may set variables: a file, the command in `eval "$(..)"` or `export $(..)`."""
        if name not in ("env", "eval", "source", ".", *DECLARE):
            return
        found = [
            f"$({text.strip()})"
            for item in items
            if isinstance(item, Word)
            for at, (kind, text, _) in enumerate(item)
            if kind == COMMAND and (not at or name == "eval")
        ]
        if not found and name in ("source", "."):
            found = [UNKNOWN if text in (ANY_WORDS, UNSET) else text for text, _ in fields[1:2]]
        if found and len(self.context.reads_first) < MAX_SOURCED:
            self.context.reads_first += (found[0],)

    # Functions

    def function_named(self, name: str, state: State) -> Node | None:
        """Return the function that a name may call."""
        function = state.known(name + FUNCTION) if name else None
        return function if isinstance(function, Node) else None

    def call(self, node: Node, fields: list[Field], before: list[Item], state: State) -> None:
        """Follow a call of a function, with the assignments before it."""
        self.called.add(id(node))
        if self.calling.count(node) > 1:  # it calls itself
            self.succeeded = False
            self.noted += 1
            return
        parameters = without_unset(fields[1:])
        past = self.past_calls.setdefault(id(node), [])
        for one in past if not before else ():
            if one.is_like(parameters, state):
                state.merge(one.arms)
                self.succeeded = False
                return
        noted = self.noted
        self.calling.append(node)
        outer = self.frame, self.returns, self.shell.position, self.source, self.context.script
        self.frame = frame = state.fork()
        returns: list[Changes] = []
        self.returns = returns
        frame.reads = set()
        for item in before:
            assign(item, frame, export=True)
        frame.values[PARAMETERS] = parameters
        _, self.shell.position, self.source, self.context.script = self.functions[id(node)]
        self.body(node, frame)
        self.calling.pop()
        self.frame, self.returns, self.shell.position, self.source, self.context.script = outer
        arms = returns if frame.ended else [frame.changes(state), *returns]
        own = {PARAMETERS, *map(assigned, before)}
        arms = [lasting(arm, own) for arm in arms]
        certain = not any(isinstance(value, Alternatives) for arm in arms for value in arm.values())
        if noted == self.noted and not before and certain and len(past) < MAX_ALTERNATIVES:
            past.append(Call(parameters, frame.reads, arms, state))
        state.merge(arms)

    def uncalled_functions(self, state: State) -> None:
        """Follow the functions that nothing has called: something unseen may call them."""
        state.ended = False
        seen = 0
        while seen < len(self.functions):
            functions = list(self.functions.values())[seen:]
            seen += len(functions)
            for node, _, _, script in functions:
                # A file that is sourced has functions for other scripts, too.
                if id(node) not in self.called and script == self.context.script:
                    self.call(node, [("", 0), (ANY_WORDS, 0)], [], state.fork())

    # Other commands

    def context_of(self, state: State, environ: dict[str, str | None]) -> Context:
        """Return the context of a command that the shell starts."""
        context = self.context.branch()
        context.directory = state.directory()
        context.set_by_shell(environ)
        context.environ.looked_at = set()
        return context

    def is_script(self, program: str, state: State) -> bool:
        """Whether a program is a script."""
        scripts = self.context.scripts()
        if scripts is None:
            return False
        stored = state.stored("PATH")
        path: str | None = stored if isinstance(stored, str) else UNKNOWN
        if stored is None or stored == INHERITED:
            path = self.context.environ.get("PATH") if stored else None
        return bool(scripts.started(program, state.directory(), path))

    def find_server(self, command: Command) -> None:
        """Find the server that a command starts."""
        state = command.state
        if command.runs_input():
            command.settle(with_input(command, self.shell))
        words, name = command.words, command.names[0]
        state.charge(32 + 16 * len(words))
        if not (
            command.gap >= 0
            or name in WRAPPERS
            or name in SHELLS
            or any(has_hint(text) or UNKNOWN in text or text[:2] == "--" for text, _ in words)
            or self.is_script(words[0][0], state)
        ):
            self.context.shared.idle = False
            return
        unknown = list(self.shell.unknown)
        environ = state.environ()
        server = self.started(command, environ)
        if server is not None:
            chosen = state.environ(choose=True)
            if chosen != environ:
                server = self.started(command, chosen) or server
            self.used |= self.shell.read
            server = _with_unknown(server, unknown).replace(written=written(state))
            self.add(server, execs=words[0][0] == "exec")

    def started(self, command: Command, environ: dict[str, str | None]) -> Server | None:
        """Return the server that a command starts in this environment."""
        state, fields, words = command.state, command.fields, command.words
        environ = dict(environ)
        for item in command.assignments:
            here = state.fork()
            assign(item, here, export=True)
            value = here.values.get(ENVIRON + assigned(item))
            if isinstance(value, str):
                environ[assigned(item)] = value
        context = self.context_of(state, environ)
        context.gap = command.gap
        inner = context.branch()
        server = self.search([text for text, _ in words], [at for _, at in words], inner)
        name = command.names[0]
        if (
            command.gap >= 0
            and name in WRAPPERS
            and name not in VLLM
            and not (server and server.entry)
        ):
            # `ssh $HOST "vllm serve"`: the unknown words may be one operand.
            fields = without_unset(fields)
            gaps = [index for index, (text, _) in enumerate(fields) if text == ANY_WORDS]
            context.gap = max(gaps, default=-1)
            texts = [UNKNOWN if text == ANY_WORDS else text for text, _ in fields]
            server = self.search(texts, [at for _, at in fields], context) or server
        for name in context.environ.looked_at or ():
            state.stored(ENVIRON + name)  # a function around the command has read it
        return server

    def note_documents(self, command: Command) -> None:
        """Note the servers in here-documents, unless the command only shows its input."""
        node, name = command.node, command.names[0]
        writes = any(one.operator in (">", ">>", ">|", "&>") for one in node.redirections)
        shows = name in READERS or name in (":", "true")
        if self.probing or (shows and name != "tee" and not writes):
            return
        for one in command.documents:
            text = one.text.replace("ExecStart=", "          ")  # a unit of systemd
            # A manifest for kubectl has EPLB's options, but not in a command.
            marks = [text.find(mark) for mark in OF_EPLB if mark in text and has_hint(text)]
            is_script = has_entry_point(one.text)
            if not is_script and not marks:
                continue
            self.noted += 1
            server = None
            if is_script:
                place = text_place(one, self.shell)
                context = self.context_of(command.state, command.state.environ())
                server = self.search(["sh", "-c", text], [0, 0, place], context)
            if server is None or not server.entry:
                start = 0 if is_script else min(marks)
                server = self.unknown_server(one.at + start, one.at + len(text))
            self.in_values.append(("", server.replace(args_known=False)))


def _with_unknown(server: Server, unknown: list[str]) -> Server:
    named = tuple(dict.fromkeys((*server.unknown, *unknown)))[:MAX_NAMED]
    return server.replace(unknown=named)
