"""The files that a plan looks at, through one small interface that is handed to it.

`DISK` is what this process sees: the launcher and `explain`. `InMemory` are files that somebody
holds in memory: `check`. `ps` looks with the eyes of the process that it looks at: `view`.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

# Of st_mode, without importing stat.
_KIND = 0o170000
_REGULAR = 0o100000
_FOLDER = 0o040000
_EXECUTE = 0o111
_PASSWD = 64 * 1024  # bytes that are read of it


class NotRegularError(OSError):
    """There is something that is no regular file: a pipe, a device, a directory."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EINVAL, "not a regular file", path)


def is_regular(mode: int) -> bool:
    return mode & _KIND == _REGULAR


class Files:
    """The disk, as this process sees it. Whatever cannot be looked at is an OSError."""

    all_there = True  # False: a file that is not here may still be where the command runs

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a regular file, or its first `most` bytes."""
        # Not blocking: to open a pipe would wait for its writer, and to read it would empty it.
        descriptor = _system(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not is_regular(os.fstat(descriptor).st_mode):
                raise NotRegularError(path)
            return read_all(descriptor, most)
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        found: list[str] = _system(os.listdir, path)
        return found

    def stat(self, path: str) -> os.stat_result:
        found: os.stat_result = _system(os.stat, path)
        return found

    def real(self, path: str) -> str:
        """Return a path without symbolic links; as it is where it leads nowhere."""
        return os.path.realpath(path)

    def user(self) -> int | None:
        """Return the user who looks, by number; None: not known."""
        return os.getuid()

    def home(self) -> str | None:
        """Return the home of the user who looks, by /etc/passwd; None: not known.

        Not getpwuid(3), which may ask servers: NCCL does that itself, but later and not twice.
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
        try:
            self.stat(path)
        except OSError:
            return False
        return True

    def is_file(self, path: str) -> bool:
        try:
            return is_regular(self.stat(path).st_mode)
        except OSError:
            return False

    def runs(self, path: str) -> bool:
        """Whether a path leads to a file that can be executed."""
        return self.is_file(path) and os.access(path, os.X_OK)


DISK = Files()


class InMemory(Files):
    """Files by their absolute paths, and no others: not those of this machine."""

    all_there = False

    def __init__(self, texts: Mapping[str, str], user: int | None = None) -> None:
        """Take the files and their texts, and who it is that looks, if that is known."""
        self.texts = {self.real(path): text for path, text in texts.items()}
        self._user = user

    def read(self, path: str, most: int) -> bytes:
        """Return the text of a file, as UTF-8."""
        if not is_regular(self.stat(path).st_mode):
            raise NotRegularError(path)
        return self.texts[self.real(path)][:most].encode("utf-8", "surrogatepass")[:most]

    def names(self, path: str) -> list[str]:
        """Return what the paths of the files have below this one."""
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
        """Return a path without "..": there are no links."""
        return os.path.normpath(f"/{path}").replace("//", "/")

    def user(self) -> int | None:
        return self._user

    def runs(self, path: str) -> bool:
        """Nothing says of a file that it can be executed."""
        del path
        return False


def read_all(descriptor: int, most: int) -> bytes:
    """Return what there is to read, at most so many bytes."""
    content = b""
    while len(content) < most and (piece := os.read(descriptor, most - len(content))):
        content += piece
    return content


def _status(mode: int) -> os.stat_result:
    return os.stat_result((mode, *(0,) * 9))


def _system(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the system; a name that no file can have is an error like any other."""
    try:
        return function(*arguments)
    except ValueError:  # a NUL byte
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
