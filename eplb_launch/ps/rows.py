"""A row for each server, and the table and the JSON of all rows. Pure."""

from __future__ import annotations

import datetime as dt
import textwrap
from typing import TYPE_CHECKING, Any

from eplb_launch import __version__
from eplb_launch.assessment import CAPPED, EXPOSED, NOT_NEEDED, UNKNOWN, Assessment
from eplb_launch.model import MOST_SHOWN, Record, cut, printable
from eplb_launch.ps.processes import LONG_COMMAND, ROLES, UNREADABLE, ZOMBIE
from eplb_launch.ps.servers import GONE
from eplb_launch.ps.view import unknown
from eplb_launch.render.explain import fields, setting_as_dict, warning_as_dict
from eplb_launch.vllm.releases import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from eplb_launch.model import PlanWarning
    from eplb_launch.plans import Plan
    from eplb_launch.ps.processes import Facts, Process
    from eplb_launch.ps.servers import Group
    from eplb_launch.vllm.settings import Setting

SCHEMA = 2  # raise it when a key is removed or changes its meaning, not for a new key

HEADER = ("PID", "USER", "STARTED", "VLLM", "NCCL_MAX_CTAS", "WORKERS", "VERDICT", "SETTINGS")
_GAP = "  "
_MAX_WIDTHS = (9, 12, 7, 16, 16, 9)  # of the first columns; the others are never cut
_INDENT = 4  # of lines below a row
_COLOURS = {EXPOSED: "1;31", UNKNOWN: "33", CAPPED: "32", NOT_NEEDED: "32"}
# What the table adds to a reason, by cause.
_ADVICE = {
    "no-limit": " Restart it with `eplb-launch --` before the command.",
    "vllm": " That does not show in /proc.",
    "release-not-known": " Try a release: `eplb-launch explain --vllm-version X.Y.Z -- CMD`.",
    "changed-since-start": " Restart it to know.",
}

# The verdict for each state of an Assessment. Servers that need action come first.
WORDS = {EXPOSED: "EXPOSED", UNKNOWN: "unknown", CAPPED: "capped", NOT_NEEDED: "not needed"}

_GONE = unknown("server-gone", "the server has ended, and these processes of it still run")
_NO_PROCESS = unknown("no-process", "there is no such process")
_NO_SERVER = unknown("no-server", "it is no vLLM server, and belongs to none")


