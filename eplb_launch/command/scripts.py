"""Shell scripts among the programs of a command: found as the kernel or a shell would, and read.

All reading goes through the `Files` of the plan, and only of regular files: to open a pipe or a
device can already do something. What is not read, though a server may be in it, is named.
"""

from __future__ import annotations

import errno
import os

from eplb_launch.command.wrappers import SHELLS
from eplb_launch.files import NotRegularError, is_regular
from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.installed import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eplb_launch.command.context import Context
    from eplb_launch.files import Files

MOST = 256 * 1024  # bytes of one script, and of all that are read for one plan
LEVELS = 3  # scripts that start or source each other
LOOKED_UP = 2_000  # paths to look at for one plan
NAMED = 4  # scripts that were not read
_HEAD = 256  # bytes, of which the kernel reads "#!": BINPRM_BUF_SIZE in linux/binfmts.h
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENAMETOOLONG)


class Scripts:
    """The scripts of one plan."""

    def __init__(self, files: Files, directory: str | None) -> None:
        """Read through `files`; the command runs in `directory`, or here."""
        self.files = files
        self.directory = directory or ""
        self.unread: list[str] = []  # each with why not
        self.left = MOST
        self.lookups = LOOKED_UP
        self.programs: dict[tuple[str, str, str], tuple[str, ...]] = {}  # what they are

    def interpreter(self, program: str, context: Context) -> tuple[str, ...]:
        """Return what the kernel makes of a program that is a script of a shell: several words.

        Where it is none, or there is none, no words.
        """
        return self.started(program, context.directory, context.environ.get("PATH"))

    def started(self, program: str, directory: str | None, path: str | None) -> tuple[str, ...]:
        """As interpreter, in a directory and with a PATH."""
        folder = os.path.join(self.directory, directory or "")
        path = "" if "/" in program else DEFAULT_PATH if path is None else path
        key = program, folder, path
        if key not in self.programs:
            found = self._program(program, folder, path.split(":"))
            self.programs[key] = self._words(os.path.join(folder, found), found) if found else ()
        return self.programs[key]

    def _words(self, inside: str, path: str) -> tuple[str, ...]:
        try:
            head = self.files.read(inside, _HEAD)
        except OSError:
            return ()  # no shell can read it either
        first, _, rest = os.fsdecode(head.partition(b"\n")[0])[2:].strip().partition(" ")
        if not head.startswith(b"#!"):
            first, rest = "/bin/sh", ""  # what execvp(3) and the shells do with a text
            if not head or b"\0" in head:
                return ()
        names = [word.rpartition("/")[2] for word in f"{first} {rest}".split()]
        return (first, *filter(None, (rest.strip(),)), path) if SHELLS & set(names) else ()

    def text(self, name: str, context: Context, *, sourced: bool = False) -> str | None:
        """Return the text of a file that a shell is to read; None where it is not read."""
        folder = os.path.join(self.directory, context.directory or "")
        if not name or UNKNOWN in name + folder:
            return None
        paths = [os.path.join(folder, name)]
        if "/" not in name:
            path = context.environ.get("PATH")
            places = (DEFAULT_PATH if path is None else path).split(":")
            beside = [os.path.join(folder, at, name) for at in places]
            paths = [*beside, *paths] if sourced else [*paths, *beside]
        try:
            for path in paths if self._look(len(paths)) else ():
                content = self._read(path, context)
                if content is not None:
                    context.make_room(len(content))
                    return None if b"\0" in content else os.fsdecode(content)
        except OSError as error:
            if len(self.unread) < NAMED:
                self.unread.append(f"{name} was not read ({error.strerror})")
        return None

    def _read(self, path: str, context: Context) -> bytes | None:
        """Return what there is at a path; None for nothing. What is not read is an OSError."""
        status = self._stat(path)
        if status is None:
            return None
        if not is_regular(status.st_mode):
            raise NotRegularError(path)
        if context.level >= LEVELS:
            raise OSError(errno.ELOOP, f"more than {LEVELS} scripts, one in another")
        size = status.st_size
        if size <= self.left and (size or not self.files.all_there):
            content = self.files.read(path, self.left + 1)
            size = max(size, len(content))
        else:
            content = b""
        if size > self.left:
            together = "" if size > MOST else "with others "
            raise OSError(errno.EFBIG, f"{together}larger than {MOST // 1024} KiB")
        self.left -= size
        return content

    def _stat(self, path: str) -> os.stat_result | None:
        try:
            return self.files.stat(path)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise

    def _program(self, name: str, folder: str, places: list[str]) -> str:
        """Return where a program is; "" for none."""
        runs = self.files.runs if self.files.all_there else self.files.is_file
        for at in places if self._look(len(places)) else ():
            path = os.path.join(at, name)
            if UNKNOWN in folder + path:
                break
            if runs(os.path.join(folder, path)):
                return path
        return ""

    def _look(self, places: int) -> bool:
        """Whether there is room to look into so many places."""
        if 0 <= self.lookups < places:
            self.unread.append("more programs than are looked for")
        self.lookups -= places
        return self.lookups >= 0
