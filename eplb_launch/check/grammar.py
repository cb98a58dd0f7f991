"""The commands of a shell script that may start a server, found with tree-sitter-bash.

This is read in a process of its own, see `worker`: the grammar is C, and some texts crash it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from eplb_launch.check import shell_inputs as sourced
from eplb_launch.command.shell.builtins import BUILTINS, DECLARE
from eplb_launch.command.wrappers import LAUNCHERS, READERS
from eplb_launch.model import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_COMMANDS = 512  # of one script
PROGRAM = re.compile(
    rb"(?<![\w.-])(?:vllm(?:-omni)?(?=[\s\"'\\]|$)|vllm\.|dynamo\.vllm|huggingfaceserver)"
)
SERVES = re.compile(
    rb"(?<![\w.-])(?:vllm(?:-omni)?[\"']?\s+serve\s|-m\s+(?:vllm\.|dynamo\.vllm|huggingfaceserver))"
)
_HINT = re.compile(rb"vllm|dynamo|huggingfaceserver|eplb|data[-_]parallel|\s-dp\b")
_NEVER = READERS | set(BUILTINS) | DECLARE | {":", "[[", "exit", "return", "wait", "true", "false"}
_RUNS_INPUT = re.compile(rb"(?:^|\s)(?:\S*/)?(?:(?:ba|da|z|k)?sh|sbatch|srun|ssh)(?=\s)")
_OUTPUT = re.compile(rb"eval\s+\"?(?:\$\(|`)")  # sets variables, and starts nothing
_EVALUATES = ("eval", "source", ".")


class Command(Record):
    """A command of a script."""

    start: int  # in characters
    end: int
    line: int  # from 0: where the program stands that may be a server
    text: str  # of a here-document that a shell reads, of `$(..)`; "" for an ordinary command


class Evaluated(Record):
    """A command that evaluates what `eplb-launch env -- CMD` prints."""

    start: int  # in characters
    end: int
    launched: str  # the CMD


class Script(Record):
    """What a script holds."""

    commands: tuple[Command, ...] = ()
    evaluated: tuple[Evaluated, ...] = ()
    broken: bool = False  # some of it is no shell, as far as the grammar goes


def read(script: str) -> Script:
    """Return the commands of a script that may start a server, and what it evaluates."""
    from tree_sitter import Language, Parser
    from tree_sitter_bash import language

    source = script.encode("utf-8", "surrogatepass")
    root = Parser(Language(language())).parse(source).root_node
    commands = []
    for command in _commands(root, source):
        start, end = _characters(command.start, command.end, source, script)
        commands.append(command.replace(start=start, end=end))
        if len(commands) >= MAX_COMMANDS:
            break
    evaluated = []
    if any(name.encode() in source for name in LAUNCHERS):
        for item in _evaluated(root, source):
            start, end = _characters(item.start, item.end, source, script)
            evaluated.append(item.replace(start=start, end=end))
    return Script(tuple(commands), tuple(evaluated), root.has_error)


def _commands(root: Any, source: bytes) -> Iterator[Command]:
    """Yield the commands that may start a server, with places in bytes."""
    todo: list[Any] = [root]
    while todo:
        node = todo.pop()
        kind = node.type
        if kind in ("command", "redirected_statement"):
            inner = node if kind == "command" else node.child_by_field_name("body")
            if inner is not None and inner.type == "command" and _may_start(inner, source):
                yield _command(inner, source)
                continue
            document = _document(node, source) if kind == "redirected_statement" else None
            if document is not None:
                yield document
                continue
        if kind in ("command_substitution", "process_substitution"):
            text = source[node.start_byte : node.end_byte].strip(b"$(<)`")
            if SERVES.search(text) and not sourced.is_launcher(_text(text)):
                yield Command(0, 0, node.start_point[0], _text(text))
        elif kind != "heredoc_body":
            todo += reversed(node.children)


def _evaluated(root: Any, source: bytes) -> Iterator[Evaluated]:
    """Yield the commands that evaluate an output of the launcher, with places in bytes."""
    todo: list[Any] = [root]
    while todo:
        node = todo.pop()
        if node.type == "command" and _name(node, source) in _EVALUATES:
            launched = sourced.launched(_text(source[node.start_byte : node.end_byte]))
            if launched:
                yield Evaluated(node.start_byte, node.end_byte, launched)
        todo += reversed(node.children)


def _name(node: Any, source: bytes) -> str:
    name = node.child_by_field_name("name")
    return "" if name is None else _text(source[name.start_byte : name.end_byte])


def _may_start(node: Any, source: bytes) -> bool:
    text = source[node.start_byte : node.end_byte]
    name = _name(node, source)
    word = name.strip("\"'").rpartition("/")[2]
    if word in _NEVER or _OUTPUT.match(text):
        return False
    return bool(_HINT.search(text)) or "$" in name or word == "eval"


def _command(node: Any, source: bytes) -> Command:
    text = source[node.start_byte : node.end_byte]
    match = PROGRAM.search(text)
    line = node.start_point[0] + (text[: match.start()].count(b"\n") if match else 0)
    return Command(node.start_byte, node.end_byte, line, "")


def _document(node: Any, source: bytes) -> Command | None:
    """Return a here-document that is given to a shell."""
    for child in node.children:
        if child.type != "heredoc_redirect":
            continue
        body = next((part for part in child.children if part.type == "heredoc_body"), None)
        head = source[node.start_byte : child.start_byte]
        if body is not None and _RUNS_INPUT.search(head):
            text = source[body.start_byte : body.end_byte]
            if _HINT.search(text):
                return Command(0, 0, body.start_point[0], _text(text))
    return None


def _text(source: bytes) -> str:
    return source.decode("utf-8", "replace")


def _characters(start: int, end: int, source: bytes, script: str) -> tuple[int, int]:
    """Return places in a text for those in its bytes."""
    if len(source) == len(script):
        return start, end
    before = len(_text(source[:start]))
    return before, before + len(_text(source[start:end]))
