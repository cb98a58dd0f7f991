"""The files that another process sees, looked at below its root and with its rights.

A process names files as it likes, and `ps` may be root's. Each look is therefore done as the
process itself would do it: with its groups, its fsgid and its fsuid, and by openat2(2) below its
root, where neither a link nor ".." leads out, whatever is moved meanwhile. Only regular files are
opened, and they are known to be that before. What all looks cost together is counted.

There is no way back from another's rights: `enter` is for a child of ours (`apart`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat

from eplb_launch.deepep.gpus import DRIVER
from eplb_launch.files import Files, NotRegularError, is_regular, read_all
from eplb_launch.model import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/openat2.h and asm-generic/unistd.h; Linux 5.6.
_OPENAT2 = 437
_IN_ROOT = 0x10
_NO_MAGICLINKS = 0x02
_TRIES = 8  # openat2(2): EAGAIN where something was renamed under a path with ".."

# What one process may cost: looks at a path, and what is read in units of that. A server of flesh
# and blood takes some hundred.
BUDGET = 5000
_LETTERS = 128  # of a path
_ENTRIES = 32  # of a directory
_BYTES = 4096  # of a file

_DAC = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: linux/capability.h


class Trouble(Record):
    """Why a process, or its files, cannot be looked at."""

    cause: str  # stable, for programs
    reason: str


TOO_MUCH = Trouble(
    "too-much-to-read", "it names more files, or larger ones, than are looked at for one process"
)
NOT_SAFE = Trouble(
    "files-not-readable-safely",
    "its files cannot be looked at with its own rights and below its own root here, which takes "
    "openat2(2) of Linux 5.6",
)


SETUID = Trouble(
    NOT_SAFE.cause,
    "its program is setuid, or it has several users: who has chosen the files that it names may "
    "have fewer rights",
)


class GiveUpError(Exception):
    """The files are not looked at any more. No OSError: it does not mean that one is missing."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.cause)
        self.trouble = trouble


class Rights(Record):
    """As whom the kernel lets a process look at files: proc_pid_status(5)."""

    user: int
    group: int
    groups: frozenset[int]
    capabilities: int = 0
    mixed: bool = False  # it has several users or groups: real, effective, saved


def rights_of(pid: int | str) -> Rights:
    with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        lines = read_all(file.fileno(), 1 << 20).split(b"\n")
    fields = {name: rest.split() for name, _, rest in (line.partition(b":") for line in lines)}
    return Rights(
        int(fields[b"Uid"][3]),
        int(fields[b"Gid"][3]),
        frozenset(map(int, fields[b"Groups"])),
        int(fields[b"CapEff"][0], 16),
        len({*fields[b"Uid"]}) > 1 or len({*fields[b"Gid"]}) > 1,
    )


