"""From a task to the servers that it starts, each with its verdict. The Plan decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eplb_launch.assessment import EXPOSED, UNKNOWN, Assessment
from eplb_launch.check import docker_run as engines
from eplb_launch.check import images, scripts
from eplb_launch.check import shell_inputs as sourced
from eplb_launch.check.files import with_config_files, with_script
from eplb_launch.check.fixes import ways
from eplb_launch.check.kubernetes.pods import from_secrets_only
from eplb_launch.check.model import OK, OK_STATES, Finding
from eplb_launch.check.presence import missing
from eplb_launch.check.tasks import environment
from eplb_launch.check.templating import placeholders
from eplb_launch.check.verdict import assessed, launcher_options
from eplb_launch.command.entrypoints import VLLM
from eplb_launch.vllm.releases import CAP, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from eplb_launch.check.grammar import Command
    from eplb_launch.check.plan_cache import Decisions
    from eplb_launch.check.tasks import Task, Word
    from eplb_launch.model import Server
    from eplb_launch.plans import Plan

_MAX_COMMANDS = 64  # of one script
_MAX_READ = 500_000  # characters, in all readings of one script
_MAX_OTHERS = 8  # further servers of one command: calls of a function


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
    return sorted(worst.values(), key=lambda finding: finding.line)


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
        if at:
            yield from self.script(words, at)
        else:
            if self.task.place.templated:
                words = [placeholders(word) for word in words]
            yield from self.command(words, self.task.source.path, self.task.line)

    def script(self, words: list[str], at: int) -> Iterator[Finding]:
        """Yield the findings of a command with a script, which is `words[at]`."""
        path = self.task.words[at].source.path
        guessed = _line(self.task.words[at], scripts.guess_line(words[at]))
        if len(words[at]) > scripts.MAX_LENGTH:
            answered = Assessment(UNKNOWN, "script-too-large", "the script is too large to be read")
            yield self.finding(path, guessed, answered)
            return
        script = self.decisions.read(words[at])
        if script is not None and script.evaluated:
            words[at] = scripts.with_exports(words[at], script, self.launched_in(words, at))
            script = self.decisions.read(words[at])
        found = list(self.commands(words, at, script.commands if script is not None else ()))
        if script is None:
            note = scripts.MISSING
            self.task = self.task.replace(notes=(*self.task.notes, note))
        if not found:
            found = list(self.command(words, path, guessed))
        broken = script is not None and script.broken
        if not found and broken and scripts.seems_to_serve(words[at]):
            reason = "bash's grammar cannot read the script to its end"
            found = [self.finding(path, guessed, Assessment(UNKNOWN, "not-a-script", reason))]
        yield from found

    def commands(self, words: list[str], at: int, commands: Sequence[Command]) -> Iterator[Finding]:
        """Yield the findings of single commands of a script, which is `words[at]`."""
        word = self.task.words[at]
        # Each is one more reading of the script.
        most = min(_MAX_COMMANDS, max(4, _MAX_READ // (len(words[at]) + 1)))
        for command in commands[:most]:
            if command.text:
                changed = ["bash", "-c", command.text]
            else:
                others = [other for other in commands if other is not command]
                changed = [*words[:at], scripts.without(words[at], others), *words[at + 1 :]]
            yield from self.command(changed, word.source.path, _line(word, command.line))
        if len(commands) > most:
            reason = f"more than {most} commands that may be a server: from here they are not read"
            answered = Assessment(UNKNOWN, "too-many-commands", reason)
            yield self.finding(word.source.path, _line(word, commands[most].line), answered)

    def launched_in(self, words: Sequence[str], at: int) -> Callable[[str, str], str | None]:
        """Return the `value` for `scripts.with_exports`; the script is `words[at]`."""

        def value(before: str, command: str) -> str | None:
            changed = [*words[:at], f"{before}\n{command}", *words[at + 1 :]]
            environ = environment(self.task.environ, unread=bool(self.task.unread))
            decided = self.plan(changed, environ, self.task.directory)
            if decided is None or decided.server is None or decided.server.others:
                return None
            if decided.verdict is not None and decided.verdict.holds is None:
                return None
            return decided.environment.get(VARIABLE, "")

        return value

    def command(self, words: Sequence[str], path: str, line: int) -> Iterator[Finding]:
        """Yield the finding of one command, none if it starts no server."""
        task = self.task
        # Nobody keeps settings of vLLM in a Secret.
        unread = bool(task.unread) and not from_secrets_only(task.unread)
        environ = environment(task.environ, unread=unread)
        decided = self.plan(words, environ, task.directory)
        if decided is not None and decided.server is not None:
            decided = self.plan_again(words, decided, decided.server, unread=unread)
        if decided is None:
            found = Assessment(UNKNOWN, "failed", "eplb-launch failed to make sense of it")
            yield self.finding(path, line, found)
        elif decided.server is None:
            name = _script_name(task, words)
            if name:
                reason = f"it starts {name}, which is not among the files that are checked"
                yield self.finding(path, line, Assessment(UNKNOWN, "script-not-read", reason))
        elif decided.server.entry or not images.is_other(task.image):
            found_all = self.servers(decided, decided.server, path, line)
            worst = min(found_all, key=lambda finding: finding.rank)
            # Options without a program are half a command, of which nothing follows.
            named = worst.entry or engines.run_of(decided.server)
            if named or worst.verdict != OK or not task.place.fragments:
                yield worst

    def plan_again(
        self, words: Sequence[str], decided: Plan, server: Server, *, unread: bool
    ) -> Plan | None:
        """Return the Plan with what only the server found tells.

        That is its image, what sets variables on the way, and the options of the launcher.
        """
        task = self.task
        run = engines.run_of(server)
        version = None if run is None or self.version else images.version(run.image)[0]
        told = launcher_options(server.prefixes) or {}
        if self.version is None and version is None:
            version = told.get("vllm_version")
        cap = told.get("max_ctas")
        cap = cap if isinstance(cap, int) else CAP  # `fit` is found out where it starts
        more = bool(sourced.unread(server.sourced) or (run is not None and run.unread))
        if version is None and not more and cap == CAP:
            return decided
        environ = environment(task.environ, unread=unread or more)
        return self.plan(words, environ, task.directory, version, cap)

    def is_idle(self, decided: Plan, server: Server) -> bool:
        """Whether the launcher is told of a release for which it sets nothing."""
        told = (launcher_options(server.prefixes) or {}).get("vllm_version")
        if told is None or told == decided.vllm_version:
            return False
        directory = server.directory or self.task.directory
        there = self.plan(_command_of(server), server.environ, directory, told)
        return there is not None and not there.variables

    def servers(self, decided: Plan, server: Server, path: str, line: int) -> Iterator[Finding]:
        """Yield the findings of all servers that one command starts."""
        yield self.of_plan(decided, server, path, line)
        for other in server.others[:_MAX_OTHERS]:
            words = _command_of(other)
            one = self.plan(words, other.environ, other.directory or self.task.directory)
            if one is not None and one.server is not None:
                yield self.of_plan(one, other, path, line)

    def plan(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        directory: str,
        version: str | None = None,
        cap: int = CAP,
    ) -> Plan | None:
        """Return the Plan; None for a bug of ours."""
        return self.decisions.plan(words, environ, directory, version or self.version, cap)

    def of_plan(self, decided: Plan, server: Server, path: str, line: int) -> Finding:
        """Return the finding that a Plan makes."""
        task = self.task
        run = engines.run_of(server)
        unread = (*task.unread, *sourced.unread(server.sourced), *(run.unread if run else ()))
        idle = self.is_idle(decided, server)
        files = self.decisions.files
        found = assessed(task.replace(unread=unread), decided, server, files=files, idle=idle)
        if found.state == UNKNOWN:
            found = found.replace(unread=(*found.unread, *unread))
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


def _command_of(server: Server) -> list[str]:
    """Return a command that starts a server, without what stands before it."""
    entry = server.entry.split()
    program = entry if entry and entry[0] in VLLM else ["python3", "-m", *entry]
    return [*program, *(argument.text for argument in server.arguments)]


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
