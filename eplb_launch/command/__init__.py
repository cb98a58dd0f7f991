"""The vLLM server inside a command, and what the programs before it do to its environment."""

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
    """Return the vLLM server that `command` starts, or None if none is seen.

    `command` is an argument list, and `environ` is its environment. If nothing changes the
    environment, the server has the same object. Without `strings`, shell strings are not followed:
    following them can take as long as their author likes, within limits.
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

    Scripts are read through `files`, if there are any. `done` gets the work that this took.
    """
    found = find_by_name(command, environ)
    if found is None:
        from eplb_launch.command.context import Shared
        from eplb_launch.command.find import find

        shared = Shared(files, directory, strings=strings)
        found = find(command, environ, shared)
        if done is not None:
            done.append(shared.work)
    return found
