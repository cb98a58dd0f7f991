"""What the kernel says about processes in /proc, and why it sometimes says nothing.

Facts only; `servers` makes sense of them. A process may end, or become another program, between
any two of these calls.
"""

from __future__ import annotations

import os
import re

import psutil

from eplb_launch.entrypoints import HINTS
from eplb_launch.model import Record, is_python
from eplb_launch.ps.view import GiveUpError, Trouble, View
from eplb_launch.vllm.installed import which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HINTS = tuple(hint.encode() for hint in HINTS)
ROLES = ("EngineCore", "Worker", "APIServer", "DPCoordinator")
# vllm/utils/system_utils.py, set_process_title: "VLLM" is VLLM_PROCESS_NAME_PREFIX, and what
# follows the role are ranks: _DP0_TP1_EP1, _0. Ray has actors that may be named like a role.
_TITLE = re.compile(rf"(?!ray::)(.*)::({'|'.join(ROLES)})((?:_[A-Z]*[0-9]+)*)", re.DOTALL)
_NAME = 15  # bytes that the kernel has for a name (PR_SET_NAME), where setproctitle puts it too
# The start of a title, where it is cut to that.
_CUT_TITLE = re.compile(r"(?!ray::)(.*)::([A-Z][A-Za-z]{4,})", re.DOTALL)
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in include/linux/sched.h
_ZOMBIE = "ZXx"
# A process makes both as large as it likes (PR_SET_MM).
MAX_COMMAND = 256 * 1024
MAX_COMMANDS = 64 * 1024 * 1024  # of all processes
MAX_ENVIRON = 2 * 1024 * 1024
_RECOGNISED = 4096  # bytes that are kept of a command that is larger

DENIED = Trouble(
    "permission-denied",
    "permission denied: only its user and root can read its environment and packages",
)
VANISHED = Trouble("vanished", "it ended while it was looked at")
ZOMBIE = Trouble("zombie", "it has ended, and its parent has not taken notice yet (a zombie)")
CHANGED = Trouble("changed", "it became another program while it was looked at")
OVERWRITTEN = Trouble(
    "environment-overwritten", "it has given itself a title, which overwrites its environment"
)
UNREADABLE = Trouble("unreadable", "the kernel does not let its environment be read")
LONG_COMMAND = Trouble(
    "command-too-large",
    f"its command line is larger than {MAX_COMMAND >> 10} KiB, or one of many that are long: not "
    "read to its end",
)
LONG_ENVIRON = Trouble(
    "environment-too-large",
    f"its environment is larger than {MAX_ENVIRON >> 20} MiB: not read to its end",
)
TIMED_OUT = Trouble(
    "timed-out",
    "the look at it did not come to an end: a file system that hangs, or too much to do",
)


class Title(Record):
    """The title that vLLM gives to a process: "VLLM::Worker_DP0_TP1"."""

    prefix: str
    role: str  # one of ROLES
    text: str


class Process(Record):
    """A process, as anyone may see it."""

    pid: int
    parent: int
    group: int
    session: int
    state: str  # one letter: proc_pid_stat(5)
    ticks: int  # when it started, since the boot: with the pid, this is it and no other
    name: str  # of its program, or the start of its title
    cmdline: bytes  # as it is now: a title, or the arguments
    hinted: bool = False  # its command names something that may start an engine
    cut: bool = False  # its command is too large, and this is only its beginning

    @property
    def zombie(self) -> bool:
        return self.state in _ZOMBIE

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments; for a process that has a title, that and empty strings."""
        words = self.cmdline.split(b"\0")
        return tuple(map(os.fsdecode, words[:-1] if not words[-1] else words))

    def shortened(self, most: int) -> Process:
        """Return it with so many bytes of its command; as it is where it has no more."""
        if len(self.cmdline) <= most:
            return self
        return self.replace(cmdline=self.cmdline[:most], cut=True)

    @property
    def title(self) -> Title | None:
        """The title that vLLM gave to it, if it did."""
        if b"::" not in self.cmdline and "::" not in self.name:
            return None
        text, _, rest = self.cmdline.partition(b"\0")
        if rest.strip(b"\0"):
            return None
        title = os.fsdecode(text)
        found = _TITLE.fullmatch(title)
        if found is None and len(text) < _NAME and self.name.startswith(title):
            # SPT_NOENV leaves no more room for it than the arguments had, a zombie has none.
            title = self.name
            found = _TITLE.fullmatch(title)
            if found is None and len(os.fsencode(title)) == _NAME:
                found = _CUT_TITLE.match(title)
        if found is None:
            return None
        role = next((role for role in ROLES if role.startswith(found[2])), None)
        return Title(found[1], role, title) if role else None


class Facts(Record):
    """What only the owner of a process and root may see of it, and what takes longer to find."""

    trouble: Trouble | None = None  # why it cannot be read; then the rest is what could be read
    user: str | None = None
    started: float | None = None  # since the epoch
    environ: Mapping[str, str] | None = None  # from when its program started; None: not readable
    directory: str | None = None  # as it sees it itself
    program: str = ""  # the file that it executes, as it sees it itself
    program_id: tuple[int, int] | None = None  # its device and inode
    view: View | None = None  # its files, to be entered in a child of ours only


def scan() -> dict[int, Process]:
    """Return all processes by pid, without those of the kernel."""
    found: dict[int, Process] = {}
    room = MAX_COMMANDS
    for pid in psutil.pids():
        process = read(pid)
        if process is not None:
            room -= len(process.cmdline)
            found[pid] = process if room > 0 else process.shortened(_RECOGNISED)
    return found


def read(pid: int) -> Process | None:
    """Return what anyone may see of a process; None if there is none, or if it is the kernel's."""
    try:
        stat = _read(f"/proc/{pid}/stat")
        # The name may hold anything, also blanks and brackets.
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
    return found.shortened(_RECOGNISED) if len(cmdline) > MAX_COMMAND else found


