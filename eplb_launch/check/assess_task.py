"""The servers that a task starts, each with its assessment. The Plan decides. Pure."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from eplb_launch.assessment import EXPOSED, UNKNOWN, Assessment, Seen, assess
from eplb_launch.check import images, launcher, scripts
from eplb_launch.check.fixes import fixes_of
from eplb_launch.check.kind import ENTRY_POINT
from eplb_launch.check.model import OK, OK_STATES, Finding
from eplb_launch.check.plan_cache import Plans
from eplb_launch.check.sources import YAML
from eplb_launch.check.tasks import Environment, File, Task, Word, may_set_cap, words_at
from eplb_launch.check.templating import placeholders
from eplb_launch.command.context import PARSED
from eplb_launch.command.shell.syntax import Place
from eplb_launch.command.wrappers import SHELLS
from eplb_launch.model import UNKNOWN as UNREADABLE
from eplb_launch.model import Server, cut
from eplb_launch.plans import Plan
from eplb_launch.vllm.releases import CAP, VARIABLE
from eplb_launch.vllm.settings import Setting

# Words of EPLB, of the low-latency backends, and of what turns EPLB on. Mega MoE is not among them:
# its rule needs EPLB too.
_WORDS = ("eplb", "low_latency", "elastic_ep")
# The EPLB of a plugin, such as vLLM Ascend, is a different one: it does not use NCCL.
_PLUGIN = re.compile(
    r"--additional-config(?:=|\s+)(?:'[^']*'|\"[^\"]*\"|\{[^\n]*\}$|\S+)|dynamic_eplb",
    re.IGNORECASE | re.MULTILINE,
)
# vLLM's own values, which are no secrets: vllm/config/parallel.py and kernel.py of 0.12 to 0.33.
_OWN_VALUES = """
    allgather_reducescatter deepep_high_throughput deepep_low_latency deepep_v2 flashinfer_all2allv
    flashinfer_nvlink_one_sided flashinfer_nvlink_two_sided mori mori_high_throughput
    mori_low_latency naive nixl_ep passthrough pplx pynccl torch_nccl torch_gloo nixl
    auto triton deep_gemm deep_gemm_mega_moe cutlass marlin aiter
