"""Follow a shell script to the vLLM server that it starts, without running it."""

from __future__ import annotations

from eplb_launch.command.entrypoints import NOTHING, VLLM
from eplb_launch.command.find import MARKS, search
from eplb_launch.command.shell.blocks import Blocks
from eplb_launch.command.shell.builtins import BUILTINS, DECLARE, assign, assigned, declare
from eplb_launch.command.shell.expand import elements, expand, settle
from eplb_launch.command.shell.lexer import COMMAND, Array, literal, tokens
from eplb_launch.command.shell.state import ABSENT, GAP, PARAMETERS, State, TooMuch
from eplb_launch.command.wrappers import PREFIXES, READERS
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eplb_launch.command.context import Context
    from eplb_launch.command.shell.builtins import Item
    from eplb_launch.command.shell.state import Field
    from eplb_launch.model import Server

SOURCED = 16  # files and commands to name
SERVERS = 64  # servers to look at in one script
CALLS = 64  # functions called and strings evaluated
DEPTH = 16  # of these, one inside another
# Commands that hardly ever fail, so that what follows them after `&&` is run.
SURE = frozenset((":", "true", "cd", "set", "source", ".", "unset", "pushd", *DECLARE))


def run(script: str, position: int, shell: str, words: list[Field], way: Context) -> Server | None:
    """Return the server that a script starts.

    `position` is where the script stands in the command; `words` are its `$0`, `$1` and so on. Of
    several servers it is the last one that takes the shell's place (`exec`), else the last one.
    """
    state = State(way, shell, words[0][0] if words else shell, words[1:])
    follower = _Follower(state, position)
    try:
        follower.walk(tokens(script), 0, None)
    except TooMuch:
        follower.partly = True
        if not follower.found and any(mark in script for mark in MARKS):
            # There is a server in what was not followed, of which nothing is known.
            return way.server((), (), NOTHING, "").replace(complete=False)
    except _Stop:
        pass
    return follower.choice()


class _Stop(Exception):  # noqa: N818
    """Nothing after this point is run."""


