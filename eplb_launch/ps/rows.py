"""What `ps` knows of a server: its assessment, or why there can be none. Pure."""

from __future__ import annotations

from eplb_launch.assessment import CAPPED, EXPOSED, NOT_NEEDED, UNKNOWN, Assessment
from eplb_launch.model import MOST_SHOWN, Record, cut
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
from eplb_launch.vllm.releases import VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from eplb_launch.model import PlanWarning
    from eplb_launch.plans import Plan
    from eplb_launch.ps.processes import Facts, Process
    from eplb_launch.ps.servers import Group
    from eplb_launch.vllm.settings import Setting

# The words of `ps` for the states of an Assessment.
WORDS = {NOT_NEEDED: "not needed", CAPPED: "capped", EXPOSED: "EXPOSED", UNKNOWN: "unknown"}
_ORDER = (EXPOSED, UNKNOWN, CAPPED, NOT_NEEDED)


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


class Row(Record):
    """What `ps` knows of one server."""

    pid: int
    assessment: Assessment
    group: Group | None = None  # None: the pid that was asked for is no server's
    user: str | None = None
    started: float | None = None  # since the epoch
    version: str | None = None
    version_source: str = ""
    settings: Mapping[str, Setting] = {}
    readable: bool = False  # whether its environment could be read
    current: str | None = None  # NCCL_MAX_CTAS in its environment
    notes: tuple[PlanWarning, ...] = ()

    @property
    def verdict(self) -> str:
        return WORDS[self.assessment.state]

    @property
    def order(self) -> tuple[int, int]:
        """Servers that need action come first."""
        return _ORDER.index(self.assessment.state), self.pid


def row(group: Group, facts: Facts, plan: Plan | None, found: Assessment | None) -> Row:
    """Return the row of a server.

    `plan` is made of its own command, environment and directory, and `found` is the assessment of
    it; None where they cannot be read.
    """
    if group.kind == GONE:
        reason = "their server is gone, and these processes of it are left"
        found = Assessment(UNKNOWN, "server-gone", reason)
    elif facts.trouble or plan is None or found is None or facts.environ is None:
        found = _unreadable(facts.trouble or UNREADABLE)
    elif plan.server is None:
        found = found.replace(warnings=())  # of a launcher that is not there
        if found.state == UNKNOWN:
            reason = "the command of the program that started the engine does not show its settings"
            found = found.replace(cause="command-not-known", reason=reason)
    about = Row(group.head.pid, found.replace(value=_cut(found.value)), group)
    about = about.replace(
        user=facts.user,
        started=facts.started,
        readable=facts.environ is not None,
        current=_cut((facts.environ or {}).get(VARIABLE)),
    )
    if plan is None or plan.server is None:
        return about
    return about.replace(
        version=_cut(plan.vllm_version),
        version_source=cut(plan.vllm_source),
        settings={name: _cut_setting(setting) for name, setting in plan.settings.items()},
        notes=plan.unfit,
    )


def _cut(text: str | None) -> str | None:
    return None if text is None else cut(text)


def _cut_setting(setting: Setting) -> Setting:
    value = setting.value
    if setting.known and not isinstance(value, bool) and len(str(value)) > MOST_SHOWN:
        value = cut(str(value))
    return setting.replace(value=value, source=cut(setting.source))


def no_server(pid: int, process: Process | None) -> Row:
    """Return the row of a pid that was asked for and is no server's."""
    if process is not None and (process.zombie or process.cut):
        return Row(pid, _unreadable(ZOMBIE if process.zombie else LONG_COMMAND))
    cause, reason = "no-server", "it is no vLLM server, and belongs to none"
    if process is None:
        cause, reason = "no-process", "there is no such process"
    return Row(pid, Assessment(UNKNOWN, cause, reason))


def _unreadable(trouble: str) -> Assessment:
    return Assessment(UNKNOWN, trouble, _TROUBLE[trouble])
