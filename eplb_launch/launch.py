"""Become the command: exec, handing on everything as it would be without us.

CPython changes three things of a process before our first line runs: it ignores SIGPIPE and
SIGXFSZ, it catches SIGINT, and in the C locale it sets `LC_CTYPE` (PEP 538). All are undone here.
What was ignored by our parent in the first place cannot be told apart any more for SIGPIPE and
SIGXFSZ; both are handed on at their default.

Imports nothing that the interpreter has not loaded already.
"""

from __future__ import annotations

import _signal
import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

# Exit statuses of env(1).
LAUNCHER_FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

# execvp(3) without a PATH (glibc's confstr(_CS_PATH)).
DEFAULT_PATH = b"/bin:/usr/bin"
# Errors that make execvp(3) go on to the next directory of PATH.
NEXT_DIRECTORY = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT)
)
# What PEP 538 sets LC_CTYPE to (CPython, Python/pylifecycle.c, _TARGET_LOCALES).
COERCED_LC_CTYPE = frozenset((b"C.UTF-8", b"C.utf8", b"UTF-8"))


def say(line: str) -> None:
    """Write one line to stderr with our name in front, or nothing where stderr is closed."""
    if sys.stderr is None:
        return  # descriptor 2 was closed, and may be some other file by now
    text = "eplb-launch: " + line.replace("\n", "\\n").replace("\r", "\\r") + "\n"
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # a closed pipe or a full one is no reason not to start the server


def become(command: Sequence[str | bytes], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process with `command`, with `environment` set on top of the inherited one.

    Looks `command[0]` up in PATH as execvp(3) and env(1) do. Where the command cannot be started,
    says so in one line on stderr and exits: 127 if it was not found, 126 if it was found but could
    not be executed.

    All other threads of the process end, and nothing of Python's exit runs: no `atexit`, no
    `finally`, no flush. Call it as the last thing.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()  # exec drops what Python has buffered
        except (AttributeError, OSError, ValueError):
            pass  # closed
    restore_interpreter_changes()
    for name, value in environment.items():
        os.putenv(name, value)
    argv = [os.fsencode(word) for word in command]
    path = environment.get("PATH")
    try:
        _exec(argv, os.environb.get(b"PATH") if path is None else os.fsencode(path))
    except OSError as error:
        say(f"{_shown(argv[0])}: {error.strerror}")
        status = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
    except ValueError as error:  # a NUL byte, which only a caller from Python can pass
        say(f"{_shown(argv[0])}: {error}")
        status = LAUNCHER_FAILED
    os._exit(status)


def restore_interpreter_changes() -> None:
    """Undo what CPython did to this process at its start."""
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    if os.environb.get(b"LC_CTYPE") in COERCED_LC_CTYPE:
        _restore_lc_ctype()


def _restore_lc_ctype() -> None:
    """Put `LC_CTYPE` back as the kernel handed it to us."""
    try:
        with open("/proc/self/environ", "rb", buffering=0) as file:
            initial = file.readall().split(b"\0")
    except OSError:
        return  # no /proc: who set it cannot be told
    for entry in initial:
        if entry.startswith(b"LC_CTYPE="):
            os.putenv(b"LC_CTYPE", entry[len(b"LC_CTYPE=") :])
            return
    os.unsetenv(b"LC_CTYPE")


def _exec(argv: list[bytes], search_path: bytes | None) -> NoReturn:
    """execvp(3), with its search rules and its fallback to sh; OSError where it fails.

    No environment is passed: exec then takes the C library's `environ`, which keeps the order,
    duplicates and entries without "=" that `os.environ` loses.
    """
    name = argv[0]
    if not name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if b"/" in name:
        _exec_file(name, argv)
    denied = missing = None
    for directory in (DEFAULT_PATH if search_path is None else search_path).split(b":"):
        try:
            _exec_file(directory + b"/" + name if directory else name, argv)
        except OSError as error:
            if error.errno not in NEXT_DIRECTORY:
                raise
            if error.errno == errno.EACCES:
                denied = error
            missing = error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from missing


def _exec_file(path: bytes, argv: list[bytes]) -> NoReturn:
    try:
        os.execv(path, argv)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    os.execv(b"/bin/sh", [b"/bin/sh", path, *argv[1:]])  # a script without "#!", as execvp(3)


def _shown(word: bytes) -> str:
    return repr(os.fsdecode(word))