class Row(Record):
    pid: int
    assessment: Assessment
    group: Group | None = None  # None: the process belongs to no server
    user: str | None = None
    started: float | None = None  # since the epoch
    version: str | None = None
    version_source: str = ""
    settings: Mapping[str, Setting] = {}
    readable: bool = False  # its environment could be read
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

    `plan` and `found` are the plan and the assessment of its command, environment and directory;
    None if these cannot be read.
    """
    if group.kind == GONE:
        found = _GONE
    elif facts.trouble or plan is None or found is None or facts.environ is None:
        found = facts.trouble or UNREADABLE
    elif plan.server is None:
        found = found.replace(warnings=())  # they are about a launcher, and there is none
        if found.state == UNKNOWN:
            reason = "the program that started the engine does not show its settings in its command"
            found = found.replace(cause="command-not-known", reason=reason)
    current = (facts.environ or {}).get(VARIABLE)
    about = Row(
        group.head.pid,
        found,
        group,
        user=facts.user,
        started=facts.started,
        readable=facts.environ is not None,
        current=current and cut(current),
    )
    if plan is None or plan.server is None:
        return about
    return about.replace(
        version=plan.vllm_version,
        version_source=cut(plan.vllm_source),
        settings={name: _cut_setting(setting) for name, setting in plan.settings.items()},
        notes=plan.unfit,
    )


def _cut_setting(setting: Setting) -> Setting:
    value = setting.value
    if setting.known and not isinstance(value, bool) and len(str(value)) > MOST_SHOWN:
        value = cut(str(value))
    return setting.replace(value=value, source=cut(setting.source))


def no_server(pid: int, process: Process | None) -> Row:
    """Return the row of a process that belongs to no server."""
    if process is None:
        return Row(pid, _NO_PROCESS)
    return Row(pid, ZOMBIE if process.zombie else LONG_COMMAND if process.cut else _NO_SERVER)


def as_dict(rows: Sequence[Row], *, hidden: bool = False) -> dict[str, Any]:
    """Return the rows as JSON-ready values; docs/json.md documents the keys."""
    servers = [_as_dict(row) for row in rows]
    return {"schema": SCHEMA, "launcher": __version__, "hidden": hidden, "servers": servers}


def _as_dict(row: Row) -> dict[str, Any]:
    group, found = row.group, row.assessment
    started = dt.datetime.fromtimestamp(row.started or 0, dt.timezone.utc)
    return {
        **fields(row, "pid", "user"),
        "started": None if row.started is None else started.isoformat("T", "seconds"),
        "kind": group.kind if group else None,
        "entry": (group.entry or None) if group else None,
        "release": {"version": row.version, "source": row.version_source or None},
        "settings": [
            {**setting_as_dict(setting), "decides": setting.name in found.deciding}
            for setting in row.settings.values()
        ],
        "environment": {"readable": row.readable, "NCCL_MAX_CTAS": row.current},
        "workers": group.counts if group else dict.fromkeys(ROLES, 0),
        "processes": [{"pid": pid, "title": title} for pid, title in group.titles.items()]
        if group
        else [],
        "started_by": [process.pid for process in (group.starters if group else ())],
        "verdict": row.verdict,
        **fields(found, "cause", "reason", "unread"),
        "cap": fields(found, "value", "by") if found.by else None,
        "warnings": [warning_as_dict(warning) for warning in found.warnings],
        "notes": [warning_as_dict(note) for note in row.notes],
    }


def table(
    rows: Sequence[Row], *, width: int | None, colour: bool = False, processes: bool = False
) -> str:
    """Return the table, and each explanation once below it, without a newline at the end.

    `width` is the width of the terminal; with None each server is one line. `processes` adds a line
    for each process of a server.
    """
    if not rows:
        return "No vLLM server is running here."
    notes: dict[str, int] = {}
    lines = [(HEADER, ""), *((_cells(row, notes), row.assessment.state) for row in rows)]
    # The last column is not padded: it is the widest, and nothing follows it.
    widths = [max(len(cells[i]) for cells, _ in lines) for i in range(len(HEADER) - 1)]
    longest = max(len(cells[-1]) for cells, _ in lines)
    beside = width is None or sum(widths) + len(_GAP) * len(widths) + longest <= width
    text = []
    for (cells, state), row in zip(lines, (None, *rows), strict=True):
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
        padded[0] = cells[0].rjust(widths[0])
        if colour and state:
            padded[-1] = f"\x1b[{_COLOURS[state]}m{padded[-1]}\x1b[0m"
        if beside:
            padded.append(cells[-1])
        text.append(_GAP.join(padded).rstrip())
        if not beside and state:
            text.extend(_wrapped(cells[-1], width, _INDENT, _INDENT))
        if processes and row and row.group:
            text.extend(_processes(row.group))
    text.append("")
    for note, number in notes.items():
        text.extend(_wrapped(f"[{number}] {note}", width, 0, _INDENT))
    return "\n".join(text)


def _cells(row: Row, notes: dict[str, int]) -> tuple[str, ...]:
    """Return the cells of a row; `notes` collects the explanations and their numbers."""
    found, counts = row.assessment, row.group.counts if row.group else {}
    by = f" by {found.by}" if found.by else ""
    texts = [f"{row.verdict}{by}: {found.reason}.{_ADVICE.get(found.cause, '')}"]
    texts += [f"warning: {warning.message}; {warning.remedy}." for warning in found.warnings]
    texts += [f"note: {note.message}; {note.remedy}." for note in row.notes]
    marks = "".join(f"[{notes.setdefault(printable(text), len(notes) + 1)}]" for text in texts)
    at = f" at {found.value}" if found.value is not None else ""
    current = row.current if row.current is not None else "-"
    first = (
        str(row.pid),
        row.user or "?",
        _clock(row.started),
        row.version.partition("+")[0] if row.version else "?",
        (current or '""') if row.readable else "?",
        str(counts.get("Worker") or counts.get("EngineCore", 0)),  # an engine core may do the work
    )
    settings = " ".join(
        f"{name}={row.settings[name].shown}" for name in found.deciding if name in row.settings
    )
    return (
        *(_cut(printable(cell), most) for cell, most in zip(first, _MAX_WIDTHS, strict=True)),
        printable(f"{row.verdict}{at} {marks}"),
        printable(settings),
    )


def _clock(seconds: float | None) -> str:
    """Return the start of a process as ps(1) shows it: the time if it was today, else the day."""
    if seconds is None:
        return "?"
    started = dt.datetime.fromtimestamp(seconds).astimezone()
    today = dt.datetime.now().astimezone()
    if started.date() == today.date():
        return f"{started:%H:%M}"
    return f"{started:%b%d}" if started.year == today.year else f"{started:%Y}"


def _processes(group: Group) -> Iterator[str]:
    starters = {process.pid: f"{process.name} (above the server)" for process in group.starters}
    for pid, name in {**starters, **group.titles}.items():
        yield printable(f"{' ' * _INDENT}{pid} {name}")


def _wrapped(text: str, width: int | None, first: int, rest: int) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(
        text,
        max(width, 40),
        initial_indent=" " * first,
        subsequent_indent=" " * rest,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 2]}.."
