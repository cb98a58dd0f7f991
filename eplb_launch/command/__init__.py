"""The vLLM server inside a command, and what happens to its environment on the way there."""

from __future__ import annotations

from eplb_launch.command.entrypoints import NOTHING, entry_at
from eplb_launch.model import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eplb_launch.files import Files


def find_server(
    command: Sequence[str], environ: Mapping[str, str], *, strings: bool = True
) -> Server | None:
    """Return the vLLM server that `command` starts, or None where there is none to be seen.

    `command` is an argument list as the kernel gets it; `environ` is its environment. Where
    nothing on the way changes the environment, the server's is the same object. Without `strings`,
    none for a shell is looked into: it takes as long as who wrote it likes, within bounds.
    """
    return look(command, environ, strings=strings)[0]


def look(
    command: Sequence[str],
    environ: Mapping[str, str],
    files: Files | None = None,
    directory: str | None = None,
    *,
    strings: bool = True,
) -> tuple[Server | None, bool, Sequence[str]]:
    """As find_server; and whether the command is vLLM's and starts no engine: `vllm bench serve`.

    Of a script, the last program that is neither built into the shell nor known to start nothing.
    Scripts are read through `files`, if there are any; those that were not are named at last.
    """
    if not command:
        return None, False, ()
    found = entry_at(command, 0)
    if found is None:
        from eplb_launch.command.find import find

        return find(command, environ, files, directory, strings=strings)
    entry, start = found
    if not start:
        return None, found == NOTHING, ()
    positions = range(start, len(command))
    return Server(entry, tuple(command[start:]), positions, environ, command[0]), False, ()