class View(Files):
    """The files of a process. Whatever it may not look at itself is an OSError."""

    def __init__(self, pid: int) -> None:
        """Take hold of its root, with our own rights; OSError where we may not.

        GiveUpError for a setuid program: another user has chosen its arguments.
        """
        place = f"/proc/{pid}"
        self.left = BUDGET
        self.rights = rights_of(pid)
        if self.rights.mixed or os.stat(f"{place}/exe").st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise GiveUpError(SETUID)
        self.above = os.readlink(f"{place}/root")  # as seen from our root
        self._root = os.open(f"{place}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        same_mounts = _namespace(pid, "mnt") == _namespace("self", "mnt")
        self._ours = same_mounts and os.path.samestat(os.fstat(self._root), os.stat("/"))
        # In another user namespace users have other numbers.
        same_users = _namespace(pid, "user") == _namespace("self", "user")
        self._user = self.rights.user if same_users else None
        self._entered = False

    def enter(self) -> None:
        """Become as little as the process is, for good; GiveUpError where that fails."""
        _become(self.rights)
        self._entered = True

    def inside(self, link: str) -> str:
        """Return what a link of /proc leads to as the process sees it.

        From our root, it leads to a process's directory by way of the root of that process.
        """
        above = self.above
        return link[len(above) :] if above != "/" and link.startswith(f"{above}/") else link

    def read(self, path: str, most: int) -> bytes:
        with self._found(path) as found:
            status = os.fstat(found)
            if not is_regular(status.st_mode):
                raise NotRegularError(path)
            # Files of /proc and /sys have no size; to read others of them may wait or do something.
            if not status.st_size and not path.startswith(f"{DRIVER}/"):
                return b""
            opened = os.open(f"/proc/self/fd/{found}", _FLAGS)
        try:
            content = read_all(opened, most)
        finally:
            os.close(opened)
        self._spend(len(content) // _BYTES)
        return content

    def names(self, path: str) -> list[str]:
        names = []
        with self._found(path) as found, os.scandir(f"/proc/self/fd/{found}") as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) % _ENTRIES == 0:
                    self._spend(1)
        return names

    def stat(self, path: str) -> os.stat_result:
        with self._found(path) as found:
            return os.fstat(found)

    def real(self, path: str) -> str:
        """Return a path without symbolic links; as it is where it leads nowhere."""
        try:
            with self._found(path) as found:
                return self.inside(os.readlink(f"/proc/self/fd/{found}"))
        except OSError:
            return path

    def user(self) -> int | None:
        """Return its user, as it knows it itself; None: not known."""
        return self._user

    def runs(self, path: str) -> bool:
        try:
            status = self.stat(path)
        except OSError:
            return False
        rights = self.rights
        group = 0o010 if status.st_gid in {rights.group, *rights.groups} else 0o001
        may = 0o111 if rights.user == 0 else 0o100 if rights.user == status.st_uid else group
        return is_regular(status.st_mode) and bool(status.st_mode & may)

    def _spend(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise GiveUpError(TOO_MUCH)

    @contextlib.contextmanager
    def _found(self, path: str) -> Iterator[int]:
        """Give a descriptor of what a path leads to, which is not opened by that (O_PATH)."""
        descriptor = self._find(path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _find(self, path: str) -> int:
        if not self._entered:
            raise GiveUpError(NOT_SAFE)
        self._spend(1 + len(path) // _LETTERS)
        try:
            name = os.fsencode(path)
        except ValueError:
            name = b"\0"
        if b"\0" in name:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        try:
            return _openat2(self._root, name)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
        # An older kernel, or a container that forbids it.
        if not self._ours:
            raise GiveUpError(NOT_SAFE)
        return os.open(b"/" + name, os.O_PATH | os.O_CLOEXEC)


_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _How(ctypes.Structure):
    """open_how of linux/openat2.h."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_HOW = _How(os.O_PATH | os.O_CLOEXEC, 0, _IN_ROOT | _NO_MAGICLINKS)


def _openat2(root: int, name: bytes) -> int:
    for _ in range(_TRIES):
        found: int = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_long(root),
            ctypes.c_char_p(name),
            ctypes.byref(_HOW),
            ctypes.c_size_t(ctypes.sizeof(_HOW)),
        )
        if found >= 0:
            return found
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number))


def _become(wanted: Rights) -> None:
    """Take over the rights to files of another process: groups, fsgid, fsuid, in this order.

    setfsuid(2) reports no error, so that /proc has to say what has come of it. It takes away from
    root the capabilities that go around permissions, and leaves the one to look into /proc/PID.
    """
    now = rights_of("self")
    if _same(now, wanted):
        return
    if len(os.listdir("/proc/self/task")) != 1:
        raise GiveUpError(NOT_SAFE)  # each thread has rights of its own
    try:
        os.setgroups(sorted(wanted.groups))
    except PermissionError:
        # Not root. What is the same user's can be read anyway.
        if now.user != wanted.user:
            raise GiveUpError(NOT_SAFE) from None
        return
    _libc.setfsgid(ctypes.c_uint(wanted.group))
    _libc.setfsuid(ctypes.c_uint(wanted.user))
    now = rights_of("self")
    if not _same(now, wanted) or (wanted.user and now.capabilities & _DAC):
        raise GiveUpError(NOT_SAFE)


def _same(one: Rights, other: Rights) -> bool:
    return (one.user, one.group, one.groups) == (other.user, other.group, other.groups)


def _namespace(pid: int | str, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except FileNotFoundError:  # a kernel without them, or one that does not show them
        return ""
