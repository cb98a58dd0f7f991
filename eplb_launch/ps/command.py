"""`eplb-launch ps`: look at the servers that run here, and say which are safe."""

from __future__ import annotations

import functools
import itertools
import os

from eplb_launch.assessment import CONFIG, EXPOSED, PACKAGE, UNKNOWN, assess
from eplb_launch.launch import LAUNCHER_FAILED, place, say
from eplb_launch.model import Record
from eplb_launch.plans import plan
from eplb_launch.ps.apart import results
from eplb_launch.ps.processes import (
    FAILED,
    TIMED_OUT,
    Facts,
    command_of,
    look_closer,
    others_hidden,
    scan,
)
from eplb_launch.ps.rows import no_server, row
from eplb_launch.ps.servers import GONE, affordable, belongs_to, group
from eplb_launch.ps.table import as_dict, table
from eplb_launch.ps.view import TOO_MUCH, GiveUpError
from eplb_launch.terminal import colour, json_text, print_text, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from eplb_launch.assessment import Assessment
    from eplb_launch.files import Files
    from eplb_launch.plans import Plan
    from eplb_launch.ps.rows import Row
    from eplb_launch.ps.servers import Group

# psutil's time of a process's start is exact to a second: it adds ticks to the boot time.
_SECONDS = 2.0


def look(pids: Collection[int] = ()) -> list[Row]:
    """Return a row for each vLLM server that runs here, those that need action first.

    With `pids`, only for the servers that these processes are or belong to, and one for each of
    them that is no server's.
    """
    processes, dropped = affordable(scan())
    if dropped:
        say(f"{dropped} processes are not looked at: their commands are too much to read")
    groups = group(processes)
    others: list[Row] = []
    if pids:
        wanted = []
        for pid in dict.fromkeys(pids):
            found = belongs_to(pid, groups, processes)
            if found is None:
                others.append(no_server(pid, processes.get(pid)))
            elif found not in wanted:
                wanted.append(found)
        groups = wanted
    looks = {(g.head.pid, g.head.ticks): functools.partial(_look_at, g) for g in groups}
    seen = results(looks)
    rows = [_row(server, seen[server.head.pid, server.head.ticks]) for server in groups]
    return sorted([*others, *rows], key=lambda row: row.order)


class Seen(Record):
    """What a look at a server has brought."""

    facts: Facts
    plan: Plan | None = None
    assessment: Assessment | None = None
    failure: str = ""  # where we failed


def _look_at(server: Group) -> Seen:
    """Look at a server and at the files that it names, in a child of ours: see `view`."""
    facts = look_closer(server.head)
    view, facts = facts.view, facts.replace(view=None)
    if server.kind == GONE or facts.trouble or facts.environ is None or view is None:
        return Seen(facts)
    try:
        view.enter()
        command = command_of(server.head, facts.replace(view=view))
        decided = plan(command, facts.environ, directory=facts.directory, files=view)
        found = assess(
            decided,
            launched=False,
            files=view,
            environ=facts.environ,
            changed=_changed(decided, facts, view),
        )
        return Seen(facts, decided, found)
    except GiveUpError as error:
        return Seen(facts.replace(trouble=error.trouble))
    except MemoryError:
        return Seen(facts.replace(trouble=TOO_MUCH))
    except Exception as error:  # noqa: BLE001 - the other servers are still to be shown
        return Seen(facts.replace(trouble=FAILED), failure=place(error))


def _row(server: Group, seen: Seen | None) -> Row:
    if seen is None:
        return row(server, Facts(trouble=TIMED_OUT), None, None)
    if seen.failure:
        say(f"internal error on {server.head.pid}: {seen.failure}")
    return row(server, seen.facts, seen.plan, seen.assessment)


def _changed(decided: Plan, facts: Facts, files: Files) -> str:
    """Return what is not any more as the server found it at its start; "" where all is."""
    words = decided.server.words if decided.server else ()
    config = dict(itertools.pairwise(words)).get("--config", "")
    package = decided.vllm_source if decided.vllm_version else ""
    for what, path in ((PACKAGE, package), (CONFIG, config)):
        try:
            found = os.path.join(facts.directory or "", path)
            changed = files.stat(found).st_mtime if path else 0.0
        except OSError:
            continue
        if facts.started is not None and changed > facts.started + _SECONDS:
            return what
    return ""


def status(rows: list[Row], *, strict: bool) -> int:
    """Return the exit status: 1 where a server is exposed, or with `strict` may be."""
    bad = {EXPOSED, UNKNOWN} if strict else {EXPOSED}
    return int(any(found.assessment.state in bad for found in rows))


def warn(rows: list[Row]) -> None:
    """Say on stderr what is not known: the exit status does not."""
    unknown = [found for found in rows if found.assessment.state == UNKNOWN]
    if unknown:
        pids = ", ".join(str(found.pid) for found in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        say(f"{len(unknown)} of {len(rows)} unknown: {pids}{more}")


def run(
    pids: Collection[int],
    *,
    as_json: bool = False,
    processes: bool = False,
    strict: bool = False,
    interval: float | None = None,
) -> int:
    """Print the table or the JSON, with `interval` again and again; return the exit status."""
    if not os.path.exists("/proc/self/stat"):
        say("ps needs /proc, and cannot read it")
        return LAUNCHER_FAILED
    if interval is not None:
        from eplb_launch.ps.watch import watch

        return watch(lambda: look(pids), interval, processes=processes)
    rows = look(pids)
    hidden = not pids and others_hidden()
    if as_json:
        print_text(json_text(as_dict(rows, hidden=hidden)))
    elif rows or not hidden:
        print_text(table(rows, width=width(), colour=colour(), processes=processes))
    warn(rows)
    if hidden:
        say("other users' processes are hidden: run as root")
        if not rows:
            return LAUNCHER_FAILED
    return status(rows, strict=strict) or int(hidden and strict)
