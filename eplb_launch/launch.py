"""Decide, say so, and become the command. Whatever goes wrong here, the command starts.

CPython changes three things of a process before our first line runs: it ignores SIGPIPE and
SIGXFSZ, it catches SIGINT, and in the C locale it sets `LC_CTYPE` (PEP 538). All are undone here.
What was ignored by our parent in the first place cannot be told apart any more for SIGPIPE and
SIGXFSZ; both are handed on at their default.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum
import errno
import gc
import os
import sys

from eplb_launch.launch_options import check_cap, check_version
from eplb_launch.model import printable
from eplb_launch.vllm.releases import CAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal, NoReturn, TextIO

# Set to SIG_IGN by CPython at its start.
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)
# Exit statuses of env(1).
LAUNCHER_FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

PATH_MAX = 4096  # linux/limits.h
PIPE_BUF = 4096  # linux/limits.h: pipe(7)
# Of st_mode, without importing stat: linux/stat.h.
S_IFMT, S_IFIFO, S_IFCHR, S_IFREG = 0o170000, 0o010000, 0o020000, 0o100000
AT_EXECFN = 31  # linux/auxvec.h
# execvp(3) without a PATH (glibc's confstr(_CS_PATH)).
DEFAULT_PATH = b"/bin:/usr/bin"
# Errors that make execvp(3) go on to the next directory of PATH.
NEXT_DIRECTORY = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT)
)
# What PEP 538 sets LC_CTYPE to (CPython, Python/pylifecycle.c, _TARGET_LOCALES).
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
    """Start `command` in this process, with what its plan sets on top of the environment.

    Says on stderr what was set, and each warning, in one line each; with `verbose` also why nothing
    was set, with `quiet` nothing. With `strict`, a warning or an error of the launcher keeps the
    command from starting: exit status 125. `vllm_version`, `max_ctas` and `sms` are those of
    `plan`, and ValueError says what is wrong with one.
    """
    check_cap(max_ctas, sms)
    check_version(vllm_version)
    gc.disable()  # exec takes all of it in a few milliseconds
    environment: dict[str, str] = {}
    lines: list[str] = []
    trouble: list[str] = []
    try:
        from eplb_launch.plans import plan

        decided = plan(command, os.environ, vllm_version=vllm_version, max_ctas=max_ctas, sms=sms)
        environment = decided.environment
        unfit = "".join(f"; {note.message}: --max-ctas fit" for note in decided.unfit)
        # Where it is overwritten, the warning says what the server gets.
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
    except BaseException as error:  # noqa: BLE001 - a module that shadows ours may even exit
        environment = {}
        trouble = [f"internal error, nothing set: {place(error)}"]
    if strict and trouble:
        for line in trouble:
            say(f"not started (--strict): {line}")
        os._exit(LAUNCHER_FAILED)  # whatever is still to be flushed must not change the status
    if not quiet:
        for line in lines:
            say(line)
        for line in trouble:
            say(f"warning: {line}")
    become(command, environment)


def fail(error: Exception) -> NoReturn:
    """End a sub-command that failed: 125 and one line, for what the system says in its words."""
    system = isinstance(error, OSError) and error.strerror  # stdout is full or closed
    if "_EPLB_LAUNCH_COMPLETE" not in os.environ:  # else somebody is typing there
        say(system or f"internal error: {place(error)}")
    os._exit(LAUNCHER_FAILED)  # whatever is still to be flushed must not change the status


def place(error: BaseException) -> str:
    """Return what was raised and where. Not its message, which could hold a secret."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return type(error).__name__
    file = os.path.basename(traceback.tb_frame.f_code.co_filename)
    return f"{type(error).__name__} at {file}:{traceback.tb_lineno}"


def say(line: str) -> None:
    """Write one line to stderr with our name in front; nothing where it is closed, or full."""
    try:
        text = f"eplb-launch: {printable(line)}\n"
        # None where descriptor 2 was closed: it may be some other file by now.
        if sys.stderr is not None:
            _write(sys.stderr, text)
    except Exception:  # noqa: BLE001, S110 - also what a module named `select` may raise
        pass  # a line that cannot be written is no reason not to start the server


