"""What /proc says about processes, and why it sometimes says nothing.

Facts only; `servers` interprets them. A process may end, or become another program, between any two
of these calls.
"""

from __future__ import annotations

import os
import re

import psutil

from eplb_launch.entrypoints import HINTS
from eplb_launch.model import Record, is_python
from eplb_launch.ps.view import GiveUpError, View, unknown
from eplb_launch.vllm.installed import Lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eplb_launch.assessment import Assessment

_HINTS = tuple(hint.encode() for hint in HINTS)
ROLES = ("EngineCore", "Worker", "APIServer", "DPCoordinator")
# vllm/utils/system_utils.py, set_process_title: "VLLM" is VLLM_PROCESS_NAME_PREFIX, and the ranks
# follow the role: _DP0_TP1_EP1, _0. Ray has actors whose names may look like a role.
_TITLE = re.compile(rf"(?!ray::)(.*)::({'|'.join(ROLES)})((?:_[A-Z]*[0-9]+)*)", re.DOTALL)
_NAME_BYTES = 15  # of a process name (PR_SET_NAME); setproctitle writes the title there too
_CUT_TITLE = re.compile(r"(?!ray::)(.*)::([A-Z][A-Za-z]{4,})", re.DOTALL)  # cut to a name
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in include/linux/sched.h
_ZOMBIE = "ZXx"
# A process can make its command and its environment as large as it likes (PR_SET_MM).
MAX_COMMAND = 256 * 1024
MAX_COMMANDS = 64 * 1024 * 1024  # bytes of the commands of all processes
MAX_ENVIRON = 2 * 1024 * 1024
_CUT_COMMAND = 4096  # bytes that are kept of a larger command

DENIED = unknown(
    "permission-denied",
    "permission denied: only its user and root can read its environment and packages",
)
VANISHED = unknown("vanished", "it ended while ps read it")
ZOMBIE = unknown("zombie", "it has ended, and its parent has not waited for it (a zombie)")
CHANGED = unknown("changed", "it became another program while ps read it")
OVERWRITTEN = unknown(
    "environment-overwritten", "it set its title, which overwrites its environment"
)
UNREADABLE = unknown("unreadable", "the kernel does not let ps read its environment")
LONG_COMMAND = unknown(
    "command-too-large",
    f"ps did not read its whole command: it is larger than {MAX_COMMAND >> 10} KiB, or there are "
    "many long commands",
)
LONG_ENVIRON = unknown(
    "environment-too-large",
    f"ps did not read its whole environment: it is larger than {MAX_ENVIRON >> 20} MiB",
)
TIMED_OUT = unknown(
    "timed-out", "ps did not finish reading it: a file system hangs, or there is too much to do"
)


class Title(Record):
    """The title that vLLM sets for a process: "VLLM::Worker_DP0_TP1"."""

    prefix: str
    role: str  # one of ROLES
    text: str