class _Follower(Blocks):
    """A script that is being followed."""

    def __init__(self, state: State, position: int) -> None:
        """Begin with the variables in `state`; the script stands at `position`."""
        super().__init__(state)
        self.position = position
        self.calls = 0
        self.partly = False  # the rest was too much to follow

    def choice(self) -> Server | None:
        """Return the server to report."""
        found = [pair for pair in self.found if pair[0].entry] or self.found[-1:]
        if not found:
            return None
        server = ([server for server, execs in found if execs] or [found[-1][0]])[-1]
        same = (server.entry, server.words, server.environ)
        others = [o for o, _ in found if (o.entry, o.words, o.environ) != same]
        complete = server.complete and not self.partly
        return server.replace(others=(*server.others, *others), complete=complete)

    def command(self, words: list[Item]) -> None:
        """Do what a simple command does to the shell, or look for a server in it."""
        if not words or self.skipping:
            return
        self.pending = ""
        state, position = self.state, self.position
        state.charge(32)
        first = 0
        while first < len(words) and assigned(words[first]):
            first += 1
        rest = words[first:]
        if rest and isinstance(rest[0], list) and literal(rest[0]) in DECLARE:
            self.note_sourced(rest[0][0][1], [], rest)
            declare(rest, state, position)
            self.sure = True
            return
        fields = [
            field
            for word in rest
            if not isinstance(word, Array)
            for field in expand(word, state, position)
        ]
        found, gap = settle(fields)
        if found:
            self.execute(fields, found, gap, words[:first], rest)
            return
        for item in words[:first]:
            assign(item, state, position)
        self.sure = not any(
            kind == COMMAND for item in words if isinstance(item, list) for kind, _, _ in item
        )

    def execute(
        self,
        fields: list[Field],
        words: list[Field],
        gap: int,
        assignments: list[Item],
        given: list[Item],
    ) -> None:
        """Do what a command with a name does.

        `words` are `fields` without those not known, `given` is what they were expanded from.
        """
        if words[0][0] in ("command", "builtin") and words[1:] and words[1][0] in BUILTINS:
            fields, words = fields[1:], words[1:]
        name = words[0][0]
        self.sure = name in SURE
        if name in ("source", ".") and self.source(words):
            return
        if name in ("env", "eval", "source", "."):
            self.note_sourced(name, fields, given)
        if name in BUILTINS:
            if [text for text, _ in words[:2]] == ["unset", "-f"]:
                self.undefine(words[2:])
            BUILTINS[name](fields, self.state)
        elif name in self.functions or name == "eval":
            self.call(name, fields, assignments)
        elif name not in READERS:
            self.look(fields, words, gap, assignments)
            if name == "exit" or (name == "exec" and len(words) > 1):
                if self.certain():
                    raise _Stop
                self.sure = False

    def note_sourced(self, name: str, fields: list[Field], given: list[Item]) -> None:
        """Note what sets variables here: a file, the command of `eval "$(..)"`, `export $(..)`."""
        found = [
            f"$({text.strip()})"
            for item in given
            if isinstance(item, list)
            for at, (kind, text, _) in enumerate(item)
            if kind == COMMAND and (not at or name == "eval")
        ]
        if not found and name in ("source", "."):
            found = [UNKNOWN if text in (GAP, ABSENT) else text for text, _ in fields[1:2]]
        way = self.state.way
        if found and len(way.sourced) < SOURCED:
            way.sourced += (found[0],)

    def undefine(self, names: list[Field]) -> None:
        """Drop functions."""
        for name, _ in names:
            self.functions.pop(name, None)

    def call(self, name: str, fields: list[Field], assignments: list[Item]) -> None:
        """Follow a function, or a string that is evaluated."""
        state = self.state
        self.calls += 1
        if self.calls > CALLS or self.depth >= DEPTH:
            self.partly = True
            state.lose_sight()
            return
        mark = state.mark()
        for item in assignments:
            assign(item, state, self.position, export=True)
        temporary = state.changed(mark)
        maybe = not self.certain()
        self.maybe += maybe
        if name == "eval":
            text = " ".join([text for text, _ in settle(fields)[0][1:]])
            if text.lstrip()[:1] == UNKNOWN:
                state.lose_sight()
            state.charge(2 * len(text))
            self.walk(tokens(text), 0, None)
        else:
            parameters = state.parameters()
            state.put(PARAMETERS, elements(fields[1:]))
            state.locals = {}
            for body in list(self.functions[name]):
                self.walk(*body)
                if name in self.unsure:
                    state.forget(mark)
            state.doubt(state.locals)
            state.put(PARAMETERS, parameters)
        self.maybe -= maybe
        state.doubt(temporary)

    def source(self, words: list[Field]) -> bool:
        """Follow a file that is sourced; False where it is not read."""
        state, way = self.state, self.state.way
        scripts = way.scripts()
        if len(words) < 2 or scripts is None or words[1][0].endswith("/activate"):
            return False
        here = way.branch()
        here.directory = state.directory()
        text = scripts.text(words[1][0], here, sourced=True)
        if text is None:
            return False
        state.charge(2 * len(text))
        before = way.level, way.script, state.parameters()
        way.level, way.script = way.level + 1, words[1][0]
        if words[2:]:
            state.put(PARAMETERS, words[2:])
        self.walk(tokens(text), 0, None)
        way.level, way.script = before[:2]
        if words[2:]:
            state.put(PARAMETERS, before[2])
        return True

    def look(
        self, fields: list[Field], words: list[Field], gap: int, assignments: list[Item]
    ) -> None:
        """Look for a server in a command; `words` are `fields` without those not known."""
        state = self.state
        way = state.way.branch()
        way.gap = gap
        way.directory = state.directory()
        for item in assignments:
            mark = state.mark()
            assign(item, state, self.position)
            value = state.variables[assigned(item)]
            state.restore(mark)
            if isinstance(value, str):
                way.environ.changes[assigned(item)] = UNKNOWN if value == ABSENT else value
        server = search([text for text, _ in words], [at for _, at in words], way.branch())
        name = words[0][0].rpartition("/")[2]
        if gap >= 0 and name in PREFIXES and name not in VLLM and not (server and server.entry):
            # `ssh $HOST "vllm serve"`: what is not known may be just the operand that is wanted.
            one = elements(fields)
            way.gap = max([index for index, (text, _) in enumerate(one) if text == GAP], default=-1)
            texts = [UNKNOWN if text == GAP else text for text, _ in one]
            server = search(texts, [at for _, at in one], way) or server
        if server is not None:
            self.found.append((server, words[0][0] == "exec"))
            if len(self.found) > SERVERS:
                raise TooMuch
