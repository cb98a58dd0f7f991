"""Decide, say so, and become the command. The command starts even if the launcher fails.

CPython changes a process before our first line runs: it ignores SIGPIPE and SIGXFSZ, it catches
SIGINT, and in the C locale it sets `LC_CTYPE` (PEP 538). This module undoes all of it. It cannot
tell whether our parent ignored SIGPIPE or SIGXFSZ, so the command gets both at their default.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum
import errno
import gc
import os
import sys

from eplb_launch.launch_options import check_command, check_options
from eplb_launch.model import printable
from eplb_launch.vllm.releases import CAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal, NoReturn, TextIO

# CPython ignores these from its start.
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)
# Exit statuses of env(1).
LAUNCHER_FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

PATH_MAX = 4096  # linux/limits.h
PIPE_BUF = 4096  # linux/limits.h: pipe(7)
# Bits of st_mode (linux/stat.h): importing `stat` takes time.
S_IFMT, S_IFIFO, S_IFCHR, S_IFREG = 0o170000, 0o010000, 0o020000, 0o100000
AT_EXECFN = 31  # linux/auxvec.h
# Where execvp(3) looks without a PATH (glibc's confstr(_CS_PATH)).
DEFAULT_PATH = b"/bin:/usr/bin"
# After these errors execvp(3) tries the next directory of PATH.
NEXT_DIRECTORY = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT)
)
# PEP 538 sets LC_CTYPE to one of these (CPython, Python/pylifecycle.c, _TARGET_LOCALES).
COERCED_LC_CTYPE = frozenset((b"C.UTF-8", b"C.utf8", b"UTF-8"))


def run(
    command: Sequence[str],
    *,
    strict: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    vllm_version: str | None = None,
    max_ctas: int | Literal["fit"] = CAP,
    sms: int | None = None,
) -> NoReturn:
    """Replace this process with `command`, and set what its plan says on top of the environment.

    It says on stderr what it sets, and each warning, in one line each. With `verbose` it also says
    why it sets nothing; with `quiet` it says nothing. With `strict`, a warning or an error of the
    launcher prevents the start: exit status 125. `plan` explains `vllm_version`, `max_ctas` and
    `sms`; ValueError says what is wrong with one of them.
    """
    check_options(vllm_version, max_ctas, sms)
    command = check_command(command)
    gc.disable()  # exec frees everything in a few milliseconds
    environment: dict[str, str] = {}
    lines: list[str] = []
    trouble: list[str] = []
    try:
        from eplb_launch.plans import plan

        decided = plan(command, os.environ, vllm_version=vllm_version, max_ctas=max_ctas, sms=sms)
        environment = decided.environment
        unfit = "".join(f"; {note.message}: --max-ctas fit" for note in decided.unfit)
        # If the variable is overwritten, the warning says what the server gets.
        if "variable-overwritten" not in [warning.code for warning in decided.warnings]:
            lines = [
                f"set {name}={value}: {decided.reason}{unfit}"
                for name, value in environment.items()
            ]
        if verbose and not environment:
            lines.append(f"nothing set: {decided.reason}")
        trouble += [f"{warning.message}; {warning.remedy}" for warning in decided.warnings]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a module that shadows another may even exit
        environment = {}
        trouble = [f"internal error, nothing set: {place(error)}; please report this bug"]
    if strict and trouble:
        for line in trouble:
            say(f"not started (--strict): {line}")
        os._exit(LAUNCHER_FAILED)  # a flush at exit could fail and change the status
    if not quiet:
        for line in lines:
            say(line)
        for line in trouble:
            say(f"warning: {line}")
    become(command, environment)


def fail(error: Exception) -> NoReturn:
    """Exit with 125 after an error of a sub-command, and say it in one line."""
    system = isinstance(error, OSError) and error.strerror  # stdout is full or closed
    if "_EPLB_LAUNCH_COMPLETE" not in os.environ:  # it would land in the line that a user types
        say(system or f"internal error: {place(error)}; please report this bug")
    os._exit(LAUNCHER_FAILED)  # a flush at exit could fail and change the status


def place(error: BaseException) -> str:
    """Return the type of an error and where it was raised. Its message may contain a secret."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return type(error).__name__
    file = os.path.basename(traceback.tb_frame.f_code.co_filename)
    return f"{type(error).__name__} at {file}:{traceback.tb_lineno}"


def say(line: str) -> None:
    """Write one line to stderr, after our name. If stderr is closed or full, the line is lost."""
    try:
        text = f"eplb-launch: {printable(line)}\n"
        # It is None if descriptor 2 was closed, which may be another file now.
        if sys.stderr is not None:
            _write(sys.stderr, text)
    except Exception:  # noqa: BLE001, S110 - the server starts even if the line cannot be written
        pass


def _write(stream: TextIO, text: str) -> None:
    """Write a line without waiting for a reader; a line that does not fit is lost.

    O_NONBLOCK would belong to the open file, which the command inherits and others share, so it
    must not change. A pipe can be opened again with a flag of its own; it takes PIPE_BUF bytes
    whole or not at all. A terminal or a socket is asked first whether it has room; another writer
    could take that only in the same moment.
    """
    try:
        descriptor = stream.fileno()
    except (AttributeError, ValueError):  # in memory
        stream.write(text)
        stream.flush()
        return
    content = text.encode(stream.encoding, "backslashreplace")
    if len(content) > PIPE_BUF:
        content = content[: PIPE_BUF - 4] + b"...\n"
    kind = os.fstat(descriptor).st_mode & S_IFMT
    if kind == S_IFIFO:
        try:
            own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            pass  # no /proc, or a pipe of another user
        else:
            try:
                os.write(own, content)
            finally:
                os.close(own)
            return
    if kind != S_IFREG and (kind != S_IFCHR or os.isatty(descriptor)):  # /dev/null never waits
        from select import select

        if not select([], [descriptor], [], 0)[1]:
            return
    os.write(descriptor, content)