"""
_PUBLIC = frozenset(_OWN_VALUES.split())
_CONFIG = re.compile(r"--config[\s\\]+([\w./-]+\.[\w-]+)")
_MAX_FILES = 100
_FAILED = "eplb-launch failed to read the command, a bug of its own"
_MAX_NAMED = 3  # unknown variables in one sentence


def assess_task(task: Task, vllm_version: str | None, plans: Plans) -> list[Finding]:
    """Return the servers that a task starts, in the order of its lines."""
    found = _findings(task, vllm_version, plans)
    if task.without_defaults is None or all(finding.verdict != OK for finding in found):
        return found
    others = {(f.file, f.line): f for f in _findings(task.without_defaults, vllm_version, plans)}
    return [_worse(finding, others.get((finding.file, finding.line))) for finding in found]


def _worse(finding: Finding, other: Finding | None) -> Finding:
    """Return a finding; unknown if `other`, which is without the defaults, is not ok."""
    if finding.verdict != OK or other is None or other.verdict == OK:
        return finding
    return other.replace(assessment=other.assessment.replace(state=UNKNOWN))


def _findings(task: Task, vllm_version: str | None, plans: Plans) -> list[Finding]:
    task = with_script(_with_config_files(task))
    plans.enter(task)
    worst: dict[tuple[str, int], Finding] = {}
    for finding in _Servers(task, vllm_version, plans).findings():
        key = finding.file, finding.line
        if key not in worst or finding.rank < worst[key].rank:
            worst[key] = finding
    asks = _asks(task)
    found = sorted(worst.values(), key=lambda finding: finding.line)
    return [finding.replace(asks_for_eplb=asks) for finding in found]


def _asks(task: Task) -> bool:
    """Whether a task has a word of EPLB in it."""
    about = task.about or (task.source.text if task.unreadable else "")
    texts = [about, "\n".join(word.text for word in task.words)]
    texts += (text for item in task.variables.known.items() for text in item)
    texts += (file.text for file in task.files.values())
    return any(map(_mentions_eplb, texts))


@functools.lru_cache(maxsize=32)  # many containers mount the same large file
def _mentions_eplb(text: str) -> bool:
    return _has_word(text) and _has_word(_PLUGIN.sub("", text))  # the pattern is slow


def _has_word(text: str) -> bool:
    low = text.lower().replace("-", "_").replace(" ", "_")
    return any(word in low for word in _WORDS)


def with_script(task: Task) -> Task:
    """Return a task with the text of a script in place of its name, if it is known.

    `/scripts/run.sh ARGUMENTS` and `bash /scripts/run.sh ARGUMENTS` become `bash -c TEXT ..`. A
    single word that is a whole command becomes `bash -c WORD`.
    """
    texts = [word.text for word in task.words]
    if len(texts) == 1 and ENTRY_POINT.search(texts[0]):
        return task.replace(words=(*_shell(task.words[0]), task.words[0]))
    for index in range(min(len(texts), 2)):
        if index and texts[0].rpartition("/")[2] not in SHELLS:
            break
        path = os.path.normpath(os.path.join(task.directory, texts[index]))
        file = task.files.get(path)
        if file is None or (not index and "sh" not in file.text.partition("\n")[0]):
            continue
        first = task.words[index]
        end = file.line + file.text.count("\n")
        script = Word(file.text, file.source, file.line, end, block=True)
        return task.replace(words=(*_shell(first), script, first, *task.words[index + 1 :]))
    return task


def _shell(at: Word) -> tuple[Word, ...]:
    return words_at(("bash", "-c"), at.source, at.line, at.end)


def _with_config_files(task: Task) -> Task:
    """Return a task with the files that `--config` names, as far as they are here.

    A file of the same name beside the deployment file is taken for the file in the container:
    configMapGenerator and COPY put it there.
    """
    files = dict(task.files)
    following = [*(word.text for word in task.words[1:]), ""]
    for word, value in zip(task.words, following, strict=False):
        names = _CONFIG.findall(word.text)[:_MAX_FILES]
        for name in [value] if word.text == "--config" else names:
            path = os.path.normpath(os.path.join(task.directory, name))
            for beside in (name.lstrip("/"), path[1:], os.path.basename(name)):
                place = os.path.join(word.source.directory, beside)
                near = None if path in files else word.source.near(place, YAML, guessed=True)
                if near is not None:
                    files[path] = File(near.text, near)
    return task.replace(files=files)


class _Servers:
    """The servers of a task."""

    def __init__(self, task: Task, vllm_version: str | None, plans: Plans) -> None:
        self.task = task
        self.is_given = vllm_version is not None
        self.version = vllm_version or task.version[0]
        self.plans = plans
        self.environ = Environment(task.variables.known, unread=may_set_cap(task.variables.unread))

    def findings(self) -> Iterator[Finding]:
        """Yield the findings; a line may have several."""
        if self.task.guess:
            found = [one for one in self.read() if one.assessment.state == EXPOSED]
            yield from found or [self.unknown("no-reader", self.task.guess)]
        else:
            yield from self.read()

    def unknown(self, cause: str, reason: str, place: tuple[str, int] | None = None) -> Finding:
        path, line = place or (self.task.source.path, self.task.line)
        return self.finding(path, line, Assessment(UNKNOWN, cause, reason))

    def finding(self, path: str, line: int, found: Assessment) -> Finding:
        listed = [w.line for w in self.task.words if w.line and w.source.path == path]
        if scripts.shell_index([word.text for word in self.task.words]) or not listed:
            listed = [line]
        lines = min(listed), max(listed)
        return Finding(path, line, self.task.name, found, notes=self.task.notes, lines=lines)

    def read(self) -> Iterator[Finding]:
        words = [word.text for word in self.task.words]
        if self.task.unreadable:
            yield self.unknown("not-a-command", self.task.unreadable)
            return
        at = scripts.shell_index(words)
        if at and len(words[at]) > scripts.MAX_LENGTH:
            word = self.task.words[at]
            place = word.source.path, _line(word, scripts.guess_line(words[at]))
            word.source.say(
                f"a script in it is larger than {scripts.MAX_LENGTH >> 10} KiB: not read"
            )
            yield self.unknown("script-too-large", "the script is too large to be read", place)
            return
        if at:
            words[at] = scripts.with_exports(words[at], lambda *has: self.exported(words, at, *has))
        elif self.task.fix_style.templated:
            words = [placeholders(word) for word in words]
        yield from self.of_command(words, at)

    def exported(
        self, words: Sequence[str], at: int, before: str, command: str, after: str
    ) -> str | None:
        """Return the value that `eplb-launch env -- COMMAND` exports; "" for none.

        `before` and `after` are the texts around it in the script `words[at]`. None if the value is
        not known; but where the same command follows, `env` exports the cap or the cap is not
        needed.
        """
        if not self.task.source.spend(PARSED * len(words[at])):
            return None
        changed = [*words[:at], f"{before}\n{command}", *words[at + 1 :]]
        servers = self.plans.servers(changed, self.environ)
        plan = self.plan(servers[0], changed, self.version) if servers else None
        if plan is None or (plan.decisive is not None and plan.decisive.holds is None):
            follows = scripts.on_a_line(command) in scripts.on_a_line(after)
            return str(CAP) if follows else None
        return plan.environment.get(VARIABLE, "")

    def of_command(self, words: Sequence[str], at: int) -> Iterator[Finding]:
        """Yield the findings of a command; `words[at]` is a script, if `at` is not 0."""
        task = self.task
        servers = self.plans.servers(words, self.environ)
        if servers is None:
            yield self.unknown("failed", _FAILED)
            return
        named = (word for word in words[:2] if word.endswith(".sh") and " " not in word)
        name = "" if servers or not images.is_vllm(task.image) else next(named, "")
        if name:
            reason = f"it starts {name}, which is not among the files that are checked"
            yield self.unknown("script-not-read", reason)
        for server in servers:
            if not server.entry and images.is_other(task.image):
                continue
            finding = self.of_server(server, words, self.place(server, words, at))
            if not finding.entry and at:  # it may be any line in the rest of the script
                last = finding.line + self.lines(server, words)
                finding = finding.replace(lines=(finding.line, last))
            # Options without a program are half a command: they cannot show that a server is ok.
            has_program = finding.entry or images.run_of(server)
            if has_program or finding.verdict != OK or not task.fix_style.fragments:
                yield finding

    def place(self, server: Server, words: Sequence[str], at: int) -> tuple[str, int]:
        """Return the file and the line of a server."""
        place = server.place
        path = os.path.normpath(os.path.join(self.task.directory, server.script))
        file = self.task.files.get(path) if server.script else None
        if file is not None and isinstance(place, Place):
            return file.source.path, file.line + scripts.line_of(file.text, place)
        if not at or server.script:
            return self.task.source.path, self.task.line
        word = self.task.words[place if place < len(words) else at]
        if not isinstance(place, Place):
            return word.source.path, _line(word, 0)
        number = 0 if word.block else scripts.number_of(words[place], place)
        return word.source.path, _line(word, scripts.line_of(words[place], place), number)

    def lines(self, server: Server, words: Sequence[str]) -> int:
        """Return the number of lines of a script that a server has after its first line."""
        place = server.place
        if server.script or not isinstance(place, Place) or place >= len(words):
            return 0
        return words[place].count("\n", place.offset, place.end)

    def plan(
        self, server: Server, words: Sequence[str], version: str | None, cap: int = CAP
    ) -> Plan | None:
        return self.plans.plan(server, words, self.environ, version, cap)

    def of_server(self, server: Server, words: Sequence[str], place: tuple[str, int]) -> Finding:
        """Return the finding of a server, with what only its command says.

        That is an image, the variables that are set before it, and the launcher's options.
        """
        run = images.run_of(server)
        image = images.of_command(server)
        of_run = images.version(image) if image else (None, "")
        options = launcher.options(server.wrappers) or {}
        version = self.version or of_run[0] or options.get("vllm_version")
        cap = options.get("max_ctas")
        cap = cap if isinstance(cap, int) else CAP  # `fit` depends on the machine
        read_by_shell = scripts.unread(server.reads_first)
        of_environment = run.unread if run else ()
        if read_by_shell or of_environment:
            server = server.replace(environ=Environment(server.environ, unread=True))
        plan = self.plan(server, words, version, cap)
        if plan is None:
            return self.unknown("failed", _FAILED, place)
        unread = (*self.task.variables.unread, *read_by_shell, *of_environment)
        found = self.assessed(plan, server, unread)
        notes = self.task.notes
        if self.task.unset_by and found.state not in OK_STATES:
            notes = (*notes, f"{self.task.unset_by} unsets {VARIABLE}: setting it has no effect")
        notes = (*notes, *(f"{note.message}; {note.remedy}" for note in plan.unfit))
        named = image and not self.task.version[0]
        source = of_run[1] if named else self.task.version[1]
        return self.finding(*place, found).replace(
            notes=notes,
            entry=server.entry or (run.entry if run else ""),
            version=plan.vllm_version,
            version_source="given" if self.is_given else source,
            fixes=fixes_of(self.task, server, plan, found),
        )

    def assessed(self, plan: Plan, server: Server, unread: Sequence[str]) -> Assessment:
        """Return the assessment of a server. `unread`: what sets variables and was not read."""
        absent = launcher.missing(self.task, server)
        warnings = (absent,) if absent is not None else ()
        wrapped, options = launcher.is_there(server.wrappers), launcher.options(server.wrappers)
        if wrapped and options is None:
            reason = "eplb-launch refuses its options and starts nothing"
            if launcher.lacks_dashes(server.wrappers):
                reason = 'eplb-launch starts nothing without "--" before its command'
            return Assessment(EXPOSED, "launcher-misused", reason, warnings=warnings)
        is_idle = wrapped and self.is_idle(plan, server, (options or {}).get("vllm_version"))
        seen = Seen(
            launched=wrapped and not is_idle,
            files=self.plans.files,
            unread=may_set_cap(unread),
            value_unread=UNREADABLE in (plan.current or "") and self.is_set(),
            # A container shares the environment of its own Ray, but not that of other containers.
            ray_capped=not self.task.uncapped_peers,
        )
        found = assess(plan, seen)
        if found.cause == "config-not-read":
            reason = (
                "its --config file is not among the files that are checked, or is not valid YAML"
            )
            found = found.replace(reason=reason, warnings=())
        if is_idle and found.state not in OK_STATES:
            reason = "eplb-launch is given a release for which it sets nothing"
            found = found.replace(reason=f"{found.reason}; {reason}")
        found = _without_secrets(found, plan.settings)
        if found.state == UNKNOWN:
            names = tuple(dict.fromkeys((*server.unknown, *self.task.variables.missing)))
            if names and found.cause == "settings-not-known":
                more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
                listed = f"{', '.join(names[:_MAX_NAMED])}{more} not known"
                found = found.replace(reason=f"{found.reason}; {listed}")
            found = found.replace(unread=(*found.unread, *names, *unread))
        return found.replace(warnings=(*found.warnings, *warnings))

    def is_idle(self, plan: Plan, server: Server, version: str | None) -> bool:
        """Whether the launcher is given another version, for which it sets nothing."""
        if version is None or version == plan.vllm_version:
            return False
        other = self.plan(server, plan.command, version)
        return other is not None and not other.variables

    def is_set(self) -> bool:
        """Whether a file sets the variable, to a known value or not.

        The value is not known after `sudo` and the like either, but nobody has set it there.
        """
        return VARIABLE in self.task.variables.known or any(
            re.search(rf"\b{VARIABLE}=", word.text) for word in self.task.words
        )


def _without_secrets(found: Assessment, settings: Mapping[str, Setting]) -> Assessment:
    """Return an assessment whose reason shows only vLLM's own values.

    Another value may be from a Secret or from a file of variables.
    """
    reason = found.reason
    for setting in settings.values():
        source = cut(setting.source)
        hidden = isinstance(setting.value, str) and setting.value not in _PUBLIC
        if hidden or "{" in source:
            value = "(another)" if hidden else setting.shown
            shown = f"{setting.name}={value}, {source.partition(':')[0]}"
            reason = reason.replace(f"{setting.name}={setting.shown}, {source}", shown)
    return found.replace(reason=reason)


def _line(word: Word, offset: int, number: int = 0) -> int:
    """Return the line in the file of a line in the text of a word, counted from 0.

    `number` servers may stand before it.
    """
    if word.block:
        return word.line + offset
    if offset == 0 and word.end <= word.line:
        return word.line
    lines = word.source.text.split("\n")[word.line - 1 : word.end]
    return word.line + scripts.guess_line("\n".join(lines), number)
