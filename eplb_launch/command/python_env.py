"""The Python environment in which `uv run`, `conda run` and the like start a command.

It is not the environment on PATH. This is imported only for a command with wrappers.
"""

from __future__ import annotations

import os

from eplb_launch.files import DISK
from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.files import Files
    from eplb_launch.model import Server


class NotKnownError(LookupError):
    """The environment of a runner is not known. The message is the runner's name."""


def path_of(server: Server, files: Files = DISK) -> str:
    """Return the PATH on which the server's program is found. Raises NotKnownError.

    The innermost runner among the wrappers decides. Without one it is the PATH of the server.
    """
    path = server.environ.get("PATH", "")
    runner = next((wrapper for wrapper in reversed(server.wrappers) if wrapper.python), None)
    if runner is None:
        return path
    if runner.python == "project":
        folder = _project_environment(runner.words, server.environ, server.directory, files)
        return f"{folder}/bin:{path}" if folder else path
    folder = _option(runner.words, "-p", "--prefix") if runner.python == "prefix" else ""
    if not folder:
        raise NotKnownError(runner.name)
    return f"{folder}/bin:{path}"


def _project_environment(
    words: tuple[str, ...], environ: Mapping[str, str], directory: str | None, files: Files
) -> str:
    """Return the environment of uv's project (docs.astral.sh/uv/concepts/projects/config)."""
    start = os.path.join(directory or "", _option(words, "--project"))
    for folder in _upwards(start):
        if files.is_file(f"{folder}/pyproject.toml"):
            name = environ.get("UV_PROJECT_ENVIRONMENT", ".venv")
            return os.path.join(folder, name)
    # Without a project uv takes the active environment, else a .venv in a folder above.
    active = environ.get("VIRTUAL_ENV")
    if active and UNKNOWN not in active:
        return active
    for folder in _upwards(start):
        if files.is_file(f"{folder}/.venv/pyvenv.cfg"):
            return f"{folder}/.venv"
    return ""


def _upwards(start: str) -> Iterator[str]:
    """Yield a folder and the folders above it."""
    try:
        folder = os.path.abspath(start)
    except OSError:  # the directory was deleted
        return
    while True:
        yield folder.rstrip("/")
        if folder == "/":
            return
        folder = os.path.dirname(folder)


def _option(words: tuple[str, ...], *names: str) -> str:
    """Return the value of an option in the words of a wrapper, or ""."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else "".join(words[index + 1 : index + 2])
    return ""
