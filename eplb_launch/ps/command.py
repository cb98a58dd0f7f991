"""`eplb-launch ps`: read the servers that run here, and say which of them can hang."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import os
import shutil
import signal
import time

from eplb_launch.assessment import CONFIG, EXPOSED, PACKAGE, UNKNOWN, Seen, assess
from eplb_launch.launch import LAUNCHER_FAILED, place, say
from eplb_launch.plans import plan
from eplb_launch.ps.children import results
from eplb_launch.ps.processes import (
    TIMED_OUT,
    Facts,
    command_of,
    facts_of,
    others_hidden,
    scan,
)
from eplb_launch.ps.rows import as_dict, no_server, row, table
from eplb_launch.ps.servers import GONE, affordable, belongs_to, group
from eplb_launch.ps.view import TOO_MUCH, GiveUpError, unknown
from eplb_launch.terminal import colour, json_text, print_text, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from eplb_launch.files import Files
    from eplb_launch.plans import Plan
    from eplb_launch.ps.rows import Row
    from eplb_launch.ps.servers import Group

# psutil gives the start of a process to the second: it adds ticks to the time of the boot.
_SECONDS = 2.0
_CLEAR = "\x1b[H\x1b[J"  # moves to the upper left corner, and erases what follows


def look(pids: Collection[int] = ()) -> list[Row]:
    """Return a row for each vLLM server that runs here; servers that need action come first.

    With `pids`, only for the servers that these processes belong to, and a row for each process
    that belongs to none.
    """
    processes = affordable(scan())
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
    by_head = {(one.head.pid, one.head.ticks): one for one in groups}
    seen = results({head: functools.partial(_row_of, one) for head, one in by_head.items()})
    rows = [seen[head] or row(one, Facts(trouble=TIMED_OUT)) for head, one in by_head.items()]
    return sorted([*others, *rows], key=lambda row: row.order)


def _row_of(server: Group) -> Row:
    """Read a server and the files that it names. This runs in a child process: see `view`."""
    facts = facts_of(server.head)
    view = facts.view
    if server.kind == GONE or facts.environ is None or view is None:
        return row(server, facts)
    try:
        view.take_rights()
        command = command_of(server.head, facts)
        decided = plan(command, facts.environ, directory=facts.directory, files=view)
        changed = _changed(decided, facts, view)
        seen = Seen(launched=False, files=view, environ=facts.environ, changed=changed)
        found = assess(decided, seen)
        return row(server, facts, decided, found)
    except GiveUpError as error:
        trouble = error.trouble
    except MemoryError:
        trouble = TOO_MUCH
    except Exception as error:  # noqa: BLE001 - the other servers still need their rows
        reason = f"eplb-launch failed to read it, which is a bug in eplb-launch: {place(error)}"
        trouble = unknown("internal-error", reason)
    return row(server, facts.replace(trouble=trouble))


def _changed(decided: Plan, facts: Facts, files: Files) -> str:
    """Return PACKAGE or CONFIG if that was changed after the server had started; else ""."""
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


def run(
    pids: Collection[int],
    *,
    as_json: bool = False,
    processes: bool = False,
    strict: bool = False,
    interval: float | None = None,
) -> int:
    """Print the table or the JSON, repeatedly with `interval`; return the exit status."""
    if not os.path.exists("/proc/self/stat"):
        say("ps needs /proc, and cannot read it")
        return LAUNCHER_FAILED
    if interval is not None:
        return _watch(pids, interval, processes=processes)
    rows = look(pids)
    hidden = not pids and others_hidden()
    if as_json:
        print_text(json_text(as_dict(rows, hidden=hidden)))
    elif rows or not hidden:
        print_text(table(rows, width=width(), colour=colour(), processes=processes))
    unknown = [str(found.pid) for found in rows if found.assessment.state == UNKNOWN]
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        say(f"{len(unknown)} of {len(rows)} unknown: {', '.join(unknown[:8])}{more}")
    if hidden:
        say("other users' processes are hidden: run as root")
        if not rows:
            return LAUNCHER_FAILED
    exposed = any(found.assessment.state == EXPOSED for found in rows)
    return int(exposed or (strict and bool(unknown or hidden)))


def _watch(pids: Collection[int], interval: float, *, processes: bool) -> int:
    """Print the table every `interval` seconds until Ctrl-C; return the exit status, 0.

    A terminal shows the latest table only; a pipe gets all of them.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # a background job of a script ignores it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            shown = table(look(pids), width=width(), colour=colour(), processes=processes)
            now = dt.datetime.now().astimezone().isoformat(" ", "seconds")
            if width() is None or os.environ.get("TERM", "dumb") == "dumb":
                print_text(f"{now}\n{shown}\n")
            else:
                lines = shown.split("\n")[: max(shutil.get_terminal_size().lines - 3, 1)]
                text = "\n".join((*lines, "", f"{now}, every {interval:g} s; Ctrl-C ends it"))
                print_text(f"{_CLEAR}{text}", end="")
            time.sleep(interval)
    return 0
