"""Fixes of a server, as text to paste. They repeat no argument: it may be a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from eplb_launch.assessment import Assessment
from eplb_launch.check import images, launcher
from eplb_launch.check.model import OK_STATES, Fix
from eplb_launch.check.tasks import CapLine, Task
from eplb_launch.entrypoints import VLLM
from eplb_launch.model import UNKNOWN, Server
from eplb_launch.plans import Plan
from eplb_launch.vllm.releases import CAP, VARIABLE

# Causes that the launcher, or the variable, fixes.
_FIXABLE = frozenset(
    (
        "no-limit",
        "settings-not-known",
        "release-not-known",
        "environment-not-read",
        "command-not-understood",
        "config-not-read",
        "launcher-misused",
    )
)
# Causes that another value of the variable fixes.
_WRONG_VALUES = frozenset(("value-not-a-limit", "value-too-high", "value-not-known"))
_ASSIGNED = re.compile(rf"(?<![\w-]){VARIABLE}=[\w\"'+]*")


def fixes_of(task: Task, server: Server, plan: Plan, found: Assessment) -> tuple[Fix, ...]:
    """Return the fixes of a server, the best first; () if there is none."""
    if found.cause in _WRONG_VALUES:
        change = _change(task, plan.current) if plan.current is not None else None
        return (change,) if change is not None else ()
    lacks_dashes = launcher.lacks_dashes(server.wrappers)
    refused = found.cause == "launcher-misused" and not lacks_dashes
    if found.state in OK_STATES or found.cause not in _FIXABLE or refused:
        return ()
    program = _program(server)
    run = images.run_of(server)
    if lacks_dashes:
        fixes = [_add_dashes(task, server, program)]
    elif run is not None:
        fixes = _change_run(run, server, program)
    else:
        both = (_wrap(task, server, program), _set(task, plan.current))
        fixes = [fix for fix in both if fix is not None]
        codes = {warning.code for warning in plan.warnings}
        if "ray-workers" in codes:
            fixes = fixes[-1:]  # the launcher does not reach workers in other pods
        elif "variable-dropped" in codes:
            fixes = fixes[:1]  # a wrapper does not hand the variable on
        elif task.bare:
            fixes.reverse()  # the image does not contain the launcher yet
    return (*fixes[:1], *(fix.replace(how=f"or {fix.how}") for fix in fixes[1:]))


def _add_dashes(task: Task, server: Server, program: Sequence[str]) -> Fix:
    if _is_line(task, server):
        return Fix('put "--" before the command', " ".join(["eplb-launch", "--", *program, "…"]))
    return Fix(f"put this word before {' '.join(program) or 'the command'!r}", '"--",')


def _is_line(task: Task, server: Server) -> bool:
    """Whether the command of a server is a line, and not a list of words."""
    in_shell = any(wrapper.name == "sh" for wrapper in server.wrappers)
    return in_shell or task.as_text or task.fix_style.line


def _change(task: Task, current: str | None) -> Fix | None:
    """Return the change of the line that sets the variable; None if the line is not known."""
    from_file = task.variables.known.get(VARIABLE) == current
    place = task.variables.cap_line if from_file else _line_in_words(task)
    if place is None:
        return None
    return Fix(f"change {VARIABLE} in {place.source.path}:{place.line}", place.text)


def _line_in_words(task: Task) -> CapLine | None:
    """Return the only line in a command or its script that sets the variable."""
    found = [(word, match) for word in task.words for match in _ASSIGNED.finditer(word.text)]
    if len(found) != 1:
        return None
    [(word, match)] = found
    line = word.line + word.text.count("\n", 0, match.start()) * word.block
    return CapLine(word.source, line, f"{VARIABLE}={CAP}")


def _set(task: Task, current: str | None) -> Fix | None:
    """Return how to set the variable, which has the value `current`; None if nothing can."""
    if task.unset_by:
        return None
    change = _change(task, current)
    hidden = current is not None and not task.fix_style.last_wins  # the other line would win
    if change is not None or task.variables.cap_line is not None or hidden:
        return change
    if task.entry:
        return Fix(f"add {VARIABLE} to the variables that are set there", task.entry)
    return Fix(f"set {VARIABLE} {task.fix_style.where}", task.fix_style.sets)


def _wrap(task: Task, server: Server, program: Sequence[str]) -> Fix | None:
    """Return how to start a server with the launcher; None if that is not possible."""
    if not task.fix_style.wraps or (not program and task.only_arguments):
        return None
    start = launcher.words(task, program)
    words = [*start, "--", *program]
    note = launcher.how(task)
    if _is_line(task, server):
        return Fix(f"put eplb-launch directly before the server{note}", " ".join([*words, "…"]))
    before = "".join(f"{json.dumps(word)}, " for word in (*start, "--")).rstrip()
    if not program:
        return Fix(f"put these words before the program{note}", before)
    if task.own_entry:
        how, form = task.fix_style.own
        return Fix(how + note, form.format(json.dumps(words)))
    if task.only_arguments or not task.fix_style.begins or server.wrappers:
        return Fix(f"put these words before {' '.join(program)!r}{note}", before)
    begin = task.fix_style.begins.format(f"{json.dumps(words)[:-1]}, …]")
    return Fix(f"start the command with eplb-launch{note}", begin)


def _program(server: Server) -> list[str]:
    """Return the words of a server before its first argument; [] if no entry point is known."""
    entry = server.entry.split()
    if not entry:
        return []
    known = "" if UNKNOWN in server.program else server.program
    if entry[0] in VLLM and len(entry) > 1:
        name = known.rpartition("/")[2]
        return [known if name in VLLM else entry[0], *entry[1:]]
    return [known or "python3", "-m", *entry]


def _change_run(run: images.Run, server: Server, program: Sequence[str]) -> list[Fix]:
    """Return the changes of a `docker run` command: an option, or the launcher in the image."""
    fixes = [Fix(f"give {run.engine} this option, before the image", f"-e {VARIABLE}={CAP}")]
    started = run.entry or " ".join(program)
    if started:
        image = run.image or "IMAGE"
        words = (word for wrapper in server.wrappers for word in wrapper.words)
        if not server.entry or any(word.startswith("--entrypoint") for word in words):
            text = f"--entrypoint eplb-launch {image} -- {started} …"
        else:
            text = f"{image} eplb-launch -- {started} …"
        fixes.append(Fix("start the server with eplb-launch, which has to be in the image", text))
    return fixes
