"""What a review says: of a server a verdict with its reason, and how to put it right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eplb_launch.exec import LAUNCHER_FAILED
from eplb_launch.model import Record

if TYPE_CHECKING:
    from eplb_launch.plans import PlanWarning

OK, EXPOSED, NOT_KNOWN = "ok", "exposed", "unknown"
_ORDER = (EXPOSED, NOT_KNOWN, OK)


class Answer(Record):
    """A verdict and its reason."""

    verdict: str
    cause: str  # stable, for programs
    reason: str
    unread: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """What could not be read, as a line; none if all could."""
        return (f"could not be read: {', '.join(self.unread)}",) if self.unread else ()


class Fix(Record):
    """One way to put a server right."""

    how: str  # what to do with the text
    text: str


class Finding(Record):
    """A server and the verdict on it."""

    file: str
    line: int
    name: str  # "Deployment/decode container vllm"; "" for a script
    answer: Answer
    entry: str = ""  # "vllm serve"; "" if it is not found by name
    version: str | None = None  # of vLLM
    version_source: str = ""
    warnings: tuple[PlanWarning, ...] = ()
    notes: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()

    @property
    def verdict(self) -> str:
        """OK, EXPOSED or NOT_KNOWN."""
        return self.answer.verdict

    @property
    def rank(self) -> int:
        """Lower is worse."""
        return _ORDER.index(self.verdict)


class Trouble(Record):
    """A file, or a part of one, that could not be read."""

    file: str
    line: int  # 0: no particular one
    message: str


class Review(Record):
    """All that was found."""

    findings: tuple[Finding, ...]
    troubles: tuple[Trouble, ...]
    files: int  # how many were read
    idle: tuple[str, ...] = ()  # files that were asked for, with nothing in them that is known here

    def status(self, *, strict: bool = False) -> int:
        """Return the exit status: 1 where something is exposed, 125 where a file was not read."""
        if any(f.verdict == EXPOSED or (strict and f.verdict == NOT_KNOWN) for f in self.findings):
            return 1
        return LAUNCHER_FAILED if self.troubles else 0
