"""Servers that a script starts with `docker run`: which image, what else sets variables there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eplb_launch.check import images
from eplb_launch.command.wrappers import WRAPPERS, row_of
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.vllm.releases import CAP, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eplb_launch.model import Server

ENGINES = frozenset(name for name in WRAPPERS if "image" in row_of(name))
_STARTS = ("create", "run")


class Run(Record):
    """A `docker run`, or the same of another engine."""

    engine: str
    image: str  # "" if it cannot be known
    unread: tuple[str, ...]  # files of variables
    bare: bool = False  # the image is as it was published, and no mount may bring a program

    @property
    def entry(self) -> str:
        """What the image starts by itself: "vllm serve"; "" if that is not known."""
        words = images.entry_point(self.image)
        return words[-1] if "-m" in words else " ".join(words)


def run_of(server: Server) -> Run | None:
    """Return the `docker run` that a server is started with, None if there is none."""
    for prefix in reversed(server.prefixes):
        if prefix.name in ENGINES and any(word in _STARTS for word in prefix.words[:8]):
            image = prefix.words[-1]  # the options end with it
            service = any("compose" in word for word in prefix.words[:2])  # that is no image
            known = "" if service or UNKNOWN in image else image
            bare = images.is_bare(known, _mounts(prefix.words))
            return Run(prefix.name, known, tuple(_env_files(prefix.words)), bare)
    return None


def _mounts(words: tuple[str, ...]) -> Iterator[str]:
    """Yield where something is mounted: `-v HOST:PATH`, `--mount type=bind,..,target=PATH`."""
    for index, word in enumerate(words):
        if word.startswith(("-v", "--volume", "--mount")):
            value = word.partition("=")[2] or "".join(words[index + 1 : index + 2])
            yield from re.split("[:,=]", value)


def _env_files(words: tuple[str, ...]) -> list[str]:
    found = []
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--env-file":
            file = value if equals else "".join(words[index + 1 : index + 2])
            found.append(f"{file} (--env-file)")
    return found


def fixes(run: Run, server: Server, program: str) -> tuple[tuple[str, str], ...]:
    """Return what to do, and the text for it: an option, or the launcher inside the image.

    `program` is what starts the server there, "" if that is not known.
    """
    option = (f"give {run.engine} this option, before the image", f"-e {VARIABLE}={CAP}")
    if not program:
        return (option,)
    image = run.image or "IMAGE"
    words = (word for prefix in server.prefixes for word in prefix.words)
    named = any(word.startswith("--entrypoint") for word in words)
    wrapped = f"{image} eplb-launch -- {program} …"
    if named or not server.entry:
        wrapped = f"--entrypoint eplb-launch {image} -- {program} …"
    return (option, ("or, with eplb-launch in the image, let it start the server", wrapped))
