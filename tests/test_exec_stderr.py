"""The launcher never waits for a reader of stderr, and leaves its flags as they were."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import socket
import subprocess
import sys
import tty
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Starter

SERVE = [
    *("vllm", "serve", "m", "-dp", "8", "--enable-eplb", "--all2all-backend"),
    *("deepep_low_latency", "--eplb-config.use_async", "true"),
]
LAUNCH = ["--vllm-version", "0.16.0", "--", *SERVE]
LINE = b"eplb-launch: set NCCL_MAX_CTAS=8: "
# The command prints that it started, and whether its stderr is non-blocking.
SAYS = """#!{python} -IS
import fcntl, os
flags = fcntl.fcntl(2, fcntl.F_GETFL)
print("started", os.environ.get("NCCL_MAX_CTAS"), flags & os.O_NONBLOCK)
"""


def pipe() -> tuple[int, int]:
    return os.pipe()


def sockets() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def terminal() -> tuple[int, int]:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    return ours, theirs


KINDS = [pytest.param(kind, id=kind.__name__) for kind in (pipe, sockets, terminal)]


@pytest.fixture
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Return the end to read from, and the end that becomes stderr."""
    reader, writer = request.param()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a `vllm`."""
    program = tmp_path / "vllm"
    program.write_text(SAYS.format(python=sys.executable))
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "LANG": "C.UTF-8"}


def fill(writer: int) -> None:
    """Write until the descriptor is full; its flags stay as they were."""
    os.set_blocking(writer, False)
    # The kernel moves the bytes of a terminal on a little later, which makes room again.
    while select.select([], [writer], [], 0.2)[1]:
        for size in (4096, 1):
            try:
                while True:
                    os.write(writer, b"." * size)
            except BlockingIOError:
                pass
    os.set_blocking(writer, True)


def drained(reader: int) -> bytes:
    os.set_blocking(reader, False)
    content = b""
    try:
        while piece := os.read(reader, 1 << 16):
            content += piece
    except OSError:
        pass
    return content


@pytest.mark.parametrize("ends", KINDS, indirect=True)
@pytest.mark.parametrize("form", ["script", "module"])
def test_the_command_starts_though_stderr_is_full(
    start: Starter, ends: tuple[int, int], environ: dict[str, str], form: str
) -> None:
    reader, writer = ends
    fill(writer)
    done = subprocess.run(
        [*start.forms[form], *LAUNCH],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=writer,
        check=True,
    )
    assert done.stdout == b"started 8 0\n"
    assert b"eplb-launch" not in drained(reader)


@pytest.mark.parametrize("ends", KINDS, indirect=True)
def test_the_line_arrives_if_stderr_has_room_and_no_flag_changes(
    start: Starter, ends: tuple[int, int], environ: dict[str, str]
) -> None:
    reader, writer = ends
    before = fcntl.fcntl(writer, fcntl.F_GETFL)
    done = subprocess.run(
        [*start.forms["script"], *LAUNCH],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=writer,
        check=True,
    )
    assert done.stdout == b"started 8 0\n"
    assert drained(reader).startswith(LINE)
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == before


@pytest.mark.parametrize("ends", [pytest.param(pipe, id="pipe")], indirect=True)
def test_no_launcher_waits_if_many_share_the_last_page_of_a_pipe(
    start: Starter, ends: tuple[int, int], environ: dict[str, str]
) -> None:
    """To ask for room and to take it must be one step."""
    reader, writer = ends
    fill(writer)
    os.read(reader, 4096)
    processes = [
        subprocess.Popen(
            [*start.forms["script"], *LAUNCH, "x" * 3000],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=writer,
        )
        for _ in range(8)
    ]
    assert [process.communicate()[0] for process in processes] == [b"started 8 0\n"] * 8
    lines = drained(reader).lstrip(b".").splitlines()
    assert all(line.startswith(LINE) for line in lines)


@pytest.mark.parametrize("ends", KINDS, indirect=True)
@pytest.mark.parametrize("command", [["/nonexistent"], ["vllm", "serve", "m", "--tp", "x"]])
def test_a_failed_start_does_not_wait_for_stderr(
    start: Starter, ends: tuple[int, int], command: list[str]
) -> None:
    fill(ends[1])
    launcher = [*start.forms["script"], "--", *command]
    process = subprocess.Popen(launcher, env={"PATH": "/nonexistent"}, stderr=ends[1])
    assert process.wait() == 127


def test_a_line_is_never_longer_than_a_pipe_takes_at_once(
    start: Starter, environ: dict[str, str], tmp_path: Path
) -> None:
    command = [*start.forms["script"], "--quiet", "--", str(tmp_path / ("é" * 9 + "/x" * 2100))]
    done = subprocess.run(command, env=environ, stderr=subprocess.PIPE, check=False)
    assert done.returncode in (126, 127)
    assert len(done.stderr) <= 4096
    assert done.stderr.count(b"\n") == 1


ODD = "\x1b]0;title\x07\r\n::error::x ##[command]y \u202e\x7f"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--", "/nonexistent" + ODD], id="a command that is not there"),
        pytest.param(["--verbose", "--", "vllm", "serve", "--config", ODD], id="a file"),
        pytest.param(["--verbose", "--", "vllm", "serve", "m", "-dp", ODD], id="a value"),
        pytest.param(
            ["--", "env", f"NCCL_MAX_CTAS=9{ODD}", *SERVE, "--tensor-parallel-size", ODD],
            id="a value of the variable",
        ),
    ],
)
def test_each_message_is_one_line_without_control_characters(
    start: Starter, environ: dict[str, str], words: list[str]
) -> None:
    command = [*start.forms["script"], *words]
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    text = done.stderr.decode()
    assert text.endswith("\n")
    assert all(line.isprintable() for line in text[:-1].split("\n"))
    assert all(line.startswith("eplb-launch: ") for line in text[:-1].split("\n"))
    assert "##[" not in text


def test_messages_reach_a_stderr_in_memory(environ: dict[str, str]) -> None:
    """The lines go to sys.stderr even if it has no descriptor."""
    code = (
        "import io, sys; sys.stderr = io.StringIO()\n"
        "from eplb_launch.launch import say; say('a'); print(repr(sys.stderr.getvalue()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "'eplb-launch: a\\n'\n"
