"""The command line of the launcher, run in this process on a made-up machine.

The only file here that knows how the launcher is started: as `python -m eplb_launch`. What it reads
of the machine (files, /proc, users, its own directory) comes from a folder that stands for "/": the
functions of `os` look there while it runs. Takes a process of its own, whose environment, directory
and signals it changes.
"""

from __future__ import annotations

import builtins
import errno
import functools
import gc
import io
import os
import pwd
import runpy
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import typer.main

from eplb_launch.files import Files
from eplb_launch.ps import command as ps_command
from eplb_launch.ps import processes
from golden.cases import HOME_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


MAX_LINKS = 40
USERS = {0: "root", 1000: "user", 65534: "nobody"}
# By whether they follow a link at the end of the path.
FOLLOWING = ("access", "chmod", "listdir", "mkdir", "open", "scandir", "stat", "utime")
NOT_FOLLOWING = ("lstat", "readlink", "remove", "rmdir", "unlink")


class Became(BaseException):
    """The launcher has called exec."""

    def __init__(self, argv: list[bytes]) -> None:
        """Keep what it would have become."""
        super().__init__()
        self.argv = argv


class Exited(BaseException):
    """The launcher has called os._exit."""


class Machine:
    """A made-up machine: a folder that stands for "/", and what no folder can hold."""

    def __init__(self, folder: str) -> None:
        """Take an empty folder."""
        self.folder = os.path.realpath(folder)
        self.user = 0
        # Links whose text is not where they lead, as those of /proc/PID: path to (text, target).
        self.links: dict[str, tuple[str, str]] = {}
        self.denied: frozenset[str] = frozenset()
        self.owners: dict[str, int] = {}
        self._real = {name: getattr(os, name) for name in (*FOLLOWING, *NOT_FOLLOWING)}
        self._open = builtins.open
        self._set: list[tuple[str, str]] = []
        self._folders: set[str] = set()
        self._functions = self._stand_ins()
        os.makedirs(self.folder + HOME_DIRECTORY)
        # Typer makes the command anew for each call, which takes more time than all the rest.
        typer.main.get_command = functools.cache(typer.main.get_command)

    def write(self, path: str, content: str | bytes = "", mode: int = 0o644) -> None:
        """Write a file of the machine."""
        real = self.folder + path
        data = content if isinstance(content, bytes) else os.fsencode(content)
        if (folder := os.path.dirname(real)) not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        with open(real, "wb", buffering=0) as file:
            file.write(data)
        if mode != 0o644:
            os.chmod(real, mode)

    def age(self) -> None:
        """Make all files and folders older than what runs on the machine."""
        for folder, _, names in os.walk(self.folder):
            for name in (".", *names):
                os.utime(os.path.join(folder, name), (1e9, 1e9))

    def remove(self, path: str) -> None:
        """Remove a file of the machine."""
        os.unlink(self.folder + path)

    def _stand_ins(self) -> list[tuple[Any, str, Any]]:
        """Return what is another function while the launcher runs: of what, its name, and it."""
        functions = {name: self._redirected(name, follow=True) for name in FOLLOWING}
        functions |= {name: self._redirected(name, follow=False) for name in NOT_FOLLOWING}
        functions |= {"getcwd": lambda: HOME_DIRECTORY, "execv": self._execv, "_exit": _exit}
        functions |= {"getuid": lambda: self.user, "geteuid": lambda: self.user}
        functions["putenv"] = self._putenv
        found = [(os, name, function) for name, function in functions.items()]
        files: list[tuple[Any, str, Any]] = [
            (module, "open", self._opened) for module in (builtins, io)
        ]
        # The kernel looks below another root and with other rights: tests/ps/test_view.py.
        looks = [(ps_command, "results", _results), (processes, "View", FrozenView)]
        return [*found, *files, *looks, (pwd, "getpwuid", _getpwuid)]

    def run(self, argv: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
        """Run `python -m eplb_launch ARGV`; return how it ended and what it said."""
        os.environ.clear()
        os.environ.update(environ)
        self._set = []
        before = [(module, name, getattr(module, name)) for module, name, _ in self._functions]
        os.chdir(self.folder + HOME_DIRECTORY)
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in "oe")
        streams, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), out, err
        sys.argv = ["eplb-launch", *argv]
        # Imported by a launch that stands in a script; runpy would warn.
        sys.modules.pop("eplb_launch.__main__", None)
        ended: dict[str, Any] = {}
        _replace(self._functions)
        try:
            runpy.run_module("eplb_launch", run_name="__main__", alter_sys=False)
            ended["status"] = 0
        except Became as became:
            words = list(argv[argv.index("--") + 1 :])
            ended["status"] = "exec"
            if [os.fsdecode(word) for word in became.argv] != words:
                ended["argv"] = [os.fsdecode(word) for word in became.argv]
        except (Exited, SystemExit) as exited:
            ended["status"] = exited.args[0] if exited.args else 0
        except Exception as error:  # noqa: BLE001 - the other cases are still to be recorded
            ended["status"] = f"traceback: {error!r}"
        finally:
            sys.stdout, sys.stderr = streams
            _replace(before)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            gc.enable()
        if self._set and ended["status"] == "exec":
            ended["set"] = dict(self._set)
        for name, stream in (("out", out), ("err", err)):
            stream.flush()
            text = stream.buffer.getvalue().decode("utf-8", "backslashreplace")
            if self.folder in text:
                raise AssertionError(f"the folder shows in what {argv} says: {text}")
            ended[name] = text
        return ended

    def _place(self, path: str, *, follow: bool) -> str:
        """Return `path` of the machine with no links in it."""
        here = ""
        links = 0
        parts = os.path.join(HOME_DIRECTORY, path).split("/")[::-1]
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            at = f"{here}/{part}"
            if follow or any(parts):
                if at in self.denied and at in self.links:
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
                target = self.links.get(at, ("", ""))[1]
                try:
                    # In /proc all links are in `links`.
                    if not target and not at.startswith("/proc/"):
                        target = self._real["readlink"](self.folder + at)
                except (OSError, ValueError):
                    target = ""
                if not target:
                    here = at
                    continue
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                here = "" if target.startswith("/") else here
                parts.extend(target.split("/")[::-1])
            else:
                here = at
        return here or "/"

    def _redirected(self, name: str, *, follow: bool) -> Callable[..., Any]:
        real = self._real[name]

        def function(path: Any = ".", *rest: Any, **more: Any) -> Any:
            if isinstance(path, int) or more.get("dir_fd") is not None:
                return real(path, *rest, **more)
            text = os.fsdecode(path)
            if text.startswith(self.folder) or not text:
                return real(path, *rest, **more)
            place = self._place(text, follow=follow and more.get("follow_symlinks", True))
            if place in self.denied:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), text)
            if name == "readlink" and place in self.links:
                return self.links[place][0]
            # A listing of "." says "./name", not where that is.
            there: Any = path if name == "scandir" and text[0] != "/" else self.folder + place
            found = real(os.fsencode(there) if isinstance(path, bytes) else there, *rest, **more)
            if name in ("stat", "lstat") and place in self.owners:
                fields = list(found)[:10]
                fields[4] = self.owners[place]
                return os.stat_result(fields)
            return found

        return function

    def _opened(self, file: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(file, int) or more.get("opener") or len(rest) > 6:
            return self._open(file, *rest, **more)
        text = os.fsdecode(file)
        if not text.startswith(self.folder):
            place = self._place(text, follow=True)
            if place in self.denied:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), text)
            file = self.folder + place
        return self._open(file, *rest, **more)

    def _putenv(self, name: str | bytes, value: str | bytes) -> None:
        self._set.append((os.fsdecode(name), os.fsdecode(value)))

    def _execv(self, path: bytes, argv: list[bytes]) -> NoReturn:
        if not os.access(path, os.F_OK):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        raise Became(argv)


