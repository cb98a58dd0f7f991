"""Scripts: the lines of servers, and what a script sources or evaluates before them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from eplb_launch.command.find import shell_string
from eplb_launch.command.shell.lexer import COMMAND, Word, literal, split, tokens
from eplb_launch.command.shell.syntax import Place, parse
from eplb_launch.command.wrappers import SHELLS
from eplb_launch.launch_options import NAMES
from eplb_launch.vllm.releases import VARIABLE

MAX_LENGTH = 256 * 1024  # a larger script is an archive
_PROGRAM = re.compile(
    r"(?<![\w.-])"
    r"(?:vllm(?:-omni)?(?=[\s\"'\\]|$)|vllm\.|dynamo\.vllm|huggingfaceserver\b(?!/))"
)
_EVALUATES = ("eval", "source", ".")
# Scripts of Python environments, of environment modules and of login shells: they set nothing of
# NCCL or vLLM.
_FILES = frozenset(
    (
        "/etc/profile",
        "activate",
        "conda.sh",
        "lmod.sh",
        "mamba.sh",
        "modules.sh",
        "nvm.sh",
        "~/.profile",
    )
)
_COMMANDS = frozenset(("brew", "conda", "dircolors", "mamba", "micromamba", "pyenv", "ssh-agent"))


def shell_index(words: Sequence[str]) -> int:
    """Return which of the words is a script for a shell; 0 if none is."""
    for index, word in enumerate(words[:64]):
        if word.rpartition("/")[2] in SHELLS:
            found, is_file = shell_string(words, index)
            if found and not is_file:
                return found
    return 0


def guess_line(script: str, number: int = 0) -> int:
    """Return the line, from 0, of a word that looks like a server: of the first, or of another."""
    found = [at for at, line in enumerate(script.split("\n")) for _ in _programs(line)]
    return [*found, *found[:1], 0][min(number, len(found))]


def number_of(script: str, place: Place) -> int:
    """Return how many words that look like a server stand before one."""
    return len(_programs(script[: _start(script, place)]))


def line_of(script: str, place: Place) -> int:
    """Return the line, from 0, of the words of a server; in a string, of what looks like it."""
    return script.count("\n", 0, _start(script, place))


def _start(script: str, place: Place) -> int:
    for match in _PROGRAM.finditer(script, place.offset, place.end):
        begin = script.rfind("\n", 0, match.start()) + 1
        if not script[begin : match.start()].lstrip().startswith("#"):
            return match.start()
    return place.offset


def _programs(text: str) -> list[str]:
    r"""Return the words that look like a server, except those in comments.

    In double quotes YAML has "\n" for the end of a line.
    """
    lines = text.replace("\\n", "\n").split("\n")
    code = [line for line in lines if not line.lstrip().startswith("#")]
    return [found for line in code for found in _PROGRAM.findall(line)]


def with_exports(script: str, value: Callable[[str, str, str], str | None]) -> str:
    """Return a script with what `eval "$(eplb-launch env -- CMD)"` would evaluate in its place.

    `value` is given the script up to there, CMD, and the script from there, and returns what the
    variable is set to: "" if it is not, None if that cannot be known.
    """
    if not any(name in script for name in NAMES):
        return script
    for start, end, launched in sorted(_evaluated(script), reverse=True):
        setting = value(script[:start], launched, script[end:])
        if setting is not None:
            done = f"export {VARIABLE}={setting}" if setting else ":"
            lines = script[start:end].count("\n")
            script = script[:start] + done + "\\\n" * lines + script[end:]
    return script


def _evaluated(script: str) -> Iterator[tuple[int, int, str]]:
    """Yield where a script evaluates what `eplb-launch env -- CMD` prints, with the CMD."""
    todo = [parse(script)]
    while todo:
        node = todo.pop()
        todo += node.parts
        first = node.items[0] if node.kind == "simple" and node.items else None
        if isinstance(first, Word) and literal(first) in _EVALUATES:
            start, end = first.at, node.items[-1].end
            command = launched(script[start:end])
            if command:
                yield start, end, command


def on_a_line(command: str) -> str:
    """Return a command with all its words on one line."""
    return " ".join(command.replace("\\\n", " ").split())


def unread(sourced: Sequence[str]) -> tuple[str, ...]:
    """Return what a server's script reads first and may set the variable.

    Of a command only the program: the rest, and what is assigned before it, may hold a secret.
    """
    found = []
    for item in sourced:
        if item.startswith("$("):
            words = [word for word in split(item[2:-1]) if "=" not in word]
            program = "".join(words[:1]).rpartition("/")[2]
            if program not in _COMMANDS:
                found.append(f"$({program} …) (evaluated by the shell)")
        elif item not in _FILES and item.rpartition("/")[2] not in _FILES:
            found.append(f"{item} (read by the shell)")
    return tuple(found)


def launched(command: str) -> str:
    """Return the CMD of a shell command that evaluates `eplb-launch env -- CMD`; "" for another."""
    for token in tokens(command):
        for kind, text, _ in token if isinstance(token, Word) else ():
            if kind == COMMAND and is_launcher(text):
                return re.split(r"\s--\s", text, maxsplit=1)[1]
    return ""


def is_launcher(text: str) -> bool:
    """Whether a command is `eplb-launch env -- CMD`, with an output for shells."""
    words = [word.rpartition("/")[2] for word in split(text)]
    before = words[: words.index("--")] if "--" in words else []
    formats = [value for value in _values(before, "--format") if value != "shell"]
    return any(word in NAMES for word in before) and "env" in before and not formats


def _values(words: Sequence[str], option: str) -> Iterator[str]:
    for index, word in enumerate(words):
        if word == option:
            yield "".join(words[index + 1 : index + 2])
        elif word.startswith(option + "="):
            yield word[len(option) + 1 :]
