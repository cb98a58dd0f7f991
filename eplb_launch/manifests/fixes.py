"""How to put a server right, as text to paste. No argument is repeated: they may hold secrets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from eplb_launch.command import UNKNOWN
from eplb_launch.export import FORMATS
from eplb_launch.manifests import engines
from eplb_launch.manifests.tasks import COMPOSE, DOCKERFILE, KUBERNETES, SCRIPT, SYSTEMD
from eplb_launch.manifests.verdicts import lacks_dashes
from eplb_launch.record import Record
from eplb_launch.releases import CAP, VARIABLE

if TYPE_CHECKING:
    from eplb_launch.command import Server
    from eplb_launch.manifests.tasks import Task

_VALUES = {VARIABLE: str(CAP)}


class Fix(Record):
    """One way to put a server right."""

    how: str  # what to do with the text
    text: str


def fix(task: Task, server: Server) -> tuple[Fix, ...]:
    """Return the ways: to wrap the command, and to set the variable."""
    if lacks_dashes(server.prefixes):
        return (_dashes(task, server),)
    run = engines.run_of(server)
    if run is not None:
        program = run.entry or " ".join(_program(server))
        return tuple(Fix(how, text) for how, text in engines.fixes(run, server, program))
    if task.takes_away:
        return (_wrapped(task, server),)
    return (_wrapped(task, server), _variable(task))


def _dashes(task: Task, server: Server) -> Fix:
    program = _program(server)
    if in_shell(task, server):
        return Fix('put "--" before the command', " ".join(["eplb-launch", "--", *program, "…"]))
    return Fix(f"put this word before {' '.join(program)!r}", '"--",')


def in_shell(task: Task, server: Server) -> bool:
    """Whether the words before a server are those of a line, and not of a list."""
    shell = any(prefix.name == "sh" for prefix in server.prefixes)
    return shell or task.place in (SCRIPT, SYSTEMD)


def _wrapped(task: Task, server: Server) -> Fix:
    program = _program(server)
    words = ["eplb-launch", "--", *program]
    if in_shell(task, server):
        text = " ".join([*words, "…"] if server.entry else words)
        return Fix("put eplb-launch directly before the server", text)
    if not task.own_entry and server.prefixes:
        shown = " ".join(program)
        return Fix(f"put these two words before {shown!r}", '"eplb-launch", "--",')
    listed = json.dumps(words)
    if task.place == DOCKERFILE:
        return Fix("let the image start it with eplb-launch", f"ENTRYPOINT {listed}")
    key = "entrypoint" if task.place == COMPOSE else "command"
    if task.own_entry:
        return Fix("give the container a command that starts with eplb-launch", f"{key}: {listed}")
    return Fix("let the command begin with eplb-launch", f"{key}: {listed[:-1]}, …]")


def _program(server: Server) -> list[str]:
    """Return the words that start a server, up to its first argument."""
    entry = server.entry.split()
    if not entry:
        return ["…"]
    if entry[0] in ("vllm", "vllm-omni") and len(entry) > 1:
        name = server.program.rpartition("/")[2]
        own = name in ("vllm", "vllm-omni") and UNKNOWN not in server.program
        return [server.program if own else entry[0], *entry[1:]]
    known = server.program and UNKNOWN not in server.program
    return [server.program if known else "python3", "-m", *entry]


def _variable(task: Task) -> Fix:
    how = f"or set {VARIABLE}"
    if task.place == KUBERNETES:
        return Fix(f"{how} in the container", FORMATS["kubernetes"](_VALUES).rstrip("\n"))
    if task.place == COMPOSE:
        return Fix(f"{how} in the service", f'environment:\n  {VARIABLE}: "{CAP}"')
    if task.place == DOCKERFILE:
        return Fix(f"{how} in the image", f"ENV {VARIABLE}={CAP}")
    if task.place == SYSTEMD:
        return Fix(f"{how} in a drop-in", FORMATS["systemd"](_VALUES).rstrip("\n"))
    return Fix(f"{how} before it", FORMATS["shell"](_VALUES).rstrip("\n"))
