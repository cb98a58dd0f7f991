"""Files of a review, read within bounds."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from eplb_launch import entrypoints
from eplb_launch.files import DISK, is_regular
from eplb_launch.model import Record

# The largest bundles of manifests have some 5 MB.
MAX_BYTES = 8 * 1024 * 1024
# `kubectl get` prints this much for a large cluster, as JSON.
MAX_INPUT = 128 * 1024 * 1024
MAX_TEXT = 1024 * 1024  # of a script, a unit, a Dockerfile

YAML = "YAML"
HINTS = (*entrypoints.HINTS, "eplb")  # a file without one of these starts no vLLM

# Each file has a budget: this much for each of its characters, and for 1 MB at least. Characters of
# the files that it names, commands and words are charged to it.
BUDGET = 8
COMMAND_COST = 8_000
WORD_COST = 80

OUTSIDE = "is outside of the checked paths and not read: name it too, or use --follow"
TOO_MUCH = "it takes more work than any real file: the rest is not read"


class Reach:
    """The files that a review may read, and how much work is left for each.

    A review may read the files and folders that it was given, and the folders of these files. A
    link, a ".." or an absolute name must not lead out of them: the author of a checked file could
    choose what else is read here, and shown.
    """

    def __init__(self, paths: Sequence[str] = (), *, follow: bool = False) -> None:
        """Take the given paths. `follow`: the review may read whatever its files name."""
        self.follow = follow
        self.places: set[str] = set()  # files and folders, without links
        self.known: dict[tuple[str, str], Source] = {}
        self.left: dict[str, int] = {}
        self.said: dict[tuple[str, str], None] = {}  # (file, message)
        for path in paths:
            if path != "-":
                self.places.add(os.path.realpath(path))
                if not os.path.isdir(path):
                    self.places.add(os.path.realpath(os.path.dirname(path)))

    def allows(self, path: str) -> bool:
        """Whether the file that a path leads to may be read."""
        at = os.path.realpath(path)
        while not self.follow and at not in self.places:
            if at == os.path.dirname(at):
                return False
            at = os.path.dirname(at)
        return True


class Source(Record):
    """A file and its text."""

    path: str  # as given, or found below a given folder; "<stdin>"
    kind: str = ""  # the `form` of a kind; "" if the name does not tell it
    text: str = ""
    problem: str = ""  # why it could not be read
    named: bool = False  # it was given itself, not found below a folder
    reach: Reach = Reach()

    @property
    def directory(self) -> str:
        return os.path.dirname(self.path)

    @property
    def budget(self) -> int:
        """The work that may be done for it in all."""
        return BUDGET * max(len(self.text), MAX_TEXT)

    def spend(self, work: int) -> bool:
        """Take from the budget. Return False, and report it, where the budget is spent."""
        left = self.reach.left
        left[self.path] = left.get(self.path, self.budget) - work
        if left[self.path] < 0:
            self.say(TOO_MUCH)
        return left[self.path] >= 0

    def say(self, message: str) -> None:
        """Report once that a part of this file is not read."""
        self.reach.said[self.path, message] = None

    def near(self, path: str, kind: str, *, guessed: bool = False) -> Source | None:
        """Return a file that this one names; None if it cannot be read.

        `guessed`: the path is only tried, and no one needs to know that it may not be read.
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
    """Return a file; None if it was `seen` before, under any name.

    A file that cannot be read has a `problem`. `only_hinted`: a file that is too large only has one
    if it mentions vLLM.
    """
    try:
        status = DISK.stat(path)  # before it is opened: to open a device has effects
        if not is_regular(status.st_mode):
            return Source(path, kind, problem="not a regular file")
        if seen is not None:
            if (status.st_dev, status.st_ino) in seen:
                return None
            seen.add((status.st_dev, status.st_ino))
        most = MAX_BYTES if kind in (YAML, "") else MAX_TEXT
        if status.st_size > most:
            begin = DISK.read(path, MAX_INPUT) if only_hinted else b""
            told = not only_hinted or any(hint.encode() in begin for hint in HINTS)
            return Source(path, kind, problem=_too_large(most) if told else "")
        content = DISK.read(path, most + 1)
        return _source(path, kind, content, most).replace(reach=reach)
    except OSError as error:
        return Source(path, kind, problem=str(error.strerror))


def standard_input(reach: Reach) -> Source:
    path = "<stdin>"
    if sys.stdin is None:
        return Source(path, YAML, problem="stdin is closed")
    try:
        content = sys.stdin.buffer.read(MAX_INPUT + 1)
    except OSError as error:
        return Source(path, YAML, problem=str(error.strerror))
    most = MAX_INPUT if content.startswith(b"{") else MAX_BYTES
    return _source(path, "", content, most).replace(reach=reach)


def _source(path: str, kind: str, content: bytes, most: int) -> Source:
    if len(content) > most:
        return Source(path, kind, problem=_too_large(most))
    if b"\0" in content:
        return Source(path, kind, problem="binary, not text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Source(path, kind, problem="not text in UTF-8")
    return Source(path, kind, text.replace("\r\n", "\n"))


def _too_large(most: int) -> str:
    return f"larger than {most >> 20} MB: not read"
