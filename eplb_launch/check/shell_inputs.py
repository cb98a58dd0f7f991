"""What a shell reads or evaluates before the server: files and commands that may set variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eplb_launch.command.shell.lexer import COMMAND, split, tokens
from eplb_launch.command.wrappers import LAUNCHERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# They set paths and prompts, and nothing of NCCL or vLLM: the scripts of Python environments, of
# environment modules, and what a login shell reads in an image.
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


def unread(sourced: Sequence[str]) -> tuple[str, ...]:
    """Return those of a server's `sourced` that may set the variable, each with how it is read.

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
        for kind, text, _ in token if isinstance(token, list) else ():
            if kind == COMMAND and is_launcher(text):
                return re.split(r"\s--\s", text, maxsplit=1)[1]
    return ""


def is_launcher(text: str) -> bool:
    """Whether a command is `eplb-launch env -- CMD`, with an output for shells."""
    words = [word.rpartition("/")[2] for word in split(text)]
    before = words[: words.index("--")] if "--" in words else []
    formats = [value for value in _values(before, "--format") if value != "shell"]
    return any(word in LAUNCHERS for word in before) and "env" in before and not formats


def _values(words: Sequence[str], option: str) -> Iterator[str]:
    for index, word in enumerate(words):
        if word == option:
            yield "".join(words[index + 1 : index + 2])
        elif word.startswith(option + "="):
            yield word[len(option) + 1 :]
