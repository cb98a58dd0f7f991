"""The Python environment that a runner such as `uv run` or `conda run` starts a command in.

It is not the one on our PATH. Imported only for a command with such a prefix.
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
    """Which environment a runner starts its command in; the message is the runner's name."""


def path_of(server: Server, files: Files = DISK) -> str:
    """Return the PATH on which the server's program is found; NotKnownError where it is not known.

    Where there is no runner among its prefixes, that is the PATH of its environment.
    """
    path = server.environ.get("PATH", "")
    for wrapper in reversed(server.wrappers):
        if wrapper.python == "knows":
            raise NotKnownError(wrapper.name)
        if wrapper.python == "project":
            folder = _project_environment(wrapper.words, server.environ, server.directory, files)
            return f"{folder}/bin:{path}" if folder else path
        if wrapper.python == "prefix":
            folder = _option(wrapper.words, ("-p", "--prefix"))
            if not folder:
                raise NotKnownError(wrapper.name)
            return f"{folder}/bin:{path}"
    return path


def _project_environment(
    words: tuple[str, ...], environ: Mapping[str, str], directory: str | None, files: Files
) -> str:
    """Return uv's environment of the project (docs.astral.sh/uv/concepts/projects/config)."""
    start = os.path.join(directory or "", _option(words, ("--project",)))
    for folder in _upwards(start):
        if files.is_file(f"{folder}/pyproject.toml"):
            name = environ.get("UV_PROJECT_ENVIRONMENT", ".venv")
            return os.path.join(folder, name)
    # Without a project uv takes what is active, else a .venv nearby.
    active = environ.get("VIRTUAL_ENV")
    if active and UNKNOWN not in active:
        return active
    for folder in _upwards(start):
        if files.is_file(f"{folder}/.venv/pyvenv.cfg"):
            return f"{folder}/.venv"
    return ""


def _upwards(start: str) -> Iterator[str]:
    try:
        folder = os.path.abspath(start)
    except OSError:  # the directory was deleted
        return
    while True:
        yield folder.rstrip("/")
        if folder == "/":
            return
        folder = os.path.dirname(folder)


def _option(words: tuple[str, ...], names: tuple[str, ...]) -> str:
    """Return the value of an option in the words of a prefix, or ""."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else "".join(words[index + 1 : index + 2])
    return ""
