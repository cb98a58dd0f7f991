"""The files that another process sees, read below its root and with its rights.

A process can name any file, and `ps` may run as root. So each file is looked up as the process
itself would do it: with its groups, its fsgid and its fsuid, and by openat2(2) below its root,
which neither a symbolic link nor ".." can leave. Only regular files are opened, and the type is
checked before that. The cost of all look-ups is counted.

Rights that were given up do not come back: `take_rights` is for a child process (`children`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct

from eplb_launch.assessment import UNKNOWN, Assessment
from eplb_launch.deepep.gpus import DRIVER
from eplb_launch.files import Files, NotRegularError, is_regular, read_all
from eplb_launch.model import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/openat2.h and asm-generic/unistd.h; Linux 5.6.
_OPENAT2 = 437
_RESOLVE_IN_ROOT = 0x10
_RESOLVE_NO_MAGICLINKS = 0x02
_TRIES = 8  # openat2(2): EAGAIN where something was renamed under a path with ".."

# The units of work that one process may cost. A real server costs some hundred.
BUDGET = 5000
# What one unit pays for, besides a look-up.
_PATH_BYTES = 128
_FOLDER_ENTRIES = 32
_FILE_BYTES = 4096

_DAC = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: linux/capability.h
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def unknown(cause: str, reason: str) -> Assessment:
    """Return the assessment of a server that cannot be read."""
    return Assessment(UNKNOWN, cause, reason)


TOO_MUCH = unknown(
    "too-much-to-read", "it names more files, or larger files, than ps reads for one process"
)
NOT_SAFE = unknown(
    "files-not-readable-safely",
    "ps cannot read its files with its rights and below its root on this machine: that takes "
    "openat2(2) of Linux 5.6",
)
SETUID = unknown(
    NOT_SAFE.cause,
    "its program is setuid, or it has several users: a user with fewer rights may have chosen the "
    "files that it names",
)


class GiveUpError(Exception):
    """The files of a process are not read any further.

    It is no OSError, which would mean that one file is missing.
    """

    def __init__(self, trouble: Assessment) -> None:
        super().__init__(trouble.cause)
        self.trouble = trouble


class Rights(Record):
    """The rights to files that a process has: proc_pid_status(5)."""

    user: int
    group: int
    groups: frozenset[int]
    capabilities: int = 0
    mixed: bool = False  # its real, effective and saved users or groups differ

    @property
    def ids(self) -> tuple[int, int, frozenset[int]]:
        return self.user, self.group, self.groups


def rights_of(pid: int | str) -> Rights:
    with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        lines = read_all(file.fileno(), 1 << 20).split(b"\n")
    fields = {name: rest.split() for name, _, rest in (line.partition(b":") for line in lines)}
    users, groups = fields[b"Uid"], fields[b"Gid"]
    return Rights(
        int(users[3]),
        int(groups[3]),
        frozenset(map(int, fields[b"Groups"])),
        int(fields[b"CapEff"][0], 16),
        mixed=len({*users}) > 1 or len({*groups}) > 1,
    )


class View(Files):
    """The files of a process. A file that the process may not read is an OSError."""

    def __init__(self, pid: int) -> None:
        """Open the root of a process with our own rights; OSError if we may not.

        GiveUpError for a setuid program: another user has chosen its arguments.
        """
        proc = f"/proc/{pid}"
        self.left = BUDGET
        self.rights = rights_of(pid)
        if self.rights.mixed or os.stat(f"{proc}/exe").st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise GiveUpError(SETUID)
        self.root = os.readlink(f"{proc}/root")  # as seen from our root
        self._root_fd = os.open(f"{proc}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        same_root = os.path.samestat(os.fstat(self._root_fd), os.stat("/"))
        self._has_our_root = same_root and _same_namespace(pid, "mnt")
        # Another user namespace gives users other numbers.
        self._user = self.rights.user if _same_namespace(pid, "user") else None
        self._has_rights = False

    def take_rights(self) -> None:
        """Give this process the rights of the other one for good; GiveUpError if that fails."""
        _become(self.rights)
        self._has_rights = True

    def inside(self, link: str) -> str:
        """Return the target of a link in /proc/PID as the process sees it.

        The kernel puts the root of the process before it.
        """
        root = self.root
        return link[len(root) :] if root != "/" and link.startswith(f"{root}/") else link

    def read(self, path: str, most: int) -> bytes:
        with self._path(path) as found:
            status = os.fstat(found)
            if not is_regular(status.st_mode):
                raise NotRegularError(path)
            # Files of /proc and /sys have no size, and to read some of them has effects.
            if not status.st_size and not path.startswith(f"{DRIVER}/"):
                return b""
            opened = os.open(f"/proc/self/fd/{found}", _READ)
        try:
            content = read_all(opened, most)
        finally:
            os.close(opened)
        self._spend(len(content) // _FILE_BYTES)
        return content

    def names(self, path: str) -> list[str]:
        names = []
        with self._path(path) as found, os.scandir(f"/proc/self/fd/{found}") as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) % _FOLDER_ENTRIES == 0:
                    self._spend(1)
        return names

    def stat(self, path: str) -> os.stat_result:
        with self._path(path) as found:
            return os.fstat(found)

    def real(self, path: str) -> str:
        try:
            with self._path(path) as found:
                return self.inside(os.readlink(f"/proc/self/fd/{found}"))
        except OSError:
            return path

    def user(self) -> int | None:
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
    def _path(self, path: str) -> Iterator[int]:
        """Give a descriptor that names a file without opening it (O_PATH)."""
        if not self._has_rights:
            raise GiveUpError(NOT_SAFE)
        self._spend(1 + len(path) // _PATH_BYTES)
        try:
            name = os.fsencode(path)
        except ValueError:
            name = b"\0"
        if b"\0" in name:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        descriptor = self._resolve(name)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _resolve(self, name: bytes) -> int:
        try:
            return _openat2(self._root_fd, name)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
        # The kernel is older, or the container forbids the call.
        if not self._has_our_root:
            raise GiveUpError(NOT_SAFE)
        return os.open(b"/" + name, os.O_PATH | os.O_CLOEXEC)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


# open_how of linux/openat2.h: flags, mode, resolve.
_HOW = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)


def _openat2(root: int, name: bytes) -> int:
    for _ in range(_TRIES):
        found: int = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_long(root),
            ctypes.c_char_p(name),
            ctypes.c_char_p(_HOW),
            ctypes.c_size_t(len(_HOW)),
        )
        if found >= 0:
            return found
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number))


def _become(wanted: Rights) -> None:
    """Take the rights to files of another process: groups, fsgid and fsuid, in this order.

    setfsuid(2) reports no error, so /proc is asked whether it worked. The call takes root's
    capabilities to ignore permissions, and leaves the capability to read /proc/PID.
    """
    now = rights_of("self")
    if now.ids == wanted.ids:
        return
    if len(os.listdir("/proc/self/task")) != 1:
        raise GiveUpError(NOT_SAFE)  # each thread has rights of its own
    try:
        os.setgroups(sorted(wanted.groups))
    except PermissionError:
        # We are not root. We may read the files of our own user anyway.
        if now.user != wanted.user:
            raise GiveUpError(NOT_SAFE) from None
        return
    _libc.setfsgid(ctypes.c_uint(wanted.group))
    _libc.setfsuid(ctypes.c_uint(wanted.user))
    now = rights_of("self")
    if now.ids != wanted.ids or (wanted.user and now.capabilities & _DAC):
        raise GiveUpError(NOT_SAFE)


def _same_namespace(pid: int, kind: str) -> bool:
    """Whether a process is in our namespace of a kind. A kernel may have, or show, none."""
    links = (f"/proc/{process}/ns/{kind}" for process in (pid, "self"))
    return len({os.path.lexists(link) and os.readlink(link) for link in links}) == 1
