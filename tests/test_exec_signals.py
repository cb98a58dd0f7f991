"""A signal while the launcher starts ends it quietly, as it would end the command.

In the first milliseconds, before the first line of the script, CPython answers Ctrl-C with a
traceback. No program in Python can prevent that. After that line, Ctrl-C must print nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Starter

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


# The interpreter runs this after it sets its SIGINT handler, before any line of the launcher.
READY = """
import os
os.write(int(os.environ["READY"]), b".")
"""


def catches_interrupt(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as file:
        caught = next(line.split()[1] for line in file if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> signal.SIGINT - 1 & 1)


@pytest.fixture
def wait_for_first_line(tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """Return a function that waits until the launcher has removed CPython's handler."""
    (tmp_path / "sitecustomize.py").write_text(READY)
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    ENVIRONMENT.update(PYTHONPATH=str(tmp_path), READY=str(writer))

    def wait(pid: int) -> None:
        assert os.read(reader, 1) == b"."
        while catches_interrupt(pid):
            time.sleep(0)

    yield wait
    del ENVIRONMENT["PYTHONPATH"], ENVIRONMENT["READY"]
    os.close(reader)
    os.close(writer)


@contextlib.contextmanager
def running(command: list[str], stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    inherited = [int(ENVIRONMENT["READY"])] if "READY" in ENVIRONMENT else []
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=stderr, cwd="/", pass_fds=inherited)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("delay", [0, 0.0003, 0.001, 0.003])
def test_a_signal_before_the_command_starts_prints_nothing(
    launcher: list[str],
    wait_for_first_line: Callable[[int], None],
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
def test_sigterm_at_any_time_prints_nothing(
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
parent = os.getpid()
reader, writer = os.pipe()
if not os.fork():
    while b"cat" not in open(f"/proc/{{parent}}/comm", "rb").read():
        os.kill(parent, {number:d})
    os._exit(0)
os.dup2(reader, 0)
os.close(writer)
"""
    # It ends when the other process ends, which is after that has seen it.
    ended = start([*launcher, "--quiet", "--", "cat"], conditions=conditions)
    assert (ended.status, ended.out, ended.err) == (0, b"", b"")
