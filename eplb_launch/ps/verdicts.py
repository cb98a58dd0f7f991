"""What `ps` says of a server: not needed, capped, EXPOSED or unknown, and why. Pure.

The plan decides; what it would set, a running server lacks.
"""

from __future__ import annotations

from eplb_launch.model import Record
from eplb_launch.nccl.variables import limit
from eplb_launch.ps.processes import (
    CHANGED,
    DENIED,
    FAILED,
    LONG_COMMAND,
    LONG_ENVIRON,
    MAX_COMMAND,
    MAX_ENVIRON,
    OVERWRITTEN,
    TIMED_OUT,
    UNREADABLE,
    VANISHED,
    ZOMBIE,
)
from eplb_launch.ps.servers import GONE
from eplb_launch.ps.view import NOT_SAFE, TOO_MUCH
from eplb_launch.vllm.releases import CAP, VARIABLE, stays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from eplb_launch.plans import Plan, PlanWarning
    from eplb_launch.ps.processes import Facts, Process
    from eplb_launch.ps.servers import Group
    from eplb_launch.vllm.rules import Verdict
    from eplb_launch.vllm.settings import Setting

NOT_NEEDED = "not needed"
CAPPED = "capped"
EXPOSED = "EXPOSED"
UNKNOWN = "unknown"

# Who has set a limit, and what may change after a server has read it.
ENVIRONMENT = "environment"
FILE = "conf file"
VLLM = "vLLM"
CONFIG = "the --config file"
_BY = {
    ENVIRONMENT: f"{VARIABLE} is in its environment",
    VLLM: f"vLLM's own workers set {VARIABLE}",
    FILE: f"a conf file of NCCL's sets {VARIABLE}",
}

# Codes of `hazards`: there is a limit, and NCCL will not keep to it, or the workers not get it.
_VOID = frozenset(("min-nchannels", "min-p2p-nchannels", "value-not-a-limit"))
_RAY = "ray-workers"
_REPLACED = "value-replaced"  # what the launcher would do, which does not stand in front here

MOST_SHOWN = 200  # characters of anything that a process or a file of its says

# The same in every release: they can say that no rule holds where the release is not known.
_ALWAYS = ("data_parallel_size", "enable_eplb")
_TROUBLE = {
    DENIED: "permission denied: only its user and root can read its environment and packages",
    VANISHED: "it ended while it was looked at",
    ZOMBIE: "it has ended, and its parent has not taken notice yet (a zombie)",
    CHANGED: "it became another program while it was looked at",
    OVERWRITTEN: "it has given itself a title, which overwrites its environment",
    UNREADABLE: "the kernel does not let its environment be read",
    LONG_COMMAND: f"its command line is larger than {MAX_COMMAND >> 10} KiB: not read to its end",
    LONG_ENVIRON: f"its environment is larger than {MAX_ENVIRON >> 20} MiB: not read to its end",
    TOO_MUCH: "it names more files, or larger ones, than are looked at for one process",
    NOT_SAFE: "its files cannot be looked at with its own rights and below its own root here, "
    "which takes openat2(2) of Linux 5.6",
    TIMED_OUT: "the look at it did not come to an end: a file system that hangs, or too much to do",
    FAILED: "eplb-launch failed to make sense of it, which is a bug of its own",
}


class Answer(Record):
    """A verdict and its reason."""

    verdict: str
    cause: str  # stable, for programs
    reason: str  # the same for all servers that share it
    value: str | None = None  # CAPPED: the limit
    by: str | None = None  # CAPPED: ENVIRONMENT, VLLM or FILE
    deciding: tuple[str, ...] = ()  # the names of the settings that decide


class Row(Record):
    """What `ps` knows of one server."""

    pid: int
    answer: Answer
    group: Group | None = None  # None: the pid that was asked for is no server's
    user: str | None = None
    started: float | None = None  # since the epoch
    version: str | None = None
    version_source: str = ""
    settings: Mapping[str, Setting] = {}
    readable: bool = False  # whether its environment could be read
    current: str | None = None  # NCCL_MAX_CTAS in its environment
    warnings: tuple[PlanWarning, ...] = ()
    notes: tuple[PlanWarning, ...] = ()

    @property
    def order(self) -> tuple[int, int]:
        """Those that need somebody come first."""
        return (EXPOSED, UNKNOWN, CAPPED, NOT_NEEDED).index(self.answer.verdict), self.pid


def row(group: Group, facts: Facts, plan: Plan | None, changed: str = "") -> Row:
    """Return the row of a server.

    `plan` is made of its own command, environment and directory; None where they cannot be read.
    `changed` names what is not any more as the server found it: VLLM or CONFIG.
    """
    about = Row(group.head.pid, answer(group, facts, plan, changed), group)
    about = about.replace(
        user=facts.user,
        started=facts.started,
        readable=facts.environ is not None,
        current=cut((facts.environ or {}).get(VARIABLE)),
    )
    if plan is None or plan.server is None:
        return about
    return about.replace(
        version=cut(plan.vllm_version),
        version_source=cut(plan.vllm_source) or "",
        settings={name: _cut_setting(setting) for name, setting in plan.settings.items()},
        warnings=tuple(warning for warning in plan.warnings if warning.code != _REPLACED),
        notes=plan.unfit,
    )


def cut(text: str | None) -> str | None:
    """Return no more of a text than is shown."""
    return text if text is None or len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _cut_setting(setting: Setting) -> Setting:
    value = setting.value
    if setting.known and not isinstance(value, bool) and len(str(value)) > MOST_SHOWN:
        value = cut(str(value))
    return setting.replace(value=value, source=cut(setting.source))