def others_hidden() -> bool:
    """Whether other users' processes are not to be seen (hidepid in proc(5)).

    There is always a process 1, and it is hardly ever ours.
    """
    return read(1) is None


def look_closer(process: Process) -> Facts:
    """Return the facts about a process; what keeps it from being read is one of them."""
    if process.zombie:
        return Facts(trouble=ZOMBIE)
    facts = Facts()
    try:
        known = psutil.Process(process.pid)
        facts = facts.replace(user=known.username(), started=known.create_time())
        if process.cut:
            return facts.replace(trouble=LONG_COMMAND)
        facts = _look_inside(process, facts)
    except GiveUpError as error:
        facts = facts.replace(trouble=error.trouble)
    except PermissionError:
        facts = facts.replace(trouble=DENIED)
    except (OSError, psutil.Error):
        facts = facts.replace(trouble=UNREADABLE)
    # While a process ends, its environment reads as an empty one: look who it is after that.
    now = read(process.pid)
    if now is None or now.zombie or now.ticks != process.ticks or not now.cmdline:
        return facts.replace(trouble=VANISHED, environ=None)
    if now.cmdline != process.cmdline and not process.cut:
        return facts.replace(trouble=CHANGED, environ=None)
    return facts


def _look_inside(process: Process, facts: Facts) -> Facts:
    place = f"/proc/{process.pid}"
    raw = _read(f"{place}/environ", MAX_ENVIRON + 1)
    if process.title or _overwritten(raw):
        return facts.replace(trouble=OVERWRITTEN)
    if len(raw) > MAX_ENVIRON:
        return facts.replace(trouble=LONG_ENVIRON)
    view = View(process.pid)
    directory, program = (view.inside(os.readlink(f"{place}/{name}")) for name in ("cwd", "exe"))
    return facts.replace(
        environ=_environ(raw),
        directory=directory,
        program=program.removesuffix(" (deleted)"),
        program_id=_identity(os.stat, f"{place}/exe"),
        view=view,
    )


def command_of(process: Process, facts: Facts) -> tuple[str, ...]:
    """Return the command of a process, with the interpreter that it really runs in front.

    Its files are looked at, for which its view has to be entered.
    """
    command = process.command
    view = facts.view
    if view is None or not is_python(facts.program):
        return command
    used = is_python(command[0]) and which(command[0], facts.environ or {}, facts.directory, view)
    if used and _identity(view.stat, used) == facts.program_id:
        return command
    return (facts.program, *command[1:])


def _identity(stat: Callable[[str], os.stat_result], path: str) -> tuple[int, int] | None:
    """Return what tells a file from any other; None where there is none."""
    try:
        status = stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _overwritten(raw: bytes) -> bool:
    """Whether an environment has become room for a title.

    Not always all of it: what comes after a variable that the process has changed stays as it was
    (setproctitle, src/spt_status.c), so that some variables are there and others not.
    """
    return bool(raw) and (b"=" not in raw.partition(b"\0")[0] or b"\0\0" in raw)


def _environ(raw: bytes) -> dict[str, str]:
    """Return an environment as getenv(3) reads it: the first of several entries counts."""
    environ: dict[str, str] = {}
    for entry in raw.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals:
            environ.setdefault(os.fsdecode(name), os.fsdecode(value))
    return environ


def _read(path: str, most: int = 1 << 20) -> bytes:
    """Return a file of /proc, or so many bytes of it.

    Twice as fast as open(), which matters for thousands of them.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, min(most, 4096))
        # The kernel may hand out less than was asked for, but nothing only at the end.
        while content and (piece := os.read(descriptor, most - len(content))):
            content += piece
    finally:
        os.close(descriptor)
    return content