def _replace(functions: list[tuple[Any, str, Any]]) -> None:
    for module, name, function in functions:
        setattr(module, name, function)


def _exit(status: int) -> NoReturn:
    raise Exited(status)


def _getpwuid(uid: int) -> pwd.struct_passwd:
    name = USERS[uid]  # KeyError, as of a user who is not known
    return pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", "/bin/sh"))


def _results(jobs: Mapping[Any, Callable[[], Any]]) -> dict[Any, Any]:
    return {key: job() for key, job in jobs.items()}


class FrozenView(Files):
    """The files of a process of the machine."""

    def __init__(self, pid: int) -> None:
        """Look below its root."""
        self.root = f"/proc/{pid}/root"
        self.above = os.readlink(self.root)
        self.owner = os.stat(f"/proc/{pid}").st_uid

    def take_rights(self) -> None:
        """Do nothing: this process is not another."""

    def inside(self, link: str) -> str:
        """Return what a link of /proc leads to as the process sees it."""
        above = self.above
        return link[len(above) :] if above != "/" and link.startswith(f"{above}/") else link

    def real(self, path: str) -> str:
        """Return a path without links, as it is below the root."""
        here = ""
        links = 0
        parts = path.split("/")[::-1]
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            try:
                link = os.readlink(f"{self.root}{here}/{part}")
            except (OSError, ValueError):
                here = f"{here}/{part}"
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            here = "" if link.startswith("/") else here
            parts.extend(link.split("/")[::-1])
        return here or "/"

    def read(self, path: str, most: int) -> bytes:
        """Return a file below the root."""
        return super().read(self.root + self.real(path), most)

    def names(self, path: str) -> list[str]:
        """Return the names in a folder below the root."""
        return super().names(self.root + self.real(path))

    def stat(self, path: str) -> os.stat_result:
        """Return the status of what is below the root."""
        return super().stat(self.root + self.real(path))

    def user(self) -> int:
        """Return its owner."""
        return self.owner

    def runs(self, path: str) -> bool:
        """Whether it is a file that somebody may execute."""
        return self.is_file(path) and bool(self.stat(path).st_mode & 0o111)
