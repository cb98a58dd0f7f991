"""What `ps` knows of a server: its assessment, or why there can be none. Pure."""

from __future__ import annotations

from eplb_launch.assessment import CAPPED, EXPOSED, NOT_NEEDED, UNKNOWN, Assessment
from eplb_launch.model import MOST_SHOWN, Record, cut
from eplb_launch.ps.processes import LONG_COMMAND, UNREADABLE, ZOMBIE
from eplb_launch.ps.servers import GONE
from eplb_launch.ps.view import Trouble
from eplb_launch.vllm.releases import VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from eplb_launch.model import PlanWarning
    from eplb_launch.plans import Plan
    from eplb_launch.ps.processes import Facts, Process
    from eplb_launch.ps.servers import Group
    from eplb_launch.vllm.settings import Setting

# The words of `ps` for the states of an Assessment; servers that need action come first.
WORDS = {EXPOSED: "EXPOSED", UNKNOWN: "unknown", CAPPED: "capped", NOT_NEEDED: "not needed"}


_GONE = Trouble("server-gone", "their server is gone, and these processes of it are left")
_NO_PROCESS = Trouble("no-process", "there is no such process")
_NO_SERVER = Trouble("no-server", "it is no vLLM server, and belongs to none")


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
        return list(WORDS).index(self.assessment.state), self.pid


def row(
    group: Group, facts: Facts, plan: Plan | None = None, found: Assessment | None = None
) -> Row:
    """Return the row of a server.

    `plan` is made of its own command, environment and directory, and `found` is the assessment of
    it; None where they cannot be read.
    """
    if group.kind == GONE:
        found = _unknown(_GONE)
    elif facts.trouble or plan is None or found is None or facts.environ is None:
        found = _unknown(facts.trouble or UNREADABLE)
    elif plan.server is None:
        found = found.replace(warnings=())  # of a launcher that is not there
        if found.state == UNKNOWN:
            reason = "the command of the program that started the engine does not show its settings"
            found = found.replace(cause="command-not-known", reason=reason)
    about = Row(
        group.head.pid,
        found,
        group,
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
    if process is None:
        return Row(pid, _unknown(_NO_PROCESS))
    trouble = ZOMBIE if process.zombie else LONG_COMMAND if process.cut else _NO_SERVER
    return Row(pid, _unknown(trouble))


def _unknown(trouble: Trouble) -> Assessment:
    return Assessment(UNKNOWN, trouble.cause, trouble.reason)
