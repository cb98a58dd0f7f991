"""What a review says: servers with their assessment and fixes, and what was not read."""

from __future__ import annotations

from collections.abc import Iterator

from eplb_launch.assessment import CAPPED, EXPOSED, NOT_NEEDED, UNKNOWN, Assessment
from eplb_launch.launch import LAUNCHER_FAILED
from eplb_launch.model import Record

# The words of `check` for the states of an Assessment, the worst first.
OK = "ok"
WORDS = {EXPOSED: "exposed", UNKNOWN: "unknown", CAPPED: OK, NOT_NEEDED: OK}
OK_STATES = (CAPPED, NOT_NEEDED)
VERDICTS = tuple(dict.fromkeys(WORDS.values()))

_ALONE = "try the command that starts the server: eplb-launch explain -- CMD"
# What settles an unknown verdict, by its cause.
_SETTLES = {
    "release-not-known": "say which release it is with --vllm-version X.Y.Z",
    "config-not-read": "check that file together with this one",
    "settings-not-known": "write these settings where the server is started",
    "value-not-known": "write its value where the server is started",
    "limit-not-known": "check that file together with this one, or write its value here",
    "environment-not-read": "check what it is read from together with this file",
    "script-not-read": "check the script together with this file",
    "script-too-large": _ALONE,
    "too-many-commands": _ALONE,
    "not-a-script": _ALONE,
}


class Fix(Record):
    how: str  # what to do with the text
    text: str


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
    lines: tuple[int, int] = (0, 0)  # the first and the last line of its words, if they are a list
    asks_for_eplb: bool = True  # it has a word of EPLB, or of a low-latency backend

    @property
    def not_asked_for(self) -> bool:
        """Whether it is unknown, and only what it reads at run time could ask for EPLB."""
        return self.assessment.state == UNKNOWN and not self.asks_for_eplb

    @property
    def verdict(self) -> str:
        """The assessment in the words of `check`."""
        return WORDS[self.assessment.state]

    @property
    def covered_lines(self) -> tuple[int, ...]:
        """The lines that belong to it."""
        first, last = self.lines
        return (self.line, *range(first, last + 1))

    @property
    def rank(self) -> int:
        """The place of the verdict: a lower one is worse."""
        return VERDICTS.index(self.verdict)

    @property
    def missing(self) -> tuple[str, ...]:
        """What could not be read, and what would settle it, as lines; none if all could."""
        found = self.assessment
        unread = (f"could not be read: {', '.join(found.unread)}",) if found.unread else ()
        settles = _SETTLES.get(found.cause) if found.state == UNKNOWN else None
        return (*unread, *((f"to settle it: {settles}",) if settles else ()))


class Trouble(Record):
    """A file, or a part of one, that could not be read."""

    file: str
    line: int  # 0: no particular one
    message: str


class Mention(Record):
    """A line with an entry point that starts no server."""

    file: str
    line: int
    why: str


class Issue(Record):
    """What a scanner is told: a server that is not ok, or a warning of one."""

    finding: Finding
    rule: str  # EXPOSED, UNKNOWN or "warning"
    title: str
    message: str
    severe: bool = False


class Review(Record):
    """All that was found."""

    findings: tuple[Finding, ...]
    troubles: tuple[Trouble, ...]
    files: int  # how many were read
    idle: tuple[str, ...] = ()  # files that were named, and start nothing that check reads
    mentions: tuple[Mention, ...] = ()
    strict: bool = False  # unknown counts as exposed, and no server is `apart`

    @property
    def shown(self) -> tuple[Finding, ...]:
        """The servers that are findings."""
        return tuple(one for one in self.findings if self.strict or not one.not_asked_for)

    @property
    def not_asked_for(self) -> tuple[Finding, ...]:
        """The servers that are no findings."""
        return tuple(one for one in self.findings if one.not_asked_for and not self.strict)

    @property
    def counts(self) -> dict[str, int]:
        """How many servers have which verdict."""
        verdicts = [finding.verdict for finding in self.shown]
        return {verdict: verdicts.count(verdict) for verdict in VERDICTS}

    @property
    def issues(self) -> Iterator[Issue]:
        """What a scanner is told, in the order of the servers."""
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
        """The exit status: 1 where something is exposed, 125 where a file was not read."""
        bad = (EXPOSED, UNKNOWN) if self.strict else (EXPOSED,)
        if any(finding.assessment.state in bad for finding in self.findings):
            return 1
        return LAUNCHER_FAILED if self.troubles else 0
