"""Find the vLLM servers among the processes, and the processes of each server. Pure.

vLLM sets titles for its workers, which overwrites their arguments and environment. The process that
they all descend from has no title: it is the server, and its command says how it was started.
"""

from __future__ import annotations

import functools

from eplb_launch.command import find_server
from eplb_launch.command.wrappers import SHELLS
from eplb_launch.model import Record, Server, is_python
from eplb_launch.ps.processes import ROLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.ps.processes import Process

    Processes = Mapping[int, Process]

SERVER = "server"  # started by a vLLM command
PROGRAM = "program"  # another program that has started an engine: a script, a Ray actor
GONE = "gone"  # the server has ended, and its workers still run

_MAX_DEPTH = 100  # of a process tree
_MAX_WORDS = 100_000  # of all commands that are read; a real server has less than a hundred
_CUT_COMMAND = 64  # bytes that are kept of the commands beyond that
_ANY = Server("", (), (), {}, "")
_MULTIPROCESSING = "from multiprocessing."  # python -c: spawn and forkserver


class Group(Record):
    """A server and the processes that belong to it."""

    kind: str  # SERVER, PROGRAM, GONE
    head: Process  # the server; if it is gone, the first process of those that it left
    entry: str  # as in model.Server: "vllm serve"; "" if not known
    members: tuple[Process, ...] = ()  # with a title, without zombies
    starters: tuple[Process, ...] = ()  # the ancestors that wait for it: `uv run`, `sh -c`

    @property
    def counts(self) -> dict[str, int]:
        roles = [process.title.role for process in self.members if process.title]
        return {role: roles.count(role) for role in ROLES}

    @property
    def titles(self) -> dict[int, str]:
        return {process.pid: process.title.text for process in self.members if process.title}

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(process.pid for process in (self.head, *self.members, *self.starters))


def affordable(processes: Processes) -> Processes:
    """Return the processes, and cut the commands that are too much to read.

    Any user may start thousands of processes with long commands: short commands are read first.
    """
    hinted = [process for process in processes.values() if process.hinted]
    cut, left = {}, _MAX_WORDS
    for process in sorted(hinted, key=lambda process: process.cmdline.count(b"\0")):
        left -= process.cmdline.count(b"\0")
        if left < 0:
            cut[process.pid] = process.cut_to(_CUT_COMMAND)
    return {**processes, **cut}


def group(processes: Processes) -> list[Group]:
    """Return the servers among all processes of a machine or container, by pid.

    Every process with a title of vLLM belongs to one of them.
    """
    titled = {pid: process for pid, process in processes.items() if process.title}
    servers = _servers(processes, titled)
    members: dict[int, list[Process]] = {pid: [] for pid in servers}
    kinds = dict.fromkeys(servers, SERVER)
    gone: dict[tuple[int, str], int] = {}  # the head of each group whose server is gone
    for _, process in sorted(titled.items()):
        if process.zombie or _is_fork(process, processes):
            continue
        head, kind = _head(process, processes, servers)
        if kind == GONE:
            first = processes[head]
            prefix = first.title.prefix if first.title else ""
            head = gone.setdefault((first.group, prefix), head)
        kinds.setdefault(head, kind)
        members.setdefault(head, []).append(process)
    return [
        Group(
            kind,
            processes[pid],
            servers[pid].entry if pid in servers else "",
            tuple(members[pid]),
            tuple(_starters(processes[pid], processes)) if kind != GONE else (),
        )
        for pid, kind in sorted(kinds.items())
    ]


def belongs_to(pid: int, groups: list[Group], processes: Processes) -> Group | None:
    """Return the group of a process, or of its nearest ancestor that has one; None if none has."""
    process = processes.get(pid)
    for at in (process, *_ancestors(process, processes)) if process else ():
        for found in groups:
            if at.pid in found.pids and (at is process or at not in found.starters):
                return found
    return None


