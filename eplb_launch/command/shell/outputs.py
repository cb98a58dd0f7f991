"""The output of commands that say where a script is: `$(cd "$(dirname "$0")" && pwd)`."""

from __future__ import annotations

import os

from eplb_launch.command.shell.lexer import PARAMETER, TEXT, Redirection, tokens
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from eplb_launch.command.shell.lexer import Parts, Token
    from eplb_launch.command.shell.state import State

# dirname(1), readlink(1), realpath(1): coreutils 9.4; cd, pwd: POSIX sh(1).
_FLAGS = frozenset(("--", "-L", "-P", "-e", "-f", "-m"))


def output(text: str, state: State, value: Callable[[Parts], str]) -> str | None:
    """Return what a command prints; None where that is not known. `value` expands a word."""
    script = state.shell.way.script

    def expanded(token: Token) -> str:
        if not isinstance(token, list):
            return token if isinstance(token, str) else UNKNOWN
        # As an array it is not among the variables.
        parts: Parts = [
            (TEXT, script, True) if part[0] == PARAMETER and _is_source(part[1]) else part
            for part in token
        ]
        return value(parts)

    found = [token for token in tokens(text) if not isinstance(token, Redirection)]
    words = [word for word in map(expanded, found) if word not in _FLAGS]
    if any(UNKNOWN in word for word in words) or not state.spend(64):
        return None
    if words[0] == "dirname" and len(words) == 2:
        return os.path.dirname(words[1].rstrip("/")) or "."
    if words[2:] == (["&&", "pwd"] if words[0] == "cd" else []) and len(words) > 1:
        return _whole(words[1], state)
    return None


def _is_source(parameter: str) -> bool:
    return parameter.partition(":")[0] in ("BASH_SOURCE", "BASH_SOURCE[0]")


def _whole(path: str, state: State) -> str | None:
    """Return a path from "/" on."""
    shared = state.shell.way.shared
    files = shared.files
    if files is None:
        return None
    folder = os.path.join(shared.directory or "", state.directory() or "")
    try:
        return None if UNKNOWN in folder else files.real(os.path.join(folder, path))
    except OSError:  # the directory was deleted
        return None