def no_server(pid: int, process: Process | None) -> Row:
    """Return the row of a pid that was asked for and is no server's."""
    if process is None:
        return Row(pid, Answer(UNKNOWN, "no-process", "there is no such process"))
    if process.zombie:
        return Row(pid, Answer(UNKNOWN, ZOMBIE, _TROUBLE[ZOMBIE]))
    if process.cut:
        return Row(pid, Answer(UNKNOWN, LONG_COMMAND, _TROUBLE[LONG_COMMAND]))
    reason = "it is no vLLM server, and belongs to none"
    return Row(pid, Answer(UNKNOWN, "no-server", reason))


def answer(  # noqa: PLR0911 - one reason after the other
    group: Group, facts: Facts, plan: Plan | None, changed: str = ""
) -> Answer:
    """Return the verdict on a server; see `row`."""
    if group.kind == GONE:
        reason = "their server is gone, and these processes of it are left"
        return Answer(UNKNOWN, "server-gone", reason)
    if facts.trouble or plan is None or facts.environ is None:
        trouble = facts.trouble or UNREADABLE
        return Answer(UNKNOWN, trouble, _TROUBLE[trouble])
    verdict = plan.verdict
    if verdict is None and plan.settings:
        return _not_needed(plan, changed)
    value, by = _limit(plan, facts.environ.get(VARIABLE))
    deciding = _deciding(verdict)
    if by and not (changed and by == VLLM):
        return _limited(plan, value, by).replace(deciding=deciding)
    if plan.server is None:
        reason = "the command of the program that started the engine does not show its settings"
        return Answer(UNKNOWN, "command-not-known", reason)
    if changed:
        return _changed(changed, deciding)
    if verdict is None:
        return Answer(UNKNOWN, "command-not-understood", plan.reason)
    return _without_limit(plan, verdict).replace(deciding=deciding)


def _not_needed(plan: Plan, changed: str) -> Answer:
    missing = [
        next(condition for condition in verdict.conditions if condition.holds is False)
        for verdict in plan.verdicts
    ]
    deciding = tuple(dict.fromkeys(condition.setting for condition in missing))
    in_every_release = deciding and all(name in _ALWAYS for name in deciding)
    if changed and (changed != VLLM or not in_every_release):
        return _changed(changed, deciding)
    if not missing:
        return Answer(NOT_NEEDED, "release", f"vLLM {plan.vllm_version} has no async EPLB")
    texts = dict.fromkeys(condition.text for condition in missing)
    does = "does not hold" if len(texts) == 1 else "do not hold"
    return Answer(NOT_NEEDED, "rule", f"{' and '.join(texts)} {does}", deciding=deciding)


def _limit(plan: Plan, current: str | None) -> tuple[str, str]:
    """Return the limit of a server that may need one and who has set it; "" twice for none."""
    own_rule = plan.release.own_rule
    if current and stays(current):
        return cut(current) or "", ENVIRONMENT
    if own_rule and plan.verdict and plan.verdict.holds:
        return str(CAP), VLLM
    if current and not own_rule and limit(current) is not None:
        return current, ENVIRONMENT  # "0x8": vLLM's rule would replace it, but there is none
    if plan.verdict and not plan.variables:
        return str(plan.ctas), FILE
    return "", ""


def _limited(plan: Plan, value: str, by: str) -> Answer:
    """Answer where there is a limit, which may be none for NCCL."""
    codes = {warning.code for warning in plan.warnings}
    if codes & _VOID or limit(value) is None:
        sure = plan.verdict is not None and plan.verdict.holds
        reason = f"{_BY[by]}, but NCCL does not keep to it"
        return Answer(EXPOSED if sure else UNKNOWN, "limit-void", reason)
    if _RAY in codes:
        reason = f"{_BY[by]}, but its Ray workers do not get it from there"
        return Answer(UNKNOWN, _RAY, reason)
    if by == VLLM and plan.verdict:
        reason = (
            f"{plan.verdict.rule.hazard}: the workers of vLLM {plan.vllm_version} set "
            f"{VARIABLE}={value} themselves, which does not show in /proc"
        )
    else:
        reason = _BY[by]
    return Answer(CAPPED, by.lower().replace(" ", "-"), reason, value, by)


def _without_limit(plan: Plan, verdict: Verdict) -> Answer:
    """Answer where a rule holds, or cannot be ruled out, and there is no limit."""
    hazard, version = verdict.rule.hazard, plan.vllm_version
    if verdict.holds is None:
        texts = [condition.text for condition in verdict.conditions if condition.holds is None]
        reason = f"{hazard} cannot be ruled out: {', '.join(texts)}"
        if plan.release.own_rule:
            reason += f"; if so, the workers of vLLM {version} limit NCCL themselves"
        return Answer(UNKNOWN, "settings-not-known", reason)
    if version is None:
        reason = (
            f"{hazard}, and which vLLM it runs is not known ({cut(plan.vllm_source)}): "
            "0.12 to 0.16 do not limit NCCL themselves"
        )
        return Answer(UNKNOWN, "release-not-known", reason)
    found = "is not in its environment" if plan.current is None else "is no limit as it stands"
    reason = (
        f"{hazard}: it can hang. vLLM {version} does not limit NCCL, and {VARIABLE} {found}. "
        "Restart it with `eplb-launch --` before the command"
    )
    return Answer(EXPOSED, "no-limit", reason)


def _changed(what: str, deciding: tuple[str, ...]) -> Answer:
    reason = f"{what} was changed after the server had started: what it has read is not known"
    return Answer(UNKNOWN, "changed-since-start", reason, deciding=deciding)


def _deciding(verdict: Verdict | None) -> tuple[str, ...]:
    conditions = verdict.conditions if verdict else ()
    return tuple(dict.fromkeys(condition.setting for condition in conditions))
