"""Scripts: where the servers are, and what a script sources or evaluates before them."""

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
# Python environments, environment modules and login shells: they set nothing of NCCL or vLLM.
_HARMLESS_FILES = (
    *("/etc/profile", "activate", "conda.sh", "lmod.sh", "mamba.sh", "modules.sh", "nvm.sh"),
    "~/.profile",
)
_HARMLESS_COMMANDS = ("brew", "conda", "dircolors", "mamba", "micromamba", "pyenv", "ssh-agent")


def shell_index(words: Sequence[str]) -> int:
    """Return the index of the word that is a script for a shell; 0 if there is none."""
    for index, word in enumerate(words[:64]):
        if word.rpartition("/")[2] in SHELLS:
            found, is_file = shell_string(words, index)
            if found and not is_file:
                return found
    return 0


def guess_line(script: str, number: int = 0) -> int:
    """Return the line, from 0, of the word with this number that looks like a server."""
    found = [at for at, line in enumerate(script.split("\n")) for _ in _programs(line)]
    return found[number] if number < len(found) else (*found, 0)[0]


def number_of(script: str, place: Place) -> int:
    """Return the number of words before a server that look like a server too."""
    return len(_programs(script[: _start(script, place)]))


def line_of(script: str, place: Place) -> int:
    """Return the line, from 0, of a server: of its program, or of the string that holds it."""
    return script.count("\n", 0, _start(script, place))


def _start(script: str, place: Place) -> int:
    for match in _PROGRAM.finditer(script, place.offset, place.end):
        begin = script.rfind("\n", 0, match.start()) + 1
        if not script[begin : match.start()].lstrip().startswith("#"):
            return match.start()
    return place.offset


def _programs(text: str) -> list[str]:
    r"""Return the words outside comments that look like a server. YAML may have `\n` in a line."""
    lines = text.replace("\\n", "\n").split("\n")
    code = [line for line in lines if not line.lstrip().startswith("#")]
    return [found for line in code for found in _PROGRAM.findall(line)]


def with_exports(script: str, value: Callable[[str, str, str], str | None]) -> str:
    """Return a script that has `eval "$(eplb-launch env -- CMD)"` replaced by its effect.

    `value` takes the script before that, CMD, and the script after it. It returns the value that
    the variable gets: "" if it is not set, None if that is not known.
    """
    for start, end, command in sorted(_evaluated(script), reverse=True):
        setting = value(script[:start], command, script[end:])
        if setting is not None:
            done = f"export {VARIABLE}={setting}" if setting else ":"
            lines = script[start:end].count("\n")
            script = script[:start] + done + "\\\n" * lines + script[end:]
    return script


def _evaluated(script: str) -> Iterator[tuple[int, int, str]]:
    """Yield the start and the end of each `eval "$(eplb-launch env -- CMD)"`, and its CMD."""
    todo = [parse(script)] if any(name in script for name in NAMES) else []
    while todo:
        node = todo.pop()
        todo += node.parts
        first = node.items[0] if node.kind == "simple" and node.items else None
        if isinstance(first, Word) and literal(first) in _EVALUATES:
            start, end = first.at, node.items[-1].end
            command = _launched(script[start:end])
            if command:
                yield start, end, command


def _launched(command: str) -> str:
    """Return the CMD of an `eplb-launch env -- CMD` in a shell command; "" if there is none."""
    words = (token for token in tokens(command) if isinstance(token, Word))
    for text in (text for word in words for kind, text, _ in word if kind == COMMAND):
        options, *launched = re.split(r"\s--\s", text, maxsplit=1)
        before = [word.rpartition("/")[2] for word in split(options)]
        # Another --format than the default is not for shells.
        output = " ".join(before).replace("=", " ").replace("--format shell", "")
        is_launcher = "env" in before and any(name in before for name in NAMES)
        if launched and is_launcher and "--format" not in output:
            return launched[0]
    return ""


def on_a_line(command: str) -> str:
    """Return a command with all its words on one line."""
    return " ".join(command.replace("\\\n", " ").split())


def unread(sourced: Sequence[str]) -> tuple[str, ...]:
    """Return what a server's script reads before it, if that may set the variable.

    Of a command, only the program is shown: an argument or an assignment may hold a secret.
    """
    found = []
    for item in sourced:
        if item.startswith("$("):
            words = [word for word in split(item[2:-1]) if "=" not in word]
            program = "".join(words[:1]).rpartition("/")[2]
            if program not in _HARMLESS_COMMANDS:
                found.append(f"$({program} …) (evaluated by the shell)")
        elif item not in _HARMLESS_FILES and item.rpartition("/")[2] not in _HARMLESS_FILES:
            found.append(f"{item} (read by the shell)")
    return tuple(found)
