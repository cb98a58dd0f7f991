"""Shell scripts as a review needs them: one command at a time.

Where each command stands is from the grammar of bash. What its words are is for our own reader of
shells, which follows variables, functions and loops: it is given the script with all the other
such commands blanked out, so that what it finds is the one that is asked about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eplb_launch.check import worker
from eplb_launch.check.grammar import PROGRAM, SERVES
from eplb_launch.command.find import shell_string
from eplb_launch.command.wrappers import SHELLS
from eplb_launch.vllm.releases import CAP, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eplb_launch.check.grammar import Command, Script

MAX_LENGTH = 256 * 1024  # larger scripts are archives with a script in front

# Without the library: what has to be installed.
MISSING = "tree-sitter and tree-sitter-bash are not installed: pip install 'eplb-launch[check]'"


def shell_index(words: Sequence[str]) -> int:
    """Return which of the words is a script for a shell; 0 if none is."""
    for index, word in enumerate(words[:64]):
        if word.rpartition("/")[2] in SHELLS:
            found, is_file = shell_string(words, index)
            if found and not is_file:
                return found
    return 0


def read(script: str) -> Script | None:
    """Return the commands that may start a server; None where the grammar is not installed."""
    return worker.read(script) if worker.installed() else None


def seems_to_serve(script: str) -> bool:
    """Whether a line looks like the start of a server."""
    source = script.encode("utf-8", "surrogatepass")
    lines = (line for line in source.split(b"\n") if not line.lstrip().startswith(b"#"))
    return SERVES.search(b"\n".join(lines)) is not None


def with_exports(script: str, found: Script, value: Callable[[str, str], str | None]) -> str:
    """Return a script with what `eval "$(eplb-launch env -- CMD)"` would evaluate in its place.

    `value` is given the script up to there and CMD, and returns what the variable is set to: "" if
    it is not, None if that cannot be known. That leaves the command as it is, unless the very same
    CMD follows: then it is set where it has to be.
    """
    for item in reversed(found.evaluated):
        setting = value(script[: item.start], item.launched)
        if setting is None and _line(item.launched) in _line(script[item.end :]):
            setting = str(CAP)
        if setting is not None:
            done = f"export {VARIABLE}={setting}" if setting else ":"
            lines = script[item.start : item.end].count("\n")
            script = script[: item.start] + done + "\\\n" * lines + script[item.end :]
    return script


def _line(command: str) -> str:
    """Return a command with all its words on one line."""
    return " ".join(command.replace("\\\n", " ").split())


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
        if not line.lstrip().startswith(b"#") and PROGRAM.search(line):
            return number
    return 0
