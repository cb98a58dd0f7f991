"""Exit statuses pass unchanged; a command that cannot be started is reported as env(1) does."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Starter

KILLED_BY = [
    signal.SIGTERM,
    signal.SIGKILL,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGABRT,
    signal.SIGRTMAX,
]
NOT_FOUND = os.strerror(errno.ENOENT)
NO_INTERPRETER = "the interpreter that it names is missing"
DENIED = os.strerror(errno.EACCES)
NOT_A_DIRECTORY = os.strerror(errno.ENOTDIR)
TOO_LONG = os.strerror(errno.ENAMETOOLONG)
LOOP = os.strerror(errno.ELOOP)

# name: (command, PATH, status, why). The statuses are those of env(1), coreutils 9.1.
UNSTARTABLE: dict[str, tuple[bytes, bytes | None, int, str]] = {
    "not found in PATH": (b"zzz", b"/bin:/usr/bin", 127, NOT_FOUND),
    "not found without PATH": (b"plain", None, 127, NOT_FOUND),
    "not found in the cwd": (b"zzz", b"", 127, NOT_FOUND),
    "no such path": (b"./zzz", b"/bin", 127, NOT_FOUND),
    "no such directory": (b"/nonexistent/zzz", b"/bin", 127, NOT_FOUND),
    "path not looked up": (b"sub/program", b".", 127, NOT_FOUND),
    "empty name": (b"", b".", 127, NOT_FOUND),
    "dangling link": (b"./dangling", b"/bin", 127, NOT_FOUND),
    "interpreter missing": (b"./broken", b"/bin", 127, NO_INTERPRETER),
    "interpreter missing, in PATH": (b"broken", b".", 127, NO_INTERPRETER),
    "not executable": (b"./plain", b"/bin", 126, DENIED),
    "not executable, in PATH": (b"plain", b".", 126, DENIED),
    "not executable, then nothing": (b"plain", b".:/bin", 126, DENIED),
    "nothing, then not executable": (b"plain", b"/bin:.", 126, DENIED),
    "a directory": (b"./sub", b"/bin", 126, DENIED),
    "a directory, in PATH": (b"sub", b".", 126, DENIED),
    "a dot": (b".", b"/bin", 126, DENIED),
    "a file as directory": (b"./plain/x", b"/bin", 126, NOT_A_DIRECTORY),
    "slash at the end": (b"./plain/", b"/bin", 126, NOT_A_DIRECTORY),
    "a file in PATH": (b"zzz", b"plain", 126, NOT_A_DIRECTORY),
    "a file in PATH, then nothing": (b"zzz", b"plain:/bin", 127, NOT_FOUND),
    "a link to itself": (b"./loop", b"/bin", 126, LOOP),
    "a link to itself, in PATH": (b"loop", b".:/bin", 126, LOOP),
    "name too long": (b"x" * 300, b"/bin", 126, TOO_LONG),
    "not UTF-8": (b"\xff\xfe", b"/bin", 127, NOT_FOUND),
    "newline": (b"a\nb", b"/bin", 127, NOT_FOUND),
    "looks like an option": (b"--help", b"/bin", 127, NOT_FOUND),
    "looks like an assignment": (b"A=1", b"/bin", 127, NOT_FOUND),
}


def write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """Return a directory with files of each kind that cannot be executed."""
    directory = tmp_path / "cwd"
    (directory / "sub").mkdir(parents=True)
    (directory / "plain").write_text("#!/bin/sh\necho never\n")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "loop").symlink_to("loop")
    write_script(directory / "broken", "#!/nonexistent/python\n")
    write_script(directory / "program", "#!/bin/sh\necho started\n")
    return directory


@pytest.mark.parametrize("status", [0, 1, 2, 64, 125, 126, 127, 128, 255])
def test_the_exit_status_is_the_commands(
    start: Starter,
    launcher: list[str],
    status: int,
) -> None:
    ended = start([*launcher, "--quiet", "--", "sh", "-c", f"exit {status}"])
    assert (ended.status, ended.out, ended.err) == (status, b"", b"")


@pytest.mark.parametrize("number", KILLED_BY, ids=lambda number: number.name)
def test_death_by_a_signal_is_the_commands(
    start: Starter,
    number: signal.Signals,
) -> None:
    no_core = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    command = ["sh", "-c", f"kill -{int(number)} $$"]
    ended = start.launched(command, conditions=no_core)
    assert (ended.status, ended.out, ended.err) == (-number, b"", b"")


@pytest.mark.parametrize("case", UNSTARTABLE.values(), ids=UNSTARTABLE)
def test_a_command_that_cannot_be_started_is_reported_in_one_line(
    start: Starter,
    cwd: Path,
    case: tuple[bytes, bytes | None, int, str],
) -> None:
    command, search_path, status, why = case
    environ = [b"LANG=C.UTF-8"] + ([] if search_path is None else [b"PATH=" + search_path])
    ended = start.launched([command, b"secret"], environ=environ, cwd=cwd)
    line = f"eplb-launch: {os.fsdecode(command)!r}: {why}\n"
    assert ended.err == line.encode("utf-8", "backslashreplace")
    assert (ended.status, ended.out) == (status, b"")


@pytest.mark.parametrize("search_path", [None, b"", b"/bin", b":/bin"])
@pytest.mark.parametrize("name", ["program", "./program", "sh"])
def test_a_command_starts_where_env_starts_it(
    start: Starter,
    cwd: Path,
    name: str,
    search_path: bytes | None,
) -> None:
    environ = [] if search_path is None else [b"PATH=" + search_path]
    command = [name, "-c", "echo started"]
    by_env = start(["/usr/bin/env", *command], environ=environ, cwd=cwd)
    by_us = start.launched(command, environ=environ, cwd=cwd)
    assert (by_us.status, by_us.out) == (by_env.status, by_env.out)


@pytest.mark.parametrize("name", ["./bare", "bare", "sub/bare"])
def test_a_script_without_an_interpreter_is_run_by_sh(
    start: Starter,
    cwd: Path,
    name: str,
) -> None:
    for directory in (cwd, cwd / "sub"):
        write_script(directory / "bare", 'printf "%s|" "$0" "$@"\n')
    environ = [b"PATH=/nonexistent:/bin:" + os.fsencode(cwd)]
    ended = start.launched([name, "a b", "", "--", "-c"], environ=environ, cwd=cwd)
    shown = name if "/" in name else f"{cwd}/{name}"
    assert ended.out == f"{shown}|a b||--|-c|".encode()
    assert (ended.status, ended.err) == (0, b"")


def test_an_empty_file_succeeds_as_it_does_for_env(
    start: Starter,
    cwd: Path,
) -> None:
    write_script(cwd / "empty", "")
    assert start.launched(["./empty"], cwd=cwd).status == 0


@pytest.mark.parametrize(
    "conditions",
    [
        pytest.param("os.close(2)", id="closed"),
        pytest.param("os.dup2(os.open('/dev/full', os.O_WRONLY), 2)", id="full"),
        pytest.param("r, w = os.pipe(); os.dup2(w, 2); os.close(r); os.close(w)", id="closed pipe"),
        pytest.param("os.dup2(os.open('/dev/null', os.O_RDONLY), 2)", id="read-only"),
    ],
)
@pytest.mark.parametrize(("name", "status"), [("/nonexistent", 127), ("/", 126)])
def test_the_status_is_right_where_stderr_takes_nothing(
    start: Starter,
    conditions: str,
    name: str,
    status: int,
) -> None:
    ended = start.launched([name], conditions=conditions)
    assert (ended.status, ended.out, ended.err) == (status, b"", b"")


def test_a_limit_on_the_size_of_files_does_not_change_the_status(
    start: Starter,
) -> None:
    conditions = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    assert start.launched(["/nonexistent"], conditions=conditions).status == 127
