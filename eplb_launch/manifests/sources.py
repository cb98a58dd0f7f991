"""From the paths of a command line to texts, within bounds. Links to folders are not followed."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from eplb_launch import command
from eplb_launch.prefixes import SHELLS
from eplb_launch.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The largest bundles of manifests have some 5 MB.
MAX_BYTES = 8 * 1024 * 1024
MAX_TEXT = 1024 * 1024  # of a script, a unit, a Dockerfile
MAX_FILES = 100_000

YAML, SCRIPT, UNIT, DOCKERFILE = "YAML", "script", "unit", "Dockerfile"

# Words without which a file starts no vLLM.
HINTS = (*command.HINTS, "eplb")
_SKIPPED = frozenset(
    (".git", ".hg", ".svn", ".venv", "venv", ".tox", "node_modules", "__pycache__")
)
_SUFFIXES = {
    **dict.fromkeys((".yaml", ".yml", ".json"), YAML),
    **dict.fromkeys((".sh", ".bash", ".ksh", ".zsh", ".sbatch", ".slurm", ".sub"), SCRIPT),
    ".service": UNIT,
    **dict.fromkeys((".dockerfile", ".containerfile"), DOCKERFILE),
}


class Source(Record):
    """A file."""

    path: str  # as given, or found below a folder that was given; "<stdin>"
    kind: str = ""
    text: str = ""
    problem: str = ""  # why it could not be read
    named: bool = False  # it was asked for itself, not found below a folder

    @property
    def directory(self) -> str:
        """Where it is."""
        return os.path.dirname(self.path)


def gather(paths: Sequence[str]) -> Iterator[Source]:
    """Yield the files that `paths` name, those below folders by their names' kind."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if path == "-":
            yield _standard_input()
        elif os.path.isdir(path):
            yield from _below(path, seen)
        else:
            source = read(path, kind_of(path), seen)
            if source is not None:
                yield source.replace(named=True)


def kind_of(path: str) -> str:
    """Return the kind of a file by its name; "" if that does not say it."""
    name = os.path.basename(path)
    low = name.lower()
    if low.startswith(("dockerfile", "containerfile")):
        return DOCKERFILE
    folder = os.path.basename(os.path.dirname(path))
    if low.endswith(".conf") and (folder.endswith(".service.d") or folder == "service.d"):
        return UNIT
    return _SUFFIXES.get(os.path.splitext(low)[1], "")


def _below(folder: str, seen: set[tuple[int, int]]) -> Iterator[Source]:
    failed: list[OSError] = []
    count = 0
    # os.walk does not follow links to folders, so there are no loops.
    for parent, folders, files in os.walk(folder, onerror=failed.append):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(files):
            path = os.path.join(parent, name)
            kind = kind_of(path)
            if not kind and ("." in name or not _has_shebang(path)):
                continue
            source = read(path, kind or SCRIPT, seen, only_hinted=True)
            if source is not None:
                yield source
            count += 1
            if count >= MAX_FILES:
                yield Source(
                    folder, problem=f"more than {MAX_FILES:,} files in it: the rest is not read"
                )
                return
    for error in failed:
        yield Source(str(error.filename), problem=f"unreadable: {error.strerror}")


def _has_shebang(path: str) -> bool:
    head = _head(path)
    words = head.split(b"\n", 1)[0][2:].split() if head.startswith(b"#!") else []
    return any(os.fsdecode(word).rpartition("/")[2] in SHELLS for word in words)


def _head(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return os.read(descriptor, 256)
    except OSError:
        return b""
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


def _standard_input() -> Source:
    path = "<stdin>"
    if sys.stdin is None:
        return Source(path, YAML, problem="unreadable: it is closed")
    try:
        return _source(path, "", sys.stdin.buffer).replace(named=True)
    except OSError as error:
        return Source(path, YAML, problem=f"unreadable: {error.strerror}")


def _source(path: str, kind: str, file: object, *, only_hinted: bool = False) -> Source:
    content = b""
    while len(content) <= MAX_BYTES:
        piece = file.read(MAX_BYTES + 1 - len(content))  # type: ignore[attr-defined]
        if not piece:
            break
        content += piece
    most = MAX_BYTES if kind in (YAML, "") else MAX_TEXT
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
    return Source(path, kind or _sniff(content), text.replace("\r\n", "\n"))


def _hinted(content: bytes, file: object) -> bool:
    """Whether a file that is too large mentions vLLM at all. Reads it in pieces."""
    while content:
        if any(hint.encode() in content for hint in HINTS):
            return True
        piece = file.read(1 << 20)  # type: ignore[attr-defined]
        content = content[-32:] + piece if piece else b""
    return False


def _sniff(content: bytes) -> str:
    """Return the kind of a text by what is in it."""
    if content.startswith(b"#!"):
        return SCRIPT if b"sh" in content.split(b"\n", 1)[0] else ""
    lines = [line.strip() for line in content.split(b"\n")]
    lines = [line for line in lines if line and not line.startswith((b"#", b";"))]
    first = lines[0] if lines else b""
    if first in (b"[Unit]", b"[Service]", b"[Install]"):
        return UNIT
    if first.split(b" ")[0].upper() in (b"FROM", b"ARG") and b":" not in first.split(b" ")[0]:
        return DOCKERFILE
    if any(line.startswith(b"#SBATCH") for line in content.split(b"\n", 20)):
        return SCRIPT
    return YAML