def _write(stream: TextIO, text: str) -> None:
    """Write a line, or lose it: never wait for who reads there.

    The flag that keeps a write from waiting belongs to the open file, which the command inherits
    and others may share, and is not ours to change. A pipe can be opened once more, with a flag of
    our own; it takes so many bytes whole or not at all. A terminal or a socket cannot: whether it
    has room is asked for before, and only another writer at the same moment could take that.
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
    waits = kind != S_IFREG and (kind != S_IFCHR or os.isatty(descriptor))  # /dev/null does not
    if waits:
        from select import select

        if not select([], [descriptor], [], 0)[1]:
            return
    os.write(descriptor, content)


def become(command: Sequence[str | bytes], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process with `command`, with `environment` set on top of the inherited one.

    Looks `command[0]` up in PATH as execvp(3) and env(1) do. Where the command cannot be started,
    says so in one line on stderr and exits: 127 if it was not found, 126 if it was found but could
    not be executed.

    All other threads of the process end, and nothing of Python's exit runs: no `atexit`, no
    `finally`; only stdout and stderr are flushed. Call it as the last thing, from the main thread.
    ValueError, with nothing changed, where that is another thread, where there is no command, or
    where a word holds a NUL byte.
    """
    argv = _as_bytes(command)
    if not argv or b"\0" in b"".join(argv):
        raise ValueError("not a command: " + ("a NUL byte in it" if argv else "empty"))
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105
            stream.flush()  # exec drops what Python has buffered
        except (AttributeError, OSError, ValueError):
            pass  # closed
    restore_interpreter_changes()
    for name, value in environment.items():
        os.putenv(name, value)
    path = environment.get("PATH")
    try:
        _exec(argv, os.environb.get(b"PATH") if path is None else os.fsencode(path))
    except OSError as error:
        for number in IGNORED_BY_PYTHON:  # again: a closed stderr must not change the status
            _signal.signal(number, _signal.SIG_IGN)
        say(f"{os.fsdecode(argv[0])!r}: {error.strerror}")
        os._exit(NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE)


def restore_interpreter_changes() -> None:
    """Undo what CPython did to this process at its start."""
    for number in IGNORED_BY_PYTHON:
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if os.environb.get(b"LC_CTYPE") in COERCED_LC_CTYPE:
        _restore_lc_ctype()


def _as_bytes(command: Sequence[str | bytes]) -> list[bytes]:
    """Return the words as exec takes them.

    In a multibyte locale other than UTF-8 (zh_CN.GB18030, ja_JP.eucJP) Python's codec cannot give
    back all that the C library decoded at our start. The words of our own command line are taken
    from the kernel there.
    """
    count = len(command)
    if sys.getfilesystemencoding() != "utf-8" and sys.orig_argv[-count:] == list(command):
        words, _ = _as_exec_gave_it()
        if len(words) == len(sys.orig_argv):
            return words[-count:]
    return [os.fsencode(word) for word in command]


def _restore_lc_ctype() -> None:
    """Put `LC_CTYPE` back as the kernel handed it to us."""
    words, initial = _as_exec_gave_it()
    if not words:
        return  # who set it cannot be told
    for entry in initial:
        if entry.startswith(b"LC_CTYPE="):
            os.putenv(b"LC_CTYPE", entry[len(b"LC_CTYPE=") :])
            return
    os.unsetenv(b"LC_CTYPE")


def _as_exec_gave_it() -> tuple[list[bytes], list[bytes]]:
    """Return our words and our environment as they were at our start; two times nothing if unknown.

    Where /proc is not mounted, they are still where exec(2) put them, whatever has been set since:
    one after the other, and behind them the name of the file that AT_EXECFN points to.
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
    except Exception:  # noqa: BLE001 - a Python or a C library without them
        return [], []
    count = len(sys.orig_argv)
    return found[:count], found[count:]


def _entries(block: bytes) -> list[bytes]:
    return block.split(b"\0")[:-1]


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
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for directory in (DEFAULT_PATH if search_path is None else search_path).split(b":"):
        if len(directory) >= PATH_MAX:
            continue  # as glibc does
        try:
            _exec_file(directory + b"/" + name if directory else name, argv)
        except OSError as error:
            if error.errno not in NEXT_DIRECTORY:
                raise
            if failure.errno != errno.EACCES:  # which is reported even if found before the last
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
    # A script without "#!", as execvp(3) starts it.
    os.execv(b"/bin/sh", [b"/bin/sh", path, *argv[1:]])  # noqa: S606


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()
