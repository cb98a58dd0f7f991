"""From a task to the servers that it starts, each with its verdict. The Plan decides."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence

from eplb_launch.assessment import EXPOSED, UNKNOWN, Assessment
from eplb_launch.check import docker_run as engines
from eplb_launch.check import images, scripts
from eplb_launch.check.files import with_config_files, with_script
from eplb_launch.check.fixes import ways
from eplb_launch.check.kubernetes.pods import from_secrets_only
from eplb_launch.check.model import OK, OK_STATES, Finding
from eplb_launch.check.plan_cache import Decisions
from eplb_launch.check.presence import missing
from eplb_launch.check.tasks import Task, Word, environment
from eplb_launch.check.templating import placeholders
from eplb_launch.check.verdict import assessed, launcher_options, public
from eplb_launch.command.shell.state import Place
from eplb_launch.model import Server
from eplb_launch.plans import Plan
from eplb_launch.vllm.releases import CAP, VARIABLE

# Of EPLB itself, of what hangs with it, and of what turns it on.
_WORDS = ("eplb", "low_latency", "elastic_ep", "mega_moe")


def judge(task: Task, vllm_version: str | None, decisions: Decisions) -> list[Finding]:
    """Return the servers that a task starts, in the order of its lines, each with its verdict."""
    found = _judged(task, vllm_version, decisions)
    if task.otherwise is None or all(finding.verdict != OK for finding in found):
        return found
    possible = {(f.file, f.line): f for f in _judged(task.otherwise, vllm_version, decisions)}
    return [_if_changed(finding, possible.get((finding.file, finding.line))) for finding in found]


def _if_changed(finding: Finding, other: Finding | None) -> Finding:
    """Return a finding, or that it is not known where another value makes it another one."""
    if finding.verdict != OK or other is None or other.verdict == OK:
        return finding
    return other.replace(assessment=other.assessment.replace(state=UNKNOWN))


def _judged(task: Task, vllm_version: str | None, decisions: Decisions) -> list[Finding]:
    task = with_script(with_config_files(task))
    decisions.enter(task)
    worst: dict[tuple[str, int], Finding] = {}
    for finding in _Judge(task, vllm_version, decisions).findings():
        key = finding.file, finding.line
        if key not in worst or finding.rank < worst[key].rank:
            worst[key] = finding
    asks = _asks(task)
    found = sorted(worst.values(), key=lambda finding: finding.line)
    return [finding.replace(asks=asks) for finding in found]


def _asks(task: Task) -> bool:
    """Whether a word of EPLB stands anywhere in what belongs to a task, as far as it is here."""
    about = task.about or (task.source.text if task.unreadable else "")
    texts = [about, *(word.text for word in task.words)]
    texts += (text for item in task.environ.items() for text in item)
    texts += (file.text for file in task.files.values())
    return any(map(_asks_for_it, texts))


@functools.lru_cache(maxsize=32)  # many containers mount one large file
def _asks_for_it(text: str) -> bool:
    low = text.lower().replace("-", "_").replace(" ", "_")  # a pattern takes 20 times as long
    return any(word in low for word in _WORDS)


class _Judge:
    """A task that is being judged."""

    def __init__(self, task: Task, vllm_version: str | None, decisions: Decisions) -> None:
        self.task = task
        self.given = vllm_version is not None
        self.version = vllm_version or task.version[0]
        self.decisions = decisions

    def findings(self) -> Iterator[Finding]:
        """Yield the findings, a line may have several."""
        if self.task.guess:
            found = [one for one in self.read() if one.assessment.state == EXPOSED]
            guess = Assessment(UNKNOWN, "no-reader", self.task.guess)
            yield from found or [self.finding(self.task.source.path, self.task.line, guess)]
        else:
            yield from self.read()

    def read(self) -> Iterator[Finding]:
        """As findings, as far as the words go."""
        words = [word.text for word in self.task.words]
        if self.task.unreadable:
            found = Assessment(UNKNOWN, "not-a-command", self.task.unreadable)
            yield self.finding(self.task.source.path, self.task.line, found)
            return
        at = scripts.shell_index(words)
        if at and len(words[at]) > scripts.MAX_LENGTH:
            word = self.task.words[at]
            line = _line(word, scripts.guess_line(words[at]))
            found = Assessment(UNKNOWN, "script-too-large", "the script is too large to be read")
            yield self.finding(word.source.path, line, found)
            return
        if at:
            words[at] = scripts.with_exports(words[at], self.launched_in(words, at))
        elif self.task.place.templated:
            words = [placeholders(word) for word in words]
        yield from self.command(words, at)

    def launched_in(self, words: Sequence[str], at: int) -> Callable[[str, str], str | None]:
        """Return the `value` for `scripts.with_exports`; the script is `words[at]`."""

        def value(before: str, command: str) -> str | None:
            changed = [*words[:at], f"{before}\n{command}", *words[at + 1 :]]
            environ = environment(self.task.environ, unread=bool(self.task.unread))
            servers = self.decisions.servers(changed, environ, self.task.directory)
            if not servers:
                return None
            decided = self.plan(servers[0], changed)
            if decided is None or (decided.verdict is not None and decided.verdict.holds is None):
                return None
            return decided.environment.get(VARIABLE, "")

        return value

    def command(self, words: Sequence[str], at: int) -> Iterator[Finding]:
        """Yield the findings of a command; `words[at]` is a script, if `at` is not 0."""
        task = self.task
        environ = environment(task.environ, unread=self.hides(task.unread))
        servers = self.decisions.servers(words, environ, task.directory)
        if servers is None:
            found = Assessment(UNKNOWN, "failed", "eplb-launch failed to make sense of it")
            yield self.finding(task.source.path, task.line, found)
            return
        name = "" if servers else _script_name(task, words)
        if name:
            reason = f"it starts {name}, which is not among the files that are checked"
            found = Assessment(UNKNOWN, "script-not-read", reason)
            yield self.finding(task.source.path, task.line, found)
        for server in servers:
            if not server.entry and images.is_other(task.image):
                continue
            path, line = self.place(server, words, at)
            finding = self.of_server(server, words, path, line)
            # Options without a program are half a command, of which nothing follows.
            named = finding.entry or engines.run_of(server)
            if named or finding.verdict != OK or not task.place.fragments:
                yield finding

    def hides(self, unread: Sequence[str]) -> bool:
        """Whether what could not be read may set more: nobody keeps settings in a Secret."""
        return bool(unread) and not from_secrets_only(tuple(unread))

    def place(self, server: Server, words: Sequence[str], at: int) -> tuple[str, int]:
        """Return the file and the line of a server."""
        place = server.place
        path = os.path.normpath(os.path.join(self.task.directory, server.script))
        file = self.task.files.get(path) if server.script else None
        if file is not None and isinstance(place, Place):
            return file.source.path, file.line + scripts.line_of(file.text, place)
        if not at or server.script:
            return self.task.source.path, self.task.line
        word = self.task.words[server.place if server.place < len(words) else at]
        if not isinstance(server.place, Place):
            return word.source.path, _line(word, 0)
        return word.source.path, _line(word, scripts.line_of(words[server.place], server.place))

    def of_server(self, server: Server, words: Sequence[str], path: str, line: int) -> Finding:
        """Return the finding of a server.

        What only the server tells is its image, what sets variables on the way to it, and the
        options of the launcher.
        """
        run = engines.run_of(server)
        version = None if run is None or self.version else images.version(run.image)[0]
        told = launcher_options(server.prefixes) or {}
        if self.version is None and version is None:
            version = told.get("vllm_version")
        cap = told.get("max_ctas")
        cap = cap if isinstance(cap, int) else CAP  # `fit` is found out where it starts
        if scripts.unread(server.sourced) or (run is not None and run.unread):
            server = server.replace(environ=environment(server.environ, unread=True))
        decided = self.plan(server, words, version, cap)
        if decided is None:
            found = Assessment(UNKNOWN, "failed", "eplb-launch failed to make sense of it")
            return self.finding(path, line, found)
        return self.of_plan(decided, server, path, line)

    def is_idle(self, decided: Plan, server: Server) -> bool:
        """Whether the launcher is told of a release for which it sets nothing."""
        told = (launcher_options(server.prefixes) or {}).get("vllm_version")
        if told is None or told == decided.vllm_version:
            return False
        there = self.plan(server, decided.command, told)
        return there is not None and not there.variables

    def plan(
        self, server: Server, words: Sequence[str], version: str | None = None, cap: int = CAP
    ) -> Plan | None:
        """Return the Plan; None for a bug of ours."""
        task = self.task
        environ = environment(task.environ, unread=self.hides(task.unread))
        return self.decisions.plan(
            server, words, environ, task.directory, version or self.version, cap
        )

    def of_plan(self, decided: Plan, server: Server, path: str, line: int) -> Finding:
        """Return the finding that a Plan makes."""
        task = self.task
        run = engines.run_of(server)
        unread = (*task.unread, *scripts.unread(server.sourced), *(run.unread if run else ()))
        idle = self.is_idle(decided, server)
        files = self.decisions.files
        found = assessed(task.replace(unread=unread), decided, server, files=files, idle=idle)
        found = public(found, decided.settings)
        if found.state == UNKNOWN:
            found = found.replace(unread=(*found.unread, *server.unknown, *unread))
        by_image = images.version(run.image) if run and not task.version[0] else task.version
        notes = task.notes
        if task.takes_away and found.state not in OK_STATES:
            notes = (*notes, f"{task.takes_away} takes {VARIABLE} away: setting it has no effect")
        notes = (*notes, *(f"{note.message}; {note.remedy}" for note in decided.unfit))
        absent = missing(task, server)
        if absent is not None:
            found = found.replace(warnings=(*found.warnings, absent))
        return self.finding(path, line, found).replace(
            notes=notes,
            entry=server.entry or (run.entry if run else ""),
            version=decided.vllm_version,
            version_source="given" if self.given else by_image[1],
            fixes=ways(task, server, decided, found),
        )

    def finding(self, path: str, line: int, found: Assessment) -> Finding:
        """Return a finding in the name of the task."""
        listed = [w.line for w in self.task.words if w.line and w.source.path == path]
        if scripts.shell_index([word.text for word in self.task.words]) or not listed:
            listed = [line]
        lines = min(listed), max(listed)
        return Finding(path, line, self.task.name, found, notes=self.task.notes, lines=lines)


def _line(word: Word, offset: int) -> int:
    """Return the line of the file for a line of a word's text, counted from 0."""
    if word.block:
        return word.line + offset
    if offset == 0 and word.end <= word.line:
        return word.line
    lines = word.source.text.split("\n")[word.line - 1 : word.end]
    return word.line + scripts.guess_line("\n".join(lines))


def _script_name(task: Task, words: Sequence[str]) -> str:
    """Return the script that an image with vLLM starts and that is not here; "" if it does not."""
    if not images.is_vllm(task.image):
        return ""
    return next((word for word in words[:2] if word.endswith(".sh") and " " not in word), "")
