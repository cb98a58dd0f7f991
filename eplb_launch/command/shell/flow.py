"""Follow the lists, branches and loops of a shell script, and collect the servers that it starts.

What a script surely does changes its state. What it may do (a branch, a loop, the right side of
`&&`) changes a fork of the state; where arms meet, variables have alternatives.
"""

from __future__ import annotations

from eplb_launch.command.context import PARSED
from eplb_launch.command.shell.expand import expand, without_unset
from eplb_launch.command.shell.lexer import COMMAND, TEXT, Array, Word, literal, parts
from eplb_launch.command.shell.repeats import same_choices, variables_of_test
from eplb_launch.command.shell.state import (
    ANY_WORDS,
    ENVIRON,
    EXPORT_ALL,
    FUNCTION,
    LOCAL,
    MAX_ALTERNATIVES,
    WRITTEN,
    Shell,
    State,
    TooMuch,
    merged,
)
from eplb_launch.command.shell.syntax import Node, Place, parse
from eplb_launch.entrypoints import HINTS, MARKS, NO_ENGINE, VLLM, entry_at
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from eplb_launch.command.context import Context
    from eplb_launch.command.shell.repeats import Call
    from eplb_launch.command.shell.state import Changes, Stored
    from eplb_launch.command.shell.syntax import Item
    from eplb_launch.model import Server

    Search: TypeAlias = Callable[[list[str], list[int], Context], Server | None]

MAX_SERVERS = 100  # of one script
MAX_LEVEL = 150  # of commands, functions and strings, one in another
MAX_TURNS = 64  # of nested loops that are followed turn by turn
COMMAND_COST = 96  # of following one command
_NOT_WIDENED = (LOCAL, EXPORT_ALL, WRITTEN)
# The method that follows a kind of node.
METHODS = {
    "simple": "simple",
    "list": "commands",
    "pipe": "pipe",
    "if": "if_command",
    "case": "case",
    "(": "subshell",
    "{": "body",
    "function": "function",
    "for": "for_loop",
    "while": "loop",
}


