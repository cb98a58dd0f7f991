"""From paths to texts, within bounds."""

from __future__ import annotations

import os
import stat
import sys

from eplb_launch.command import entrypoints as command
from eplb_launch.model import Record

# The largest bundles of manifests have some 5 MB.
MAX_BYTES = 8 * 1024 * 1024
# What kubectl prints of a large cluster: of a List in JSON, items are read one by one.
MAX_INPUT = 128 * 1024 * 1024
MAX_TEXT = 1024 * 1024  # of a script, a unit, a Dockerfile

YAML = "YAML"

# Words without which a file starts no vLLM.
HINTS = (*command.HINTS, "eplb")


class Source(Record):
    path: str  # as given, or found below a folder that was given; "<stdin>"
    kind: str = ""  # the `form` of a kind; "" if its name does not say it
    text: str = ""
    problem: str = ""  # why it could not be read
    named: bool = False  # it was asked for itself, not found below a folder

    @property
    def directory(self) -> str:
        return os.path.dirname(self.path)


def head(path: str) -> str:
    """Return the beginning of a file; "" if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.fsdecode(os.read(descriptor, 256))
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def read(
    path: str, kind: str, seen: set[tuple[int, int]] | None = None, *, only_hinted: bool = False
) -> Source | None:
    """Return a file; None if it was `seen` before, by this or by another name.

    One that cannot be read is returned with its `problem`; `only_hinted`: that it is too large is
    one only where it mentions vLLM.
    """
    try:
        # Not blocking: to open a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Source(path, kind, problem=f"unreadable: {error.strerror}")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return Source(path, kind, problem="not a regular file")
            if seen is not None:
                if (found.st_dev, found.st_ino) in seen:
                    return None
                seen.add((found.st_dev, found.st_ino))
            return _source(path, kind, file, only_hinted=only_hinted)
        except OSError as error:
            return Source(path, kind, problem=f"unreadable: {error.strerror}")


def standard_input() -> Source:
    path = "<stdin>"
    if sys.stdin is None:
        return Source(path, YAML, problem="unreadable: it is closed")
    try:
        return _source(path, "", sys.stdin.buffer, most=MAX_INPUT)
    except OSError as error:
        return Source(path, YAML, problem=f"unreadable: {error.strerror}")


def _source(
    path: str, kind: str, file: object, *, only_hinted: bool = False, most: int = MAX_BYTES
) -> Source:
    pieces = bytearray()
    while len(pieces) <= most:
        piece = file.read(most + 1 - len(pieces))  # type: ignore[attr-defined]
        if not piece:
            break
        pieces += piece
    content = bytes(pieces)
    if kind not in (YAML, ""):
        most = MAX_TEXT
    elif not content.startswith(b"{"):
        most = MAX_BYTES
    if len(content) > most:
        told = not only_hinted or _hinted(content, file)
        problem = f"larger than {most >> 20} MB: not read" if told else ""
        return Source(path, kind, problem=problem)
    if b"\0" in content:
        return Source(path, kind, problem="binary, not text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Source(path, kind, problem="not text in UTF-8")
    return Source(path, kind, text.replace("\r\n", "\n"))


def _hinted(content: bytes, file: object) -> bool:
    """Whether a file that is too large mentions vLLM at all. Reads it in pieces."""
    while content:
        if any(hint.encode() in content for hint in HINTS):
            return True
        piece = file.read(1 << 20)  # type: ignore[attr-defined]
        content = content[-32:] + piece if piece else b""
    return False
