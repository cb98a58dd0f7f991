"""A signal while the launcher starts ends it quietly, as it would end the command.

Ctrl-C in the first milliseconds, before the interpreter runs a line of ours, is CPython's: it
prints a traceback, and no program written in Python can prevent it. From the first line of the
script on, nothing must be seen of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Starter

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def interpreter_catches(pid: int) -> bool | None:
    """Tell whether SIGINT is caught; None before CPython's start ignores SIGPIPE."""
    with open(f"/proc/{pid}/status") as file:
        sets = dict(line.split() for line in file if line.startswith(("SigCgt", "SigIgn")))
    if not int(sets["SigIgn:"], 16) >> signal.SIGPIPE - 1 & 1:
        return None
    return bool(int(sets["SigCgt:"], 16) >> signal.SIGINT - 1 & 1)


def wait_for_first_line(pid: int) -> None:
    """Return when the launcher has taken CPython's handler away, or has become the command."""
    interpreter = os.readlink(f"/proc/{pid}/exe")
    before, since = None, time.monotonic()
    while os.readlink(f"/proc/{pid}/exe") == interpreter:
        catches = interpreter_catches(pid)
        if catches is not False:
            since = time.monotonic()
        elif before or time.monotonic() - since > 0.02:
            return  # the handler is gone; perhaps it came and went while we did not look
        before = catches


@contextlib.contextmanager
def running(command: list[str], stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=stderr, cwd="/")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """Return the write end of a pipe that takes no more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"." * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    with open(reader, "rb") as file:
        assert not file.read().strip(b".")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("form", ["script", "module", "function"])
def test_a_signal_ends_a_launcher_that_waits_to_print(
    start: Starter,
    full_pipe: int,
    form: str,
    number: signal.Signals,
) -> None:
    call = "from eplb_launch.launch import become; become(['/nonexistent'], {})"
    forms = {**start.forms, "function": [sys.executable, "-c", call]}
    with running([*forms[form], "--", "/nonexistent"], stderr=full_pipe) as process:
        wait_for_first_line(process.pid)
        process.send_signal(number)
        assert process.wait() == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("delay", [0, 0.0003, 0.001, 0.003])
def test_a_signal_between_the_first_line_and_the_command_is_quiet(
    launcher: list[str],
    number: signal.Signals,
    delay: float,
) -> None:
    with running([*launcher, "--quiet", "--", "sleep", "60"], stderr=subprocess.PIPE) as process:
        wait_for_first_line(process.pid)
        time.sleep(delay)
        process.send_signal(number)
        assert process.communicate()[1] == b""
    assert process.returncode == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("delay", [0, 0.004, 0.008, 0.012, 0.016, 0.02, 0.03])
def test_termination_at_any_time_is_quiet(
    start: Starter,
    number: signal.Signals,
    delay: float,
) -> None:
    command = [*start.forms["script"], "--quiet", "--", "sleep", "60"]
    with running(command, stderr=subprocess.PIPE) as process:
        time.sleep(delay)
        process.send_signal(number)
        assert process.communicate()[1] == b""
    assert process.returncode == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_does_not_end_the_start(
    start: Starter,
    launcher: list[str],
    number: signal.Signals,
) -> None:
    conditions = f"""
signal.signal({number:d}, signal.SIG_IGN)
if not os.fork():
    parent = os.getppid()
    while b"sleep" not in open(f"/proc/{{parent}}/comm", "rb").read():
        os.kill(parent, {number:d})
    os._exit(0)
"""
    ended = start([*launcher, "--quiet", "--", "sleep", "0.2"], conditions=conditions)
    assert (ended.status, ended.out, ended.err) == (0, b"", b"")