class Flow:
    """A script that is being followed. A subclass says what a simple command does."""

    def __init__(self, shell: Shell, search: Search) -> None:
        self.shell = shell
        self.search = search  # for the server in the words of a command
        self.context = shell.context
        self.source = ""  # the text that is being followed
        self.found: list[tuple[Server, bool]] = []  # each with whether `exec` starts it
        # Servers in the values of variables, each with the name: something unseen may start them.
        self.in_values: list[tuple[str, Server]] = []
        self.used: set[str] = set()  # variables that commands which we follow use
        self.noted = 0  # how often a server was noted, or something that is not in the state
        self.functions: dict[int, tuple[Node, int, str, str]] = {}  # each with its script
        self.called: set[int] = set()  # the functions that something has called
        self.calling: list[Node] = []  # the functions around the current command
        self.past_calls: dict[int, list[Call]] = {}
        self.returns: list[Changes] | None = None  # the arms that `return` ends
        self.frame: State | None = None  # the state of the innermost function
        self.sourcing = 0  # the number of sourced files around the current command
        self.succeeded = False  # the last command surely succeeded
        self.probing = False  # this pass only finds out what a loop changes
        self.turns = 1  # the product of the turns of the loops around the current command
        self.level = 0
        self.gave_up = False  # the rest of the script is too much to follow
        # Where: the position, text and file of the script, and the offset in it.
        self.reached: tuple[int, str, str, int] = (0, "", "", 0)

    def result(self, script: str) -> Server | None:
        """Return the server to report, with the others. `exec` takes precedence, then the last."""
        self.probing = False
        started = list(self.found)
        for name, server in self.in_values:
            if name not in self.used:
                self.add(server, execs=False)
        if self.gave_up:
            whole = self.shell.position, script, self.context.script, 0
            for position, source, file, offset in {self.reached, whole}:
                if has_entry_point(source[offset:]):
                    self.shell.position, self.context.script = position, file
                    self.found.append((self.unknown_server(offset, len(source)), False))
            if not self.found and any(mark in script for mark in MARKS):
                self.found.append((self.unknown_server(0, len(script)), False))
        if not self.found:
            return None
        known = [pair for pair in started if pair[0].entry] or started[-1:] or self.found[:1]
        server = ([server for server, execs in known if execs] or [known[-1][0]])[-1]
        others = [other for other, _ in self.found if other is not server]
        return server.replace(others=tuple(others))

    def unknown_server(self, start: int, end: int) -> Server:
        """Return a server of which we know only where in the text it stands."""
        found = self.context.server((), (), NO_ENGINE, "")
        return found.replace(args_known=False, place=self.shell.place(Word((), start, end)))

    def add(self, server: Server, *, execs: bool) -> None:
        """Keep a server, and its others."""
        self.noted += 1
        if self.probing:
            return
        if len(self.found) > MAX_SERVERS:
            self.gave_up = True
            return
        others = server.others
        for one in (server.replace(others=()) if others else server, *others):
            key = (*_key(one), execs)
            if all((*_key(other), e) != key for other, e in self.found[-MAX_ALTERNATIVES:]):
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
        state.charge(COMMAND_COST + 2 * self.level)
        self.level += 1
        if len(self.found) > MAX_SERVERS:
            raise TooMuch
        if not self.gave_up:
            self.reached = self.shell.position, self.source, self.context.script, node.at
        if self.level > MAX_LEVEL or node.kind == "deep":
            self.gave_up = True
            self.noted += 1
        else:
            for one in node.redirections:
                self.substitutions(one.word, state)
                if one.expands and "$(" in one.text:
                    self.in_text(one.text, one.word, state)
            getattr(self, METHODS[node.kind])(node, state)
        self.level -= 1

    def arm(self, node: Node, state: State) -> list[Changes]:
        """Follow a command in a fork. Return its changes, or nothing if the shell ends there."""
        here = state.fork()
        self.node(node, here)
        return [] if here.ended else [here.changes(state)]

    def simple(self, node: Node, state: State) -> None:
        """Follow a simple command."""
        raise NotImplementedError

    def body(self, node: Node, state: State) -> None:
        """Follow `{ ..; }`, or the body of a function."""
        for part in node.parts:
            self.node(part, state)

    def commands(self, node: Node, state: State) -> None:
        """Follow a list of commands."""
        at = 0
        while at < len(node.parts) and not state.ended:
            end = at
            while node.operators[end] in ("&&", "||") and end + 1 < len(node.parts):
                end += 1
            here = state.fork() if node.operators[end] == "&" else state
            self.node(node.parts[at], here)
            if end > at and not here.ended:
                self.chain(node, at, end, here)
            at = end + 1

    def chain(self, node: Node, at: int, end: int, state: State) -> None:
        """Follow the commands after the first one of `a && b || c`."""
        succeeded: list[Changes] = [{}]
        failed: list[Changes] = [] if self.succeeded else [{}]
        for number in range(at + 1, end + 1):
            state.charge(COMMAND_COST)
            follows_success = node.operators[number - 1] == "&&"
            arms = succeeded if follows_success else failed
            if not arms:
                continue
            here = state.fork()
            here.merge(arms)
            self.node(node.parts[number], here)
            after = [] if here.ended else [here.changes(state)]
            may_fail = [] if self.succeeded else after
            if follows_success:
                succeeded = after
                _add(failed, may_fail)
            else:
                failed = may_fail
                _add(succeeded, after)
        arms = [*succeeded]
        _add(arms, failed)
        state.merge(arms)
        self.succeeded = self.succeeded and not failed

    def pipe(self, node: Node, state: State) -> None:
        """Follow a pipeline. Its commands run in shells of their own; in some the last does not."""
        for part in node.parts:
            arms = self.arm(part, state)
            if part is node.parts[-1] and self.shell.kind in ("zsh", "ksh", "mksh"):
                state.merge(arms)
        self.succeeded = False

    def if_command(self, node: Node, state: State) -> None:
        """Follow `if`."""
        arms: list[Changes] = []
        numbers: list[int] = []  # of the parts that lead to the arms
        conditions: list[str] = []
        read: list[set[str] | None] = []
        for number, part in enumerate(node.parts):
            changes = self.arm(part, state)
            if number % 2 or number + 1 == len(node.parts):
                arms += changes
                numbers += [number] * len(changes)
                continue
            if not number and not changes:
                state.ended = True
                return
            state.merge(changes if not number else [*changes, {}])
            conditions.append(self.source[part.at : node.parts[number + 1].at])
            read.append(variables_of_test(part))
        if len(node.parts) % 2 == 0:  # there is no else
            arms.append({})
            numbers.append(len(node.parts))
        if None in read:
            conditions = []
        texts = [text.rpartition("then")[0].rstrip("; \n\t") for text in conditions]
        names = {name for names in read for name in names or ()}
        state.merge(arms, same_choices(tuple(texts), names, numbers, state))
        self.succeeded = False

    def case(self, node: Node, state: State) -> None:
        """Follow `case`."""
        for item in node.items:
            self.substitutions(item, state)
        arms: list[Changes] = [] if node.every else [{}]
        for part in node.parts:
            arms += self.arm(part, state)
        state.merge(arms)
        self.succeeded = False

    def subshell(self, node: Node, state: State) -> None:
        """Follow `(..)`, and the `$(..)` of `[[ .. ]]`."""
        for item in node.items:
            self.substitutions(item, state)
        self.body(node, state.fork())
        self.succeeded = False

    def function(self, node: Node, state: State) -> None:
        """Define a function."""
        self.functions[id(node)] = node, self.shell.position, self.source, self.context.script
        state.values[node.names[0] + FUNCTION] = node
        self.succeeded = True

    def for_loop(self, node: Node, state: State) -> None:
        """Follow `for`: turn by turn if its words are known."""
        for item in node.items:
            self.substitutions(item, state)
        fields = expand(node.items, state)
        if node.every:
            fields = list(state.parameters())
        self.used |= self.shell.read
        texts = [text for text, _ in without_unset(fields)]
        known = not any(UNKNOWN in text for text in texts)
        turns = self.turns * max(1, len(texts))
        few = len(texts) <= MAX_ALTERNATIVES and turns <= MAX_TURNS
        if not known or not few or _may_leave(node):
            self.loop(node, state)
            return
        before, self.turns = self.turns, turns
        for text in texts:
            state.put(node.names[0] or "_", text)
            for part in node.parts:
                if not state.ended:
                    self.node(part, state)
        self.turns = before
        self.succeeded = False

    def loop(self, node: Node, state: State) -> None:
        """Follow a loop with an unknown number of turns."""
        state.forget(name for name in node.names if name)
        body = node.parts[-1:] if node.kind == "for" else node.parts
        if not self.probing:
            self.probing = True
            probe = state.fork()
            for part in body:
                self.node(part, probe)
            self.probing = False
            self.widen(state, probe)
        here = state.fork()
        for part in body:
            if not here.ended:
                self.node(part, here)
        if not here.ended:
            self.widen(state, here)
        self.succeeded = False

    def widen(self, state: State, turn: State) -> None:
        """Make unknown what a turn of a loop changes."""
        changes = turn.changes(state)
        before = {name: state.stored(name) for name in changes}
        state.merge([changes, {}])
        for name, old in before.items():
            new = changes[name]
            if new == old or name.endswith(FUNCTION) or name.startswith(_NOT_WIDENED):
                continue
            state.values[name] = UNKNOWN if name.startswith(ENVIRON) else _widened(old, new)

    def substitutions(self, item: Item, state: State) -> None:
        """Follow the commands in the `$(..)` of a word."""
        words = item.words if isinstance(item, Array) else [item]
        for word in words:
            for kind, text, quoted in word:
                if kind == COMMAND:
                    self.substitution(text, word, state)
                elif kind != TEXT and ("$(" in text or "`" in text):
                    self.in_text(text, word, state, quoted=quoted)

    def in_text(self, text: str, word: Word, state: State, *, quoted: bool = True) -> None:
        """Follow the commands in the `$(..)` of a text that the shell expands."""
        for kind, command, _ in parts(text, quoted=quoted):
            if kind == COMMAND:
                self.substitution(command, word, state)

    def substitution(self, text: str, word: Word, state: State) -> None:
        """Follow the command of a `$(..)`."""
        state.charge(len(text))
        at = self.source.find(text, word.at)
        position = self.shell.place(word)
        if isinstance(position, Place) and word.at <= at < word.end:
            offset = position.offset + at - word.at
            position = Place(position, offset, offset + len(text), exact=True)
        self.text(text, state.fork(), position)


