"""The commands of a shell script that may start a server, found with the grammar of bash.

Where each of them stands is from tree-sitter-bash. What their words are is for our own reader of
shells, which follows variables, functions and loops: it is given the script with all the other
such commands blanked out, so that what it finds is the one that is asked about.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from eplb_launch.prefixes import READERS, SHELLS
from eplb_launch.record import Record
from eplb_launch.shell_builtins import BUILTINS, DECLARE
from eplb_launch.skip import shell_string

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_COMMANDS = 512  # of one script
MAX_LENGTH = 256 * 1024  # larger scripts are archives with a script in front

# Without the library: what has to be installed.
MISSING = "tree-sitter and tree-sitter-bash are not installed: pip install 'eplb-launch[check]'"

_HINT = re.compile(rb"vllm|dynamo|huggingfaceserver|eplb|data[-_]parallel|\s-dp\b")
_PROGRAM = re.compile(
    rb"(?<![\w.-])(?:vllm(?:-omni)?(?=[\s\"'\\]|$)|vllm\.|dynamo\.vllm|huggingfaceserver)"
)
_NEVER = READERS | set(BUILTINS) | DECLARE | {":", "[[", "exit", "return", "wait", "true", "false"}
_RUNS_INPUT = re.compile(rb"(?:^|\s)(?:\S*/)?(?:(?:ba|da|z|k)?sh|sbatch|srun|ssh)(?=\s)")


class Command(Record):
    """A command of a script."""

    start: int  # in characters
    end: int
    line: int  # from 0: where the program stands that may be a server
    text: str  # of a here-document that a shell reads; "" for an ordinary command


def shell_index(words: Sequence[str]) -> int:
    """Return which of the words is a script for a shell; 0 if none is."""
    for index, word in enumerate(words[:64]):
        if word.rpartition("/")[2] in SHELLS:
            found = shell_string(words, index)
            if found:
                return found
    return 0


def commands(script: str) -> list[Command] | None:
    """Return the commands that may start a server; None where the grammar is not installed."""
    try:
        from tree_sitter import Language, Parser
        from tree_sitter_bash import language
    except ImportError:
        return None
    source = script.encode("utf-8", "surrogatepass")
    tree = Parser(Language(language())).parse(source)
    found: list[Command] = []
    todo: list[Any] = [tree.root_node]
    while todo and len(found) < MAX_COMMANDS:
        node = todo.pop()
        kind = node.type
        if kind in ("command", "redirected_statement"):
            inner = node if kind == "command" else node.child_by_field_name("body")
            if inner is not None and inner.type == "command" and _may_start(inner, source):
                found.append(_command(inner, source, script))
                continue
            if kind == "redirected_statement":
                document = _document(node, source)
                if document is not None:
                    found.append(document)
                    continue
        if kind in ("command_substitution", "process_substitution", "heredoc_body"):
            continue  # what is run there gives words, and serves nothing
        todo += reversed(node.children)
    return found


def without(script: str, others: Sequence[Command]) -> str:
    """Return a script with some of its commands replaced by one that does nothing."""
    for command in sorted(others, key=lambda command: -command.start):
        if command.text:
            continue  # it is read by itself
        script = script[: command.start] + ":" + script[command.end :]
    return script


def guess_line(script: str) -> int:
    """Return the line, from 0, of the first word that looks like a server."""
    source = script.encode("utf-8", "surrogatepass")
    for number, line in enumerate(source.split(b"\n")):
        if not line.lstrip().startswith(b"#") and _PROGRAM.search(line):
            return number
    return 0


def _may_start(node: Any, source: bytes) -> bool:
    text = source[node.start_byte : node.end_byte]
    name = node.child_by_field_name("name")
    first = source[name.start_byte : name.end_byte] if name is not None else b""
    word = first.decode("utf-8", "replace").strip("\"'").rpartition("/")[2]
    if word in _NEVER:
        return False
    return bool(_HINT.search(text)) or b"$" in first or word == "eval"


def _command(node: Any, source: bytes, script: str) -> Command:
    start, end = _characters(node.start_byte, node.end_byte, source, script)
    text = source[node.start_byte : node.end_byte]
    match = _PROGRAM.search(text)
    line = node.start_point[0] + (text[: match.start()].count(b"\n") if match else 0)
    return Command(start, end, line, "")


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
                shown = text.decode("utf-8", "replace")
                return Command(0, 0, body.start_point[0], shown)
    return None


def _characters(start: int, end: int, source: bytes, script: str) -> tuple[int, int]:
    """Return places in a text for those in its bytes."""
    if len(source) == len(script):
        return start, end
    before = len(source[:start].decode("utf-8", "replace"))
    return before, before + len(source[start:end].decode("utf-8", "replace"))
