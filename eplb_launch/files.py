"""The files that a plan reads, behind one small interface.

A launch and `explain` read the `DISK`. `check` has its files `InMemory`. `ps` sees what the server
sees: `ps.view`.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")

# Of st_mode, without importing stat.
_KIND = 0o170000
_REGULAR = 0o100000
_FOLDER = 0o040000
_PASSWD = 64 * 1024  # the most bytes to read of /etc/passwd


class NotRegularError(OSError):
    """The path is not a regular file, but a pipe, a device or a directory."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EINVAL, "not a regular file", path)


def is_regular(mode: int) -> bool:
    return mode & _KIND == _REGULAR


class Files:
    """The disk as this process sees it. OSError says that a path cannot be read."""

    all_there = True  # False: a file that is missing here may exist where the command runs

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a regular file, or its first `most` bytes."""
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        descriptor = _system(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not is_regular(os.fstat(descriptor).st_mode):
                raise NotRegularError(path)
            return read_all(descriptor, most)
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        return _system(os.listdir, path)

    def stat(self, path: str) -> os.stat_result:
        return _system(os.stat, path)

    def real(self, path: str) -> str:
        """Return a path with its symbolic links resolved, as far as they lead."""
        return os.path.realpath(path)

    def user(self) -> int | None:
        """Return the user id of the server; None: not known."""
        return os.getuid()

    def home(self) -> str | None:
        """Return the home of that user in /etc/passwd; None: not known.

        NCCL calls getpwuid(3) itself later. Here that could wait for a directory service.
        """
        user = self.user()
        try:
            lines = self.read("/etc/passwd", _PASSWD).split(b"\n")
        except OSError:
            return None
        for fields in (line.split(b":") for line in lines):
            if user is not None and len(fields) > 5 and fields[2] == b"%d" % user:
                return os.fsdecode(fields[5])
        return None

    def exists(self, path: str) -> bool:
        return self._mode(path) != 0

    def is_file(self, path: str) -> bool:
        return is_regular(self._mode(path))

    def _mode(self, path: str) -> int:
        try:
            return self.stat(path).st_mode
        except OSError:
            return 0

    def runs(self, path: str) -> bool:
        """Whether a path is a file that can be executed."""
        return self.is_file(path) and os.access(path, os.X_OK)


DISK = Files()


class InMemory(Files):
    """Files with their texts, by absolute path. Nothing of this machine is among them."""

    all_there = False

    def __init__(self, texts: Mapping[str, str], user: int | None = None) -> None:
        """Take the texts by path, and the user id of the server, if it is known."""
        self.texts = {self.real(path): text for path, text in texts.items()}
        self._user = user

    def read(self, path: str, most: int) -> bytes:
        """Return the text of a file, as UTF-8."""
        if not is_regular(self.stat(path).st_mode):
            raise NotRegularError(path)
        return self.texts[self.real(path)][:most].encode("utf-8", "surrogatepass")[:most]

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, by the paths of the files."""
        self.stat(path)
        above = self.real(path).rstrip("/") + "/"
        below = [name[len(above) :] for name in self.texts if name.startswith(above)]
        return list(dict.fromkeys(name.partition("/")[0] for name in below))

    def stat(self, path: str) -> os.stat_result:
        real = self.real(path)
        if real in self.texts:
            return _status(_REGULAR)
        above = real.rstrip("/") + "/"
        if real == "/" or any(name.startswith(above) for name in self.texts):
            return _status(_FOLDER)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def real(self, path: str) -> str:
        """Return a path without "..". There are no links."""
        return os.path.normpath(f"/{path}").replace("//", "/")

    def user(self) -> int | None:
        return self._user

    def runs(self, path: str) -> bool:
        """Return False: nothing says that a file can be executed."""
        del path
        return False


def read_all(descriptor: int, most: int) -> bytes:
    """Return the rest of a file, at most so many bytes."""
    content = b""
    while len(content) < most and (piece := os.read(descriptor, most - len(content))):
        content += piece
    return content


def _status(mode: int) -> os.stat_result:
    return os.stat_result((mode, *(0,) * 9))


def _system(function: Callable[..., T], *arguments: Any) -> T:
    """Call a system function; OSError also for a path that contains a NUL byte."""
    try:
        return function(*arguments)
    except ValueError:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