def _widened(old: Stored, new: Stored) -> Stored:
    """Return a value after any number of turns: its beginning, if a turn appends words to it."""
    if isinstance(old, list) and isinstance(new, list) and new[: len(old)] == old:
        return merged([old, new])
    if isinstance(old, list) or isinstance(new, list):
        return [(ANY_WORDS, 0)]
    if isinstance(old, str) and isinstance(new, str) and new.startswith(old + " "):
        return merged([old, new])
    return UNKNOWN


def _may_leave(node: Node) -> bool:
    """Whether a loop may end before its last turn."""
    todo = [node]
    while todo:
        at = todo.pop()
        todo += at.parts
        first = at.items[0] if at.kind == "simple" and at.items else None
        if isinstance(first, Word) and literal(first) in ("break", "continue"):
            return True
    return False


def _add(arms: list[Changes], more: list[Changes]) -> None:
    """Add arms that are not among the last ones."""
    arms += [arm for arm in more if arm not in arms[-MAX_ALTERNATIVES:]]


def _key(server: Server) -> tuple[object, ...]:
    """Return what makes a server another one: all but how it is shown."""
    offset = server.place.offset if isinstance(server.place, Place) else -1
    return server.replace(unknown=(), positions=(), others=()), offset


def has_hint(text: str) -> bool:
    """Whether a text may start a server."""
    return any(hint in text for hint in HINTS)


def has_entry_point(text: str) -> bool:
    """Whether the words of an entry point stand in a text of any language."""
    if not has_hint(text):
        return False
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    words = "\n".join(lines).translate(_TO_BLANKS).split()
    for index, word in enumerate(words):
        if word.rpartition("/")[2] in VLLM:
            found = entry_at(words, index)
        elif word == "-m" and has_hint("".join(words[index + 1 : index + 2])):
            found = entry_at(["python3", *words[index:]], 0)
        else:
            continue
        if found is not None and found != NO_ENGINE:
            return True
    return False


_TO_BLANKS = {ord(char): " " for char in "\"'\\,[]{}()=;&|"}
