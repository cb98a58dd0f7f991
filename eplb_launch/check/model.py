"""The results of a review: servers with their assessments and fixes, and what was not read."""

from __future__ import annotations

from collections.abc import Iterator

from eplb_launch.assessment import CAPPED, EXPOSED, NOT_NEEDED, UNKNOWN, Assessment
from eplb_launch.launch import LAUNCHER_FAILED
from eplb_launch.model import Record

# The verdict of `check` for each state of an Assessment, the worst first.
OK = "ok"
WORDS = {EXPOSED: "exposed", UNKNOWN: "unknown", CAPPED: OK, NOT_NEEDED: OK}
OK_STATES = (CAPPED, NOT_NEEDED)
VERDICTS = tuple(dict.fromkeys(WORDS.values()))

_ALONE = "try the command that starts the server: eplb-launch explain -- CMD"
# How to settle an unknown verdict, by its cause.
_SETTLES = {
    "release-not-known": "give its release with --vllm-version X.Y.Z",
    "config-not-read": "check that file together with this one",
    "settings-not-known": (
        "write these settings where the server is started, "
        "or check the file that sets them together with this file"
    ),
    "value-not-known": "write its value where the server is started",
    "limit-not-known": "check that file together with this one, or write its value here",
    "environment-not-read": "check the file that sets it together with this file",
    "script-not-read": "check the script together with this file",
    "script-too-large": _ALONE,
    "too-many-commands": _ALONE,
    "not-a-script": _ALONE,
    "not-a-command": _ALONE,
    "no-reader": _ALONE,
}


class Fix(Record):
    how: str  # what to do with the text
    text: str  # to paste


class Finding(Record):
    file: str
    line: int
    name: str  # "Deployment/decode container vllm"; "" for a script
    assessment: Assessment
    entry: str = ""  # "vllm serve"; "" if it is not found by name
    version: str | None = None  # of vLLM
    version_source: str = ""
    notes: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()
    lines: tuple[int, int] = (0, 0)  # the first and the last line of its words
    asks_for_eplb: bool = True  # its file names EPLB or a low-latency backend

    @property
    def not_asked_for(self) -> bool:
        """Whether it is unknown, but only what it reads at run time could turn EPLB on."""
        return self.assessment.state == UNKNOWN and not self.asks_for_eplb

    @property
    def verdict(self) -> str:
        """The state of the assessment as `check` names it."""
        return WORDS[self.assessment.state]

    @property
    def covered_lines(self) -> tuple[int, ...]:
        """The lines of its file that belong to it."""
        first, last = self.lines
        return (self.line, *range(first, last + 1))

    @property
    def rank(self) -> int:
        """The rank of the verdict. A lower one is worse."""
        return VERDICTS.index(self.verdict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Lines that say what could not be read, and how to settle the verdict."""
        found = self.assessment
        unread = (f"could not be read: {', '.join(found.unread)}",) if found.unread else ()
        settles = _SETTLES.get(found.cause) if found.state == UNKNOWN else None
        return (*unread, *((f"to settle it: {settles}",) if settles else ()))


class Trouble(Record):
    """A file, or a part of one, that could not be read."""

    file: str
    line: int  # 0: the whole file
    message: str


class Mention(Record):
    """A line with an entry point that starts no server."""

    file: str
    line: int
    why: str


class Issue(Record):
    """A server that is not ok, or a warning about a server, for a code scanner."""

    finding: Finding
    rule: str  # EXPOSED, UNKNOWN or "warning"
    title: str
    message: str
    severe: bool = False


class Review(Record):
    """All results of `check`."""

    findings: tuple[Finding, ...]
    troubles: tuple[Trouble, ...]
    files: int  # the number of files that were read
    idle: tuple[str, ...] = ()  # files that were named, but start nothing that check reads
    mentions: tuple[Mention, ...] = ()
    strict: bool = False  # an unknown server counts as exposed, whether it asks for EPLB or not

    @property
    def shown(self) -> tuple[Finding, ...]:
        """The servers that count, each in a line of the report."""
        return tuple(one for one in self.findings if self.strict or not one.not_asked_for)

    @property
    def not_asked_for(self) -> tuple[Finding, ...]:
        """The servers that do not count, because they do not ask for EPLB."""
        return tuple(one for one in self.findings if one.not_asked_for and not self.strict)

    @property
    def counts(self) -> dict[str, int]:
        """The number of servers with each verdict."""
        verdicts = [finding.verdict for finding in self.shown]
        return {verdict: verdicts.count(verdict) for verdict in VERDICTS}

    @property
    def issues(self) -> Iterator[Issue]:
        """The results for a code scanner, in the order of the servers."""
        for one in self.shown:
            found = one.assessment
            if found.state not in OK_STATES:
                severe = found.state == EXPOSED or self.strict
                title = f"{one.verdict}: {one.name or one.entry or 'vLLM'}"
                fixes = [f"{fix.how}:\n{fix.text}" for fix in one.fixes]
                message = "\n".join([found.reason, *one.missing, *fixes])
                yield Issue(one, found.state, title, message, severe)
            for warning in found.warnings:
                message = f"{warning.message}; {warning.remedy}"
                yield Issue(one, "warning", warning.code, message)

    @property
    def status(self) -> int:
        """The exit status: 1 if a server is exposed, else 125 if a file was not read, else 0."""
        bad = (EXPOSED, UNKNOWN) if self.strict else (EXPOSED,)
        if any(finding.assessment.state in bad for finding in self.findings):
            return 1
        return LAUNCHER_FAILED if self.troubles else 0
