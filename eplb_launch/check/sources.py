"""From paths to texts, within bounds."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from eplb_launch import entrypoints as command
from eplb_launch.files import DISK, is_regular
from eplb_launch.model import Record

# The largest bundles of manifests have some 5 MB.
MAX_BYTES = 8 * 1024 * 1024
# What kubectl prints of a large cluster: of a List in JSON, items are read one by one.
MAX_INPUT = 128 * 1024 * 1024
MAX_TEXT = 1024 * 1024  # of a script, a unit, a Dockerfile

YAML = "YAML"

# A file without one of these starts no vLLM.
HINTS = (*command.HINTS, "eplb")


# The budget of a file, for each of its characters: it is spent on the characters of the files that
# it names, on commands and on their words. A file counts as 1 MB at least.
BUDGET = 8
COMMAND_COST = 8_000
WORD_COST = 80

OUTSIDE = "is outside of what is checked, and not read: name it as well, or give --follow"
TOO_MUCH = "more work in it than in any real one: not read on from here"


class Reach:
    """The files that a review may read, and how much is done for each.

    Those are the ones that were given, what is below the folders that were given, and what is
    beside the files. A link, a ".." or an absolute name that leads elsewhere leads nowhere: who
    wrote the files that are checked shall not choose what else is read here, and shown.
    """

    def __init__(self, paths: Sequence[str] = (), *, follow: bool = False) -> None:
        """Take the paths that were given; `follow`: whatever their files name may be read."""
        self.follow = follow
        self.places: set[str] = set()  # without links: files, and folders with all below them
        self.known: dict[tuple[str, str], Source] = {}
        self.left: dict[str, int] = {}
        self.said: dict[tuple[str, str], None] = {}  # files, and what of them is not read
        for path in paths:
            if path != "-":
                self.places.add(os.path.realpath(path))
                if not os.path.isdir(path):
                    self.places.add(os.path.realpath(os.path.dirname(path)))

    def allows(self, path: str) -> bool:
        """Whether what a path leads to may be read."""
        at = os.path.realpath(path)
        while not self.follow and at not in self.places:
            if at == os.path.dirname(at):
                return False
            at = os.path.dirname(at)
        return True


class Source(Record):
    path: str  # as given, or found below a folder that was given; "<stdin>"
    kind: str = ""  # the `form` of a kind; "" if its name does not say it
    text: str = ""
    problem: str = ""  # why it could not be read
    named: bool = False  # it was asked for itself, not found below a folder
    reach: Reach = Reach()

    @property
    def directory(self) -> str:
        return os.path.dirname(self.path)

    @property
    def budget(self) -> int:
        """How much may be done for it in all."""
        return BUDGET * max(len(self.text), MAX_TEXT)

    def spend(self, work: int) -> bool:
        """Spend so much of the budget; return False, and report it, if the budget is spent."""
        left = self.reach.left
        left[self.path] = left.get(self.path, self.budget) - work
        if left[self.path] < 0:
            self.say(TOO_MUCH)
        return left[self.path] >= 0

    def say(self, message: str) -> None:
        """Have it said once that something of this file is not read."""
        self.reach.said[self.path, message] = None

    def near(self, path: str, kind: str, *, guessed: bool = False) -> Source | None:
        """Return a file that this one names; None if there is none, or if it cannot be read.

        Where it is `guessed`, nobody has named it, and one that may not be read is none.
        """
        reach = self.reach
        if "\0" in path:
            return None
        if not reach.allows(path):
            if not guessed:
                self.say(f"{path} {OUTSIDE}")
            return None
        if (path, kind) not in reach.known:
            there = os.path.isfile(path) and read(path, kind, reach=reach)
            reach.known[path, kind] = there or Source(path, kind, problem="not a file")
        found = reach.known[path, kind]
        return None if found.problem or not self.spend(len(found.text)) else found


def head(path: str) -> str:
    """Return the beginning of a file; "" if it cannot be read."""
    try:
        return os.fsdecode(DISK.read(path, 256))
    except OSError:
        return ""


def read(
    path: str,
    kind: str,
    seen: set[tuple[int, int]] | None = None,
    *,
    reach: Reach,
    only_hinted: bool = False,
) -> Source | None:
    """Return a file; None if it was `seen` before, by this or by another name.

    One that cannot be read is returned with its `problem`; `only_hinted`: that it is too large is
    one only where it mentions vLLM.
    """
    try:
        # It is looked at before it is opened: opening a device has effects.
        if not is_regular(DISK.stat(path).st_mode):
            return Source(path, kind, problem="not a regular file")
        # Not blocking: a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            found = os.fstat(descriptor)
            if seen is not None:
                if (found.st_dev, found.st_ino) in seen:
                    return None
                seen.add((found.st_dev, found.st_ino))
            return _source(path, kind, file, only_hinted=only_hinted).replace(reach=reach)
    except OSError as error:
        return Source(path, kind, problem=f"unreadable: {error.strerror}")


def standard_input(reach: Reach) -> Source:
    path = "<stdin>"
    if sys.stdin is None:
        return Source(path, YAML, problem="unreadable: it is closed")
    try:
        found = _source(path, "", sys.stdin.buffer, most=MAX_INPUT)
        return found.replace(reach=reach)
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
