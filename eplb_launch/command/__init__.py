"""The vLLM server inside a command, and what happens to its environment on the way there."""

from __future__ import annotations

from eplb_launch.entrypoints import find_by_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eplb_launch.entrypoints import Look
    from eplb_launch.files import Files
    from eplb_launch.model import Server


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
    done: list[int] | None = None,
) -> Look:
    """Return the server that `command` starts, and what else is known: see `Look`.

    Of a script, the last program that is neither built into the shell nor known to start nothing.
    Scripts are read through `files`, if there are any. `done` is given how much work it was.
    """
    found = find_by_name(command, environ)
    if found is None:
        from eplb_launch.command.find import find

        found = find(command, environ, files, directory, strings=strings, done=done)
    return found