def become(command: Sequence[str | bytes], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process with `command`, and set `environment` on top of the inherited one.

    It looks for `command[0]` in PATH as execvp(3) and env(1) do. If the command cannot start, it
    says so in one line on stderr and exits: with 127 if the command is not found, with 126 if it
    cannot be executed.

    All other threads end, and Python does not clean up: no `atexit`, no `finally`. Only stdout and
    stderr are flushed. Call it last, from the main thread. ValueError, with nothing changed, if it
    runs in another thread, the command is empty, or a word contains a NUL byte.
    """
    argv = _as_bytes(command)
    if not argv or b"\0" in b"".join(argv):
        raise ValueError(f"the command {'contains a NUL byte' if argv else 'is empty'}")
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105
            stream.flush()  # exec discards Python's buffers
        except (AttributeError, OSError, ValueError):
            pass  # closed
    _undo_changes_of_python()
    for name, value in environment.items():
        os.putenv(name, value)
    path = environment.get("PATH")
    try:
        _exec(argv, os.environb.get(b"PATH") if path is None else os.fsencode(path))
    except OSError as error:
        for number in IGNORED_BY_PYTHON:  # a closed stderr must not change the status
            _signal.signal(number, _signal.SIG_IGN)
        say(f"{os.fsdecode(argv[0])!r}: {error.strerror}")
        os._exit(NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE)


def _undo_changes_of_python() -> None:
    for number in IGNORED_BY_PYTHON:
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if os.environb.get(b"LC_CTYPE") in COERCED_LC_CTYPE:
        _restore_lc_ctype()


def _as_bytes(command: Sequence[str | bytes]) -> list[bytes]:
    """Return the words as exec takes them.

    In a multibyte locale other than UTF-8 (zh_CN.GB18030, ja_JP.eucJP), Python's codec cannot
    encode every word that the C library decoded at our start. There the words come from the kernel.
    """
    count = len(command)
    if sys.getfilesystemencoding() != "utf-8" and sys.orig_argv[-count:] == list(command):
        words, _ = _as_exec_gave_it()
        if len(words) == len(sys.orig_argv):
            return words[-count:]
    return [os.fsencode(word) for word in command]


def _restore_lc_ctype() -> None:
    """Set `LC_CTYPE` to its value at our start."""
    words, initial = _as_exec_gave_it()
    if not words:
        return  # Python or our parent may have set it
    for entry in initial:
        if entry.startswith(b"LC_CTYPE="):
            os.putenv(b"LC_CTYPE", entry[len(b"LC_CTYPE=") :])
            return
    os.unsetenv(b"LC_CTYPE")


def _as_exec_gave_it() -> tuple[list[bytes], list[bytes]]:
    """Return our words and our environment as they were at our start; two empty lists if unknown.

    Without /proc, they are where exec(2) put them in memory: the words, then the environment, then
    the file name that AT_EXECFN points to.
    """
    try:
        return _entries(_read("/proc/self/cmdline")), _entries(_read("/proc/self/environ"))
    except OSError:
        pass
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        libc.getauxval.restype = ctypes.c_ulong
        end = libc.getauxval(ctypes.c_ulong(AT_EXECFN))
        start = ctypes.c_void_p.in_dll(libc, "program_invocation_name").value
        found = _entries(ctypes.string_at(start, end - start)) if start and end > start else []
    except Exception:  # noqa: BLE001 - this Python or C library lacks them
        return [], []
    count = len(sys.orig_argv)
    return found[:count], found[count:]


def _entries(block: bytes) -> list[bytes]:
    return block.split(b"\0")[:-1]


def _exec(argv: list[bytes], search_path: bytes | None) -> NoReturn:
    """Do what execvp(3) does, with its search and its fallback to sh; OSError if it fails.

    exec gets no environment, so it takes the C library's `environ`. That keeps the order, the
    duplicates and the entries without "=" that `os.environ` loses.
    """
    name = argv[0]
    if not name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if b"/" in name:
        _exec_file(name, argv)
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for directory in (DEFAULT_PATH if search_path is None else search_path).split(b":"):
        if len(directory) >= PATH_MAX:
            continue  # as glibc does
        try:
            _exec_file(directory + b"/" + name if directory else name, argv)
        except OSError as error:
            if error.errno not in NEXT_DIRECTORY:
                raise
            if failure.errno != errno.EACCES:  # EACCES wins over later errors
                failure = error
    raise failure


def _exec_file(path: bytes, argv: list[bytes]) -> NoReturn:
    try:
        os.execv(path, argv)  # noqa: S606
    except OSError as error:
        if error.errno == errno.ENOENT and os.access(path, os.F_OK):
            raise OSError(errno.ENOENT, "the interpreter that it names is missing") from None
        if error.errno != errno.ENOEXEC:
            raise
    # A script without "#!": execvp(3) starts it like this.
    os.execv(b"/bin/sh", [b"/bin/sh", path, *argv[1:]])  # noqa: S606


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()