class Process(Record):
    """A process, as every user may see it."""

    pid: int
    parent: int
    group: int
    session: int
    state: str  # one letter: proc_pid_stat(5)
    ticks: int  # its start, since the boot; pid and ticks identify a process
    name: str  # of its program, or the start of its title
    cmdline: bytes  # now: the arguments, or a title
    hinted: bool = False  # its command names something that may start an engine
    cut: bool = False  # its command is too large, and `cmdline` is the start of it

    @property
    def zombie(self) -> bool:
        return self.state in _ZOMBIE

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments; for a process with a title, the title and empty strings."""
        words = self.cmdline.split(b"\0")
        return tuple(map(os.fsdecode, words[:-1] if not words[-1] else words))

    def cut_to(self, most: int) -> Process:
        """Return the process with at most so many bytes of its command."""
        if len(self.cmdline) <= most:
            return self
        return self.replace(cmdline=self.cmdline[:most], cut=True)

    @property
    def title(self) -> Title | None:
        """The title that vLLM has set for it, if any."""
        if b"::" not in self.cmdline and "::" not in self.name:
            return None
        text, _, rest = self.cmdline.partition(b"\0")
        if rest.strip(b"\0"):
            return None
        title = os.fsdecode(text)
        found = _TITLE.fullmatch(title)
        if found is None and len(text) < _NAME_BYTES and self.name.startswith(title):
            # With SPT_NOENV a title has no more room than the arguments; a zombie has no arguments.
            title = self.name
            found = _TITLE.fullmatch(title)
            if found is None and len(os.fsencode(title)) == _NAME_BYTES:
                found = _CUT_TITLE.match(title)
        if found is None:
            return None
        role = next((role for role in ROLES if role.startswith(found[2])), None)
        return Title(found[1], role, title) if role else None


class Facts(Record):
    """What only root and the user of a process may read of it."""

    trouble: Assessment | None = None  # why something could not be read
    user: str | None = None
    started: float | None = None  # since the epoch
    environ: Mapping[str, str] | None = None  # from the start of its program; None: not readable
    directory: str | None = None  # as it sees it
    program: str = ""  # the file that it executes, as it sees it
    program_id: tuple[int, int] | None = None  # device and inode of that file
    view: View | None = None  # its files; only a child process may take its rights


def scan() -> dict[int, Process]:
    """Return all processes by pid, without kernel threads."""
    found: dict[int, Process] = {}
    left = MAX_COMMANDS
    for pid in psutil.pids():
        process = read(pid)
        if process is not None:
            left -= len(process.cmdline)
            found[pid] = process if left > 0 else process.cut_to(_CUT_COMMAND)
    return found


def read(pid: int) -> Process | None:
    """Return what every user may see of a process; None if it is a kernel thread, or gone."""
    try:
        stat = _read(f"/proc/{pid}/stat")
        # The name may contain anything, blanks and brackets included.
        head, _, tail = stat.rpartition(b") ")
        fields = tail.split()
        state = fields[0].decode()
        if int(fields[6]) & _KERNEL_THREAD:
            return None
        cmdline = b"" if state in _ZOMBIE else _read(f"/proc/{pid}/cmdline", MAX_COMMAND + 1)
    except (OSError, IndexError):
        return None
    parent, group, session = map(int, fields[1:4])
    name = os.fsdecode(head.partition(b"(")[2])
    hinted = any(hint in cmdline for hint in _HINTS)
    found = Process(pid, parent, group, session, state, int(fields[19]), name, cmdline, hinted)
    return found.cut_to(_CUT_COMMAND) if len(cmdline) > MAX_COMMAND else found


def others_hidden() -> bool:
    """Whether other users' processes are hidden (hidepid in proc(5)).

    Process 1 always exists, and hardly ever belongs to our user.
    """
    return read(1) is None


def facts_of(process: Process) -> Facts:
    """Return the facts about a process; whatever cannot be read is a `trouble`."""
    if process.zombie:
        return Facts(trouble=ZOMBIE)
    facts = Facts()
    try:
        known = psutil.Process(process.pid)
        facts = facts.replace(user=known.username(), started=known.create_time())
        if process.cut:
            return facts.replace(trouble=LONG_COMMAND)
        facts = _with_environ(process, facts)
    except GiveUpError as error:
        facts = facts.replace(trouble=error.trouble)
    except PermissionError:
        facts = facts.replace(trouble=DENIED)
    except (OSError, psutil.Error):
        facts = facts.replace(trouble=UNREADABLE)
    # The environment of a process that is ending reads as empty: check afterwards who it is.
    now = read(process.pid)
    if now is None or now.zombie or now.ticks != process.ticks or not now.cmdline:
        return facts.replace(trouble=VANISHED, environ=None)
    if now.cmdline != process.cmdline:
        return facts.replace(trouble=CHANGED, environ=None)
    return facts


def _with_environ(process: Process, facts: Facts) -> Facts:
    proc = f"/proc/{process.pid}"
    raw = _read(f"{proc}/environ", MAX_ENVIRON + 1)
    if process.title or _overwritten(raw):
        return facts.replace(trouble=OVERWRITTEN)
    if len(raw) > MAX_ENVIRON:
        return facts.replace(trouble=LONG_ENVIRON)
    view = View(process.pid)
    directory, program = (view.inside(os.readlink(f"{proc}/{name}")) for name in ("cwd", "exe"))
    return facts.replace(
        environ=_environ(raw),
        directory=directory,
        program=program.removesuffix(" (deleted)"),
        program_id=_identity(os.stat, f"{proc}/exe"),
        view=view,
    )


def command_of(process: Process, facts: Facts) -> tuple[str, ...]:
    """Return the command of a process, with the interpreter that it really runs as its program.

    This reads files of the process: its view needs to have its rights.
    """
    command = process.command
    view = facts.view
    if view is None or not is_python(facts.program):
        return command
    lookup = Lookup(facts.environ or {}, facts.directory, view)
    used = is_python(command[0]) and lookup.which(command[0])
    if used and _identity(view.stat, used) == facts.program_id:
        return command
    return (facts.program, *command[1:])


def _identity(stat: Callable[[str], os.stat_result], path: str) -> tuple[int, int] | None:
    """Return the device and inode of a file; None if there is none."""
    try:
        status = stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _overwritten(raw: bytes) -> bool:
    """Whether a title has overwritten an environment.

    Some variables may be left: setproctitle (src/spt_status.c) stops before those that follow a
    variable that the process has changed.
    """
    return bool(raw) and (b"=" not in raw.partition(b"\0")[0] or b"\0\0" in raw)


def _environ(raw: bytes) -> dict[str, str]:
    """Return an environment as getenv(3) reads it: of equal names the first one counts."""
    environ: dict[str, str] = {}
    for entry in raw.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals:
            environ.setdefault(os.fsdecode(name), os.fsdecode(value))
    return environ


def _read(path: str, most: int = 1 << 20) -> bytes:
    """Return at most so many bytes of a file of /proc.

    os.open is twice as fast as open(), which matters for thousands of files.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, min(most, 4096))
        # The kernel may return less than was asked for, but nothing only at the end.
        while content and (piece := os.read(descriptor, most - len(content))):
            content += piece
    finally:
        os.close(descriptor)
    return content
