"""The Python environment in which `uv run`, `conda run` and the like start a command.

It is not the environment on PATH. This is imported only for a command with such a runner.
"""

from __future__ import annotations

import os

from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.installed import Installed, look_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.files import Files
    from eplb_launch.model import Server


def look_up_behind_runner(server: Server, files: Files) -> Installed:
    """Do as `installed.look_up`, for a server behind a runner. The innermost runner decides."""
    environ = server.environ
    runner = next(wrapper for wrapper in reversed(server.wrappers) if wrapper.python)
    if runner.python == "project":
        folder = _project_environment(runner.words, environ, server.directory, files)
    else:
        folder = _option(runner.words, "-p", "--prefix") if runner.python == "prefix" else ""
        if not folder:
            return Installed(None, f"the environment of {runner.name} is not known", None)
    if folder:
        environ = {**environ, "PATH": f"{folder}/bin:{environ.get('PATH', '')}"}
    return look_up(server.program, environ, server.directory, files)


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
