"""Which of the processes are vLLM servers, and which belong to them. Pure: nothing is read here.

vLLM gives titles to its workers, which wipes out their arguments and environment. The process that
they all come from has none: that one is the server, and says how it was started.
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
GONE = "gone"  # only the processes of a server are left

_DEPTH = 100  # of a process tree
# Words of commands that are read, in all; a server of flesh and blood has less than a hundred.
_WORDS = 100_000
_RECOGNISED = 64  # bytes that are kept of the commands that are over that
_ANY = Server("", (), (), {}, "")
_ONE_OF_MULTIPROCESSING = "from multiprocessing."  # python -c, spawn and forkserver


class Group(Record):
    """A server and the processes that belong to it."""

    kind: str  # SERVER, PROGRAM, GONE
    head: Process  # the server; where it is gone, the first of the processes that it left
    entry: str  # how it was started, as in command.Server: "vllm serve"; "" if not known
    members: tuple[Process, ...] = ()  # with a title, without zombies
    starters: tuple[Process, ...] = ()  # what waits above the server: `uv run`, `sh -c`

    @property
    def counts(self) -> dict[str, int]:
        roles = [process.title.role for process in self.members if process.title]
        return {role: roles.count(role) for role in ROLES}

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(process.pid for process in (self.head, *self.members, *self.starters))


def affordable(processes: Processes) -> Processes:
    """Return the processes, with those shortened whose commands are too much to read.

    Anyone may start thousands whose commands take long to read: the short ones come first.
    """
    hinted = [process for process in processes.values() if process.hinted]
    shortened, left = {}, _WORDS
    for process in sorted(hinted, key=lambda process: process.cmdline.count(b"\0")):
        left -= process.cmdline.count(b"\0")
        if left < 0:
            shortened[process.pid] = process.shortened(_RECOGNISED)
    return {**processes, **shortened}


def group(processes: Processes) -> list[Group]:
    """Return the servers among all processes of a machine or container, by pid.

    Every process with a title of vLLM's is in one of them.
    """
    titled = {pid: process for pid, process in processes.items() if process.title}
    servers = _servers(processes, titled)
    members: dict[int, list[Process]] = {pid: [] for pid in servers}
    kinds = dict.fromkeys(servers, SERVER)
    left: dict[tuple[int, str], int] = {}  # where servers are gone: the head of each group
    for pid, process in sorted(titled.items()):
        if process.zombie or _is_fork(process, processes):
            continue
        head, kind = _head(process, processes, servers)
        if kind == GONE:
            first = processes[head]
            prefix = first.title.prefix if first.title else ""
            head = left.setdefault((first.group, prefix), head)
        kinds.setdefault(head, kind)
        members.setdefault(head, []).append(titled[pid])
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
    """Return the group that a process is in, or that it comes from; None if it has none."""
    process = processes.get(pid)
    for at in (process, *_ancestors(process, processes)) if process else ():
        for found in groups:
            if at.pid in found.pids and (at is process or at not in found.starters):
                return found
    return None


def _servers(processes: Processes, titled: Processes) -> dict[int, Server]:
    """Return the processes that are a server by their command, each server once.

    One whose command is too large to be read may be any, and is taken for a server.
    """
    found = {}
    for pid, process in processes.items():
        if pid not in titled and process.hinted:
            server = _read(process.command)
            # With something in front of the server, this process is that, not the server.
            if server is not None and server.entry and not server.wrappers:
                found[pid] = server
            elif process.cut:
                found[pid] = _ANY
    forked = {pid for pid in found if processes[pid].parent in found}
    forked = {pid for pid in forked if _is_fork(processes[pid], processes)}
    servers = {pid: server for pid, server in found.items() if pid not in forked}
    for pid, server in list(servers.items()):
        # A script named `vllm` that starts the real one: what it was given, it gives on.
        above = next((a for a in _ancestors(processes[pid], processes) if a.pid in found), None)
        if above is not None and _asks(found[above.pid]) == _asks(server):
            servers.pop(above.pid, None)
    return servers


def _is_shell_string(command: tuple[str, ...]) -> bool:
    """Whether there is a shell with `-c` in it: no server itself, whatever is in its string."""
    first = next((i for i, w in enumerate(command[:16]) if w.rpartition("/")[2] in SHELLS), 16)
    return any(
        word[:1] == "-" and word[1:2] != "-" and "c" in word
        for word in command[first + 1 : first + 8]
    )


@functools.lru_cache(maxsize=8192)
def _read(command: tuple[str, ...]) -> Server | None:
    """Return the server of a command. No string is looked into: this is not a child of ours."""
    return find_server(command, {}, strings=False)


def _asks(server: Server) -> tuple[str, ...]:
    return (server.entry, *server.words)


def _is_fork(process: Process, processes: Processes) -> bool:
    """Whether a process is a copy of its parent that has not said yet what it is."""
    parent = processes.get(process.parent)
    return parent is not None and parent.cmdline == process.cmdline


def _ancestors(process: Process, processes: Processes) -> Iterator[Process]:
    """Yield the parent, its parent and so on.

    Not for ever: /proc was read over a while, and pids may have come round again.
    """
    above = processes.get(process.parent)
    for _ in range(_DEPTH):
        if above is None or above is process:
            return
        yield above
        above = processes.get(above.parent)


def _head(process: Process, processes: Processes, servers: Mapping[int, Server]) -> tuple[int, str]:
    """Return the pid that a process with a title belongs to, and what that is."""
    above = list(_ancestors(process, processes))
    for ancestor in above:
        if ancestor.pid in servers:
            return ancestor.pid, SERVER
    last = process
    for ancestor in above:
        if ancestor.title is None and not _is_helper(ancestor):
            if _may_start_engines(ancestor, last):
                return ancestor.pid, PROGRAM
            break
        last = ancestor
    return last.pid, GONE


def _is_helper(process: Process) -> bool:
    """Whether a process is one that Python's multiprocessing has started for another one."""
    return any(word.startswith(_ONE_OF_MULTIPROCESSING) for word in process.command[1:6])


def _may_start_engines(process: Process, child: Process) -> bool:
    """Whether `child` comes from `process`. Else the kernel gave it to init, or to a reaper.

    A reaper can be any program (PR_SET_CHILD_SUBREAPER), and the kernel does not say which are.
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
    """Yield what has started a server and waits for it."""
    for ancestor in _ancestors(process, processes):
        found = _read(ancestor.command) if ancestor.hinted else None
        starts = found is not None and (found.wrappers or found.entry)
        if not ancestor.hinted or not (starts or _is_shell_string(ancestor.command)):
            return
        yield ancestor
