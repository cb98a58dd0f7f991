"""Shell scripts among the programs of a command: they are found as the kernel or a shell does.

They are read through the `Files` of the plan, and only if they are regular files: just opening a
pipe or a device can have an effect. A script that is not read is named in a warning.
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

MAX_BYTES = 256 * 1024  # of all the scripts of one plan
MAX_LEVELS = 3  # scripts that start or source each other
MAX_LOOKUPS = 2_000  # paths that are looked at for one plan
MAX_NAMED = 4  # scripts that a warning names
_HEAD = 256  # bytes in which the kernel looks for "#!": BINPRM_BUF_SIZE in linux/binfmts.h
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENAMETOOLONG)


class Scripts:
    """The scripts of one plan."""

    def __init__(self, files: Files, directory: str | None) -> None:
        """Scripts are read through `files`. The command runs in `directory` (None: here)."""
        self.files = files
        self.directory = directory or ""
        self.unread: list[str] = []  # scripts that were not read, with the reason
        self.bytes_left = MAX_BYTES
        self.lookups_left = MAX_LOOKUPS
        self.programs: dict[tuple[str, str, str], tuple[str, ...]] = {}  # results of `started`

    def started(self, program: str, directory: str | None, path: str | None) -> tuple[str, ...]:
        """Return the words that the kernel starts for a shell script: `/bin/sh SCRIPT`.

        Return no words if the program is no shell script, or is not found on the PATH `path`.
        """
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
            return ()  # a shell cannot read it either
        first, _, rest = os.fsdecode(head.partition(b"\n")[0])[2:].strip().partition(" ")
        if not head.startswith(b"#!"):
            first, rest = "/bin/sh", ""  # execvp(3) and shells start a text file so
            if not head or b"\0" in head:
                return ()
        names = [word.rpartition("/")[2] for word in f"{first} {rest}".split()]
        return (first, *filter(None, (rest.strip(),)), path) if SHELLS & set(names) else ()

    def text(self, name: str, context: Context, *, sourced: bool = False) -> str | None:
        """Return the text of a file that a shell reads, or None if it is not read here."""
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
            if len(self.unread) < MAX_NAMED:
                self.unread.append(f"{name} was not read ({error.strerror})")
        return None

    def _read(self, path: str, context: Context) -> bytes | None:
        """Return the content of a file, or None if there is none. OSError if it is not read."""
        try:
            status = self.files.stat(path)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise
        if not is_regular(status.st_mode):
            raise NotRegularError(path)
        if context.level >= MAX_LEVELS:
            raise OSError(errno.ELOOP, f"more than {MAX_LEVELS} scripts, one in another")
        size, content = status.st_size, b""
        if size <= self.bytes_left and (size or not self.files.all_there):
            content = self.files.read(path, self.bytes_left + 1)
            size = max(size, len(content))
        if size > self.bytes_left:
            together = "" if size > MAX_BYTES else "with others "
            raise OSError(errno.EFBIG, f"{together}larger than {MAX_BYTES // 1024} KiB")
        self.bytes_left -= size
        return content

    def _program(self, name: str, folder: str, places: list[str]) -> str:
        """Return the path of a program, or "" if it is not found."""
        runs = self.files.runs if self.files.all_there else self.files.is_file
        for at in places if self._look(len(places)) else ():
            path = os.path.join(at, name)
            if UNKNOWN in folder + path:
                break
            if runs(os.path.join(folder, path)):
                return path
        return ""

    def _look(self, places: int) -> bool:
        """Whether this many places may still be looked at."""
        if 0 <= self.lookups_left < places:
            self.unread.append("more programs than are looked for")
        self.lookups_left -= places
        return self.lookups_left >= 0
