"""`become`, called by a Python program."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Ended, Starter

IMPORTS = """
import os, signal, sys, threading
from eplb_launch.launch import become, say
probe = os.fsencode(sys.argv[1])
"""


def run(start: Starter, program: str, *arguments: str, conditions: str = "") -> Ended:
    words: list[bytes | str] = [sys.executable, "-c", IMPORTS + program, start.probe, *arguments]
    return start(words, conditions=conditions)


def test_buffered_text_comes_before_the_output_of_the_command(start: Starter) -> None:
    program = """
print("out", end=" ")
sys.stderr = open(2, "w", buffering=1000, closefd=False)
sys.stderr.write("err ")
become(["sh", "-c", "echo command; echo command >&2"], {})
"""
    ended = run(start, program)
    assert (ended.status, ended.out, ended.err) == (0, b"out command\n", b"err command\n")


@pytest.mark.parametrize(
    "statement",
    [
        "sys.stdout = sys.stderr = None",
        "sys.stdout.close()",
        "sys.stdout = object()",
        "import io; sys.stdout = io.StringIO()",
        "os.close(1)",
        "r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.close(w)",
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
    ],
)
def test_the_command_starts_if_stdout_cannot_be_flushed(start: Starter, statement: str) -> None:
    ended = run(start, f"print('x', end=''); {statement}\nbecome([probe], {{}})")
    assert (ended.status, ended.err) == (0, b"")
    assert ended.seen["pid"] == "@PID@"


def test_other_threads_end_and_the_pid_stays(start: Starter) -> None:
    program = """
for _ in range(3):
    threading.Thread(target=threading.Event().wait).start()
become([probe], {})
"""
    ended = run(start, program)
    assert (ended.status, ended.err) == (0, b"")
    assert (ended.seen["pid"], ended.seen["status.Threads"]) == ("@PID@", "1")


def test_variables_go_on_top_of_what_the_program_changed(start: Starter) -> None:
    program = """
os.environ["B"] = "2"
del os.environ["HOME"]
become([probe, "é", b"\\xff", "\\udc80"], {"NCCL_MAX_CTAS": "8", "LANG": "C"})
"""
    ended = run(start, program)
    assert ended.argv()[1:] == ["é".encode(), b"\xff", b"\x80"]
    assert ended.environ() == [
        b"PATH=/usr/local/bin:/usr/bin:/bin",
        b"LANG=C",
        b"B=2",
        b"NCCL_MAX_CTAS=8",
    ]


def test_a_path_that_is_set_is_the_one_that_is_searched(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vllm").symlink_to(start.probe.decode())
    ended = run(start, f"become(['vllm'], {{'PATH': '/nonexistent:{tmp_path}/bin'}})")
    assert bytes.fromhex(ended.seen["execfn"]) == os.fsencode(tmp_path / "bin/vllm")


def test_handlers_end_and_what_is_ignored_stays_ignored(start: Starter) -> None:
    program = """
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
become([probe], {})
"""
    seen = run(start, program).seen
    assert seen[f"signal.{15}"].startswith("default")
    assert seen[f"signal.{10}"].startswith("ignored")


def test_files_of_the_program_are_closed(start: Starter) -> None:
    ended = run(start, "file = open('/dev/null')\nbecome([probe], {})")
    assert sorted(name for name in ended.seen if name.startswith("fd.")) == ["fd.0", "fd.1", "fd.2"]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("become([], {})", "empty"),
        ("become(['true', 'a\\0b'], {})", "NUL"),
        ("become(['tr\\0ue'], {})", "NUL"),
        ("become(['true', '\\ud800'], {})", "surrogates"),
    ],
)
def test_an_invalid_command_is_refused_with_nothing_changed(
    start: Starter,
    call: str,
    why: str,
) -> None:
    program = f"""
try:
    {call}
except ValueError as error:
    print(error)
assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
"""
    ended = run(start, program)
    assert (ended.status, ended.err) == (0, b"")
    assert why in ended.out.decode()


def test_another_thread_is_refused_with_nothing_changed(start: Starter) -> None:
    program = """
def call():
    try:
        become([probe], {})
    except ValueError as error:
        print(error)
thread = threading.Thread(target=call)
thread.start()
thread.join()
assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
"""
    ended = run(start, program)
    assert (ended.status, ended.err) == (0, b"")
    assert b"main thread" in ended.out


def test_an_argument_that_is_too_long_is_reported_as_by_env(start: Starter) -> None:
    ended = run(start, "become(['true', 'x' * 200_000], {})")
    assert ended.err == b"eplb-launch: 'true': Argument list too long\n"
    assert (ended.status, ended.out) == (126, b"")


def test_a_file_that_reuses_the_number_of_stderr_is_not_written(
    start: Starter,
    tmp_path: Path,
) -> None:
    program = """
file = open("took", "w")
assert file.fileno() == 2
become(["/nonexistent"], {})
"""
    assert run(start, program, conditions="os.close(2)").status == 127
    assert (tmp_path / "took").read_bytes() == b""


def test_each_message_is_one_line(start: Starter) -> None:
    ended = run(start, "say('a\\nb\\r\\udcff\\N{SNOWMAN}')")
    assert ended.err == "eplb-launch: a\\nb\\r\\udcff\N{SNOWMAN}\n".encode()