def _servers(processes: Processes, titled: Processes) -> dict[int, Server]:
    """Return the processes whose command is that of a server, one process for each server.

    A cut command may be that of a server, and counts as one.
    """
    found = {}
    for pid, process in processes.items():
        if pid not in titled and process.hinted:
            server = _read(process.command)
            # With a wrapper in front of the server, this process is the wrapper.
            if server is not None and server.entry and not server.wrappers:
                found[pid] = server
            elif process.cut:
                found[pid] = _ANY
    servers = {
        pid: server
        for pid, server in found.items()
        if processes[pid].parent not in found or not _is_fork(processes[pid], processes)
    }
    for pid, server in list(servers.items()):
        # A script named `vllm` may start the real one, with the arguments that it got.
        above = next((a for a in _ancestors(processes[pid], processes) if a.pid in found), None)
        if above is not None:
            outer = found[above.pid]
            if (outer.entry, outer.words) == (server.entry, server.words):
                servers.pop(above.pid, None)
    return servers


def _is_shell_string(command: tuple[str, ...]) -> bool:
    """Whether a command runs a shell with `-c`, and so is no server."""
    first = next((i for i, w in enumerate(command[:16]) if w.rpartition("/")[2] in SHELLS), 16)
    return any(
        word[:1] == "-" and word[1:2] != "-" and "c" in word
        for word in command[first + 1 : first + 8]
    )


@functools.lru_cache(maxsize=8192)
def _read(command: tuple[str, ...]) -> Server | None:
    """Return the server of a command. Shell strings are not read: that needs a child process."""
    return find_server(command, {}, strings=False)


def _is_fork(process: Process, processes: Processes) -> bool:
    """Whether a process is a copy of its parent that has not set its title yet."""
    parent = processes.get(process.parent)
    return parent is not None and parent.cmdline == process.cmdline


def _ancestors(process: Process, processes: Processes) -> Iterator[Process]:
    """Yield the parent, its parent and so on.

    The depth is bounded: pids may have been reused while /proc was read, and make a circle.
    """
    above = processes.get(process.parent)
    for _ in range(_MAX_DEPTH):
        if above is None or above is process:
            return
        yield above
        above = processes.get(above.parent)


def _head(process: Process, processes: Processes, servers: Mapping[int, Server]) -> tuple[int, str]:
    """Return the head of the group of a process with a title, and the kind of the group."""
    above = list(_ancestors(process, processes))
    for ancestor in above:
        if ancestor.pid in servers:
            return ancestor.pid, SERVER
    last = process
    for ancestor in above:
        # Python's multiprocessing starts helpers between them.
        if ancestor.title is None and not _is_helper(ancestor):
            if _may_start_engines(ancestor, last):
                return ancestor.pid, PROGRAM
            break
        last = ancestor
    return last.pid, GONE


def _is_helper(process: Process) -> bool:
    return any(word.startswith(_MULTIPROCESSING) for word in process.command[1:6])


def _may_start_engines(process: Process, child: Process) -> bool:
    """Whether a process may have started its child. Else the child was orphaned, and adopted.

    init or a reaper adopts it. Any program can be a reaper (PR_SET_CHILD_SUBREAPER), and the kernel
    does not show which programs are.
    """
    if process.ticks > child.ticks or process.session != child.session:
        return False
    name = process.command[0].rpartition("/")[2] if process.cmdline else ""
    if is_python(name) or process.name.startswith("ray::"):
        return True
    # The init of a container is often a shell or the like, in the same session.
    if name in SHELLS or process.pid == 1 or process.parent == 0:
        return False
    command = process.command
    return process.group == child.group and _read(command) is None and not _is_shell_string(command)


def _starters(process: Process, processes: Processes) -> Iterator[Process]:
    """Yield the ancestors that started a server and wait for it."""
    for ancestor in _ancestors(process, processes):
        found = _read(ancestor.command) if ancestor.hinted else None
        starts = found is not None and (found.wrappers or found.entry)
        if not ancestor.hinted or not (starts or _is_shell_string(ancestor.command)):
            return
        yield ancestor
