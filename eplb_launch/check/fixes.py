"""How to put a server right, as text to paste. No argument is repeated: they may hold secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from eplb_launch.assessment import Assessment
from eplb_launch.check import images, launcher
from eplb_launch.check.model import OK_STATES, Fix
from eplb_launch.check.tasks import CapLine, Task
from eplb_launch.entrypoints import VLLM
from eplb_launch.model import UNKNOWN, Server
from eplb_launch.plans import Plan
from eplb_launch.vllm.releases import CAP, VARIABLE

# To set the variable, or to wrap the command, would put these right.
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
# Another value of the variable would put these right.
_WRONG_VALUES = frozenset(("value-not-a-limit", "value-too-high", "value-not-known"))
_ASSIGNED = re.compile(rf"(?<![\w-]){VARIABLE}=[\w\"'+]*")


def ways(task: Task, server: Server, plan: Plan, found: Assessment) -> tuple[Fix, ...]:
    """Return the ways to put a server right, by its assessment; () if there is none."""
    if found.cause in _WRONG_VALUES:
        change = _change(task, plan.current) if plan.current is not None else None
        return (change,) if change is not None else ()
    refused = found.cause == "launcher-misused" and not launcher.lacks_dashes(server.wrappers)
    if found.state in OK_STATES or found.cause not in _FIXABLE or refused:
        return ()
    fixes = _wrap_or_set(task, server, plan.current)
    codes = {warning.code for warning in plan.warnings}
    if images.run_of(server) is not None:
        return fixes
    if "ray-workers" in codes and len(fixes) > 1:
        # The launcher sets the variable for the server, not for workers in other pods.
        return (fixes[1].replace(how=fixes[1].how.removeprefix("or ")),)
    # A wrapper drops the variable, if it is set outside.
    fixes = fixes[:1] if "variable-dropped" in codes else fixes
    return _variable_first(fixes) if task.bare else fixes


def _variable_first(fixes: tuple[Fix, ...]) -> tuple[Fix, ...]:
    """Return the fixes with the variable first: the image has no launcher yet."""
    if len(fixes) < 2:
        return fixes
    wrapped, variable = fixes
    variable = variable.replace(how=variable.how.removeprefix("or "))
    return variable, wrapped.replace(how=f"or {wrapped.how}")


def _wrap_or_set(task: Task, server: Server, current: str | None) -> tuple[Fix, ...]:
    """Return both ways: to wrap the command, and to set the variable, which is `current` there."""
    program = _program(server)
    if launcher.lacks_dashes(server.wrappers):
        return (_dashes(task, server, program),)
    run = images.run_of(server)
    if run is not None:
        started = run.entry or " ".join(program)
        return tuple(_of_run(run, server, started))
    found: list[Fix] = []
    # Without a program, the image's own entry point starts the server.
    if task.place.wraps and (program or not task.only_arguments):
        found.append(_wrapped(task, server, program))
    if task.unset_by:
        return tuple(found)
    variable = _change(task, current)
    if (
        variable is None
        and task.variables.cap_line is None
        and (current is None or task.place.last_wins)
    ):
        variable = _variable(task)
    if variable is not None:
        how = f"or {variable.how}" if found else variable.how
        found.append(variable.replace(how=how))
    return tuple(found)


def _dashes(task: Task, server: Server, program: Sequence[str]) -> Fix:
    if in_shell(task, server):
        return Fix('put "--" before the command', " ".join(["eplb-launch", "--", *program, "…"]))
    return Fix(f"put this word before {' '.join(program) or 'the command'!r}", '"--",')


def in_shell(task: Task, server: Server) -> bool:
    """Whether the words before a server are those of a line, and not of a list."""
    shell = any(wrapper.name == "sh" for wrapper in server.wrappers)
    return shell or task.as_text or task.place.line


def _change(task: Task, current: str | None) -> Fix | None:
    """Return the change of the line that the value is from; None where it is not known."""
    place = (
        task.variables.cap_line
        if task.variables.known.get(VARIABLE) == current
        else _in_words(task)
    )
    if place is None:
        return None
    return Fix(f"change what {place.source.path}:{place.line} says of {VARIABLE}", place.text)


def _in_words(task: Task) -> CapLine | None:
    """Return the one place in a command, or in its script, that sets the variable."""
    found = [(word, match) for word in task.words for match in _ASSIGNED.finditer(word.text)]
    if len(found) != 1:
        return None
    [(word, match)] = found
    line = word.line + word.text.count("\n", 0, match.start()) * word.block
    return CapLine(word.source, line, f"{VARIABLE}={CAP}")


def _wrapped(task: Task, server: Server, program: Sequence[str]) -> Fix:
    start = launcher.words(task, program)
    words = [*start, "--", *program]
    note = launcher.how(task)
    if in_shell(task, server):
        return Fix(f"put eplb-launch directly before the server{note}", " ".join([*words, "…"]))
    two = "".join(f"{json.dumps(word)}, " for word in (*start, "--")).rstrip()
    if not program:
        return Fix(f"put these words before the program{note}", two)
    listed = json.dumps(words)
    if task.own_entry:
        how, form = task.place.own
        return Fix(how + note, form.format(listed))
    if task.only_arguments or not task.place.begins or server.wrappers:
        shown = " ".join(program)
        return Fix(f"put these words before {shown!r}{note}", two)
    begun = task.place.begins.format(f"{listed[:-1]}, …]")
    return Fix(f"let the command begin with eplb-launch{note}", begun)


def _program(server: Server) -> list[str]:
    """Return the words that start a server, up to its first argument; [] if nothing names it."""
    entry = server.entry.split()
    if not entry:
        return []
    known = "" if UNKNOWN in server.program else server.program
    if entry[0] in VLLM and len(entry) > 1:
        name = known.rpartition("/")[2]
        return [known if name in VLLM else entry[0], *entry[1:]]
    return [known or "python3", "-m", *entry]


def _variable(task: Task) -> Fix:
    if task.entry:
        return Fix(f"add {VARIABLE} to the variables that are set there", task.entry)
    return Fix(f"set {VARIABLE} {task.place.where}", task.place.sets)


def _of_run(run: images.Run, server: Server, program: str) -> Iterator[Fix]:
    """Yield what to do to a `docker run`: an option, or the launcher inside the image.

    `program` is what starts the server there, "" if that is not known.
    """
    yield Fix(f"give {run.engine} this option, before the image", f"-e {VARIABLE}={CAP}")
    if program:
        image = run.image or "IMAGE"
        words = (word for wrapper in server.wrappers for word in wrapper.words)
        if not server.entry or any(word.startswith("--entrypoint") for word in words):
            wrapped = f"--entrypoint eplb-launch {image} -- {program} …"
        else:
            wrapped = f"{image} eplb-launch -- {program} …"
        yield Fix("or, with eplb-launch in the image, let it start the server", wrapped)
