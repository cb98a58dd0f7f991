"""A launch prints each warning as one line. --strict then exits with 125; --quiet prints none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ASYNC = [
    *("-dp", "8", "-ep", "--enable-eplb", "--all2all-backend", "deepep_low_latency"),
    *("--eplb-config.use_async", "true"),
]
SET = (
    "eplb-launch: set NCCL_MAX_CTAS={}: async EPLB with DeepEP low-latency "
    "(data_parallel_size=8, vLLM 0.16.0)"
)
MINIMUM = (
    "eplb-launch: {}NCCL_MIN_NCHANNELS=16 in the environment voids the cap: NCCL takes at least "
    "16 CTAs for everything; unset it there, or set it to 8 or less"
)

DROPPED = (
    "eplb-launch: warning: env does not pass NCCL_MAX_CTAS on to the server; "
    "put `eplb-launch --` directly before `vllm serve`"
)
ALL = " ".join(f"eplb_launch.nccl{name}" for name in ("", ".cases", ".checks", ".variables"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    server = tmp_path / "vllm"
    server.write_text('#!/bin/sh\necho "NCCL_MAX_CTAS=${NCCL_MAX_CTAS-unset}"\n')
    server.chmod(0o755)
    return tmp_path


def start(
    folder: Path, *words: str, server: tuple[str, ...] = ("vllm", "serve", "m"), **environ: str
) -> tuple[int, str, list[str]]:
    """Start the launcher, and return its status, its output and the lines on stderr."""
    argv = [sys.executable, "-m", "eplb_launch", "--vllm-version=0.16.0", *words]
    whole = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "200", **environ}
    done = subprocess.run(
        [*argv, "--", *server, *ASYNC],
        env=whole,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_a_warning_is_one_line(folder: Path) -> None:
    assert start(folder, NCCL_MIN_NCHANNELS="16") == (
        *(0, "NCCL_MAX_CTAS=8\n"),
        [SET.format(8), MINIMUM.format("warning: ")],
    )


def test_each_warning_has_its_line(folder: Path) -> None:
    status, out, lines = start(
        folder, NCCL_MIN_NCHANNELS="16", NCCL_MIN_P2P_NCHANNELS="32", NCCL_MAX_CTAS="0"
    )
    assert (status, out) == (0, "NCCL_MAX_CTAS=0\n")
    assert all(line.startswith("eplb-launch: warning: ") for line in lines)
    expected = ("NCCL_MIN_NCHANNELS=16", "NCCL_MIN_P2P_NCHANNELS=32", "NCCL_MAX_CTAS=0")
    assert [name for line, name in zip(lines, expected, strict=True) if name in line] == [*expected]


def test_strict_prevents_the_start_after_a_warning(folder: Path) -> None:
    assert start(folder, "--strict", NCCL_MIN_NCHANNELS="16") == (
        *(125, ""),
        [MINIMUM.format("not started (--strict): ")],
    )


def test_strict_starts_without_a_warning(folder: Path) -> None:
    status, out, lines = start(folder, "--strict", NCCL_MIN_NCHANNELS="8", NCCL_MIN_CTAS="16")
    assert (status, out, lines) == (0, "NCCL_MAX_CTAS=8\n", [SET.format(8)])


def test_quiet_is_silent(folder: Path) -> None:
    assert start(folder, "--quiet", NCCL_MIN_NCHANNELS="16") == (0, "NCCL_MAX_CTAS=8\n", [])


def test_a_launch_prints_no_notes(folder: Path) -> None:
    command = ("vllm", "serve", "m", "--nnodes", "2", "--headless")
    status, out, lines = start(folder, "--strict", server=command)
    assert (status, out, lines) == (0, "NCCL_MAX_CTAS=8\n", [SET.format(8)])


def test_the_limit_of_a_conf_file_stays(folder: Path) -> None:
    (folder / "n.conf").write_text("NCCL_MAX_CTAS=4\n")
    status, out, (line,) = start(folder, NCCL_CONF_FILE=str(folder / "n.conf"))
    assert (status, out) == (0, "NCCL_MAX_CTAS=unset\n")
    assert line.startswith("eplb-launch: warning: NCCL_MAX_CTAS=4 in ")
    status, out, lines = start(folder, "--strict", NCCL_CONF_FILE=str(folder / "n.conf"))
    assert (status, out, len(lines)) == (125, "", 1)


def test_a_conf_file_that_is_a_pipe_does_not_block_the_start(folder: Path) -> None:
    os.mkfifo(folder / "n.conf")
    status, out, lines = start(folder, NCCL_CONF_FILE=str(folder / "n.conf"))
    assert (status, out, lines) == (0, "NCCL_MAX_CTAS=8\n", [SET.format(8)])


def test_a_wrapper_that_drops_the_variable_is_a_warning(folder: Path) -> None:
    command = ("env", "-u", "NCCL_MAX_CTAS", "vllm", "serve", "m")
    status, out, lines = start(folder, server=command)
    assert (status, out) == (0, "NCCL_MAX_CTAS=unset\n")
    assert lines == [
        SET.format(8),
        DROPPED,
    ]
    command = ("env", "-i", f"PATH={folder}:/bin", "vllm", "serve", "m")
    assert start(folder, "--strict", server=command)[:2] == (125, "")


def test_one_line_says_what_the_server_gets(folder: Path) -> None:
    command = ("env", "NCCL_MAX_CTAS=x", "vllm", "serve", "m")
    status, out, lines = start(folder, server=command)
    assert (status, out) == (0, "NCCL_MAX_CTAS=x\n")
    (line,) = lines
    assert line == (
        "eplb-launch: warning: env sets NCCL_MAX_CTAS=x for the server, and overwrites the "
        "value set here; remove it there, or put `eplb-launch --` directly before `vllm serve`"
    )


@pytest.mark.parametrize("words", [["--max-ctas", "4"], ["--max-ctas=4"], ["--max-ctas=04"]])
def test_another_cap_reaches_the_server(folder: Path, words: list[str]) -> None:
    assert start(folder, *words) == (0, "NCCL_MAX_CTAS=4\n", [SET.format(4)])


def test_another_cap_does_not_replace_a_value(folder: Path) -> None:
    assert start(folder, "--max-ctas=4", NCCL_MAX_CTAS="2") == (0, "NCCL_MAX_CTAS=2\n", [])


def test_fit_sets_the_cap_that_fits(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"n_routed_experts": 256}))
    server = ("vllm", "serve", str(folder))
    for words in (["--max-ctas", "fit", "--sms", "132"], ["--sms=132", "--max-ctas=fit"]):
        assert start(folder, "--strict", *words, server=server) == (
            *(0, "NCCL_MAX_CTAS=4\n"),
            [SET.format(4)],
        )


def test_fit_without_the_expert_count_is_a_warning(folder: Path) -> None:
    words = ["--max-ctas", "fit", "--sms", "132"]
    status, out, lines = start(folder, *words)
    assert (status, out) == (0, "NCCL_MAX_CTAS=4\n")
    assert lines[0] == SET.format(4)
    assert "fits beside DeepEP's combine, but its dispatch is not known" in lines[1]
    assert start(folder, "--strict", *words)[:2] == (125, "")


def test_fit_sets_8_with_a_warning_if_nothing_fits(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"n_routed_experts": 132}))
    server = ("vllm", "serve", str(folder))
    words = ["--max-ctas", "fit", "--sms", "132"]
    status, out, lines = start(folder, *words, server=server)
    assert (status, out) == (0, "NCCL_MAX_CTAS=8\n")
    assert "--max-ctas fit: nothing fits on a GPU of 132 SMs" in lines[1]
    assert start(folder, "--quiet", *words, server=server) == (0, "NCCL_MAX_CTAS=8\n", [])
    assert start(folder, "--strict", *words, server=server)[0] == 125


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-ctas", "0"], "--max-ctas must be a number from 1 to 64, or fit"),
        (["--max-ctas=65"], "--max-ctas must be a number from 1 to 64, or fit"),
        (["--max-ctas="], "--max-ctas must be a number from 1 to 64, or fit"),
        (["--max-ctas=0x8"], "--max-ctas must be a number from 1 to 64, or fit"),
        (["--max-ctas=fit", "--sms=many"], "--sms must be a number from 1 to 1024"),
        (["--max-ctas=fit", "--sms=0"], "--sms must be a number from 1 to 1024"),
        (["--sms", "132"], "--sms needs --max-ctas fit"),
        (["--max-ctas=4", "--sms", "132"], "--sms needs --max-ctas fit"),
    ],
)
def test_a_usage_error_exits_with_2_and_starts_nothing(
    folder: Path, words: list[str], message: str
) -> None:
    status, out, lines = start(folder, *words)
    assert (status, out) == (2, "")
    assert message in "\n".join(lines)


def test_sub_commands_take_the_option_for_the_cap(folder: Path) -> None:
    argv = [sys.executable, "-m", "eplb_launch", "--max-ctas=4", "env", "--vllm-version=0.16.0"]
    environ = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(
        [*argv, "--", "vllm", "serve", "m", *ASYNC], env=environ, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"export NCCL_MAX_CTAS=4\n")


QUIET = """
import sys
sys.argv[1:] = []
from eplb_launch import plan
before = set(sys.modules)
decided = plan(%r, %r, vllm_version="0.16.0", nixl=False)
print(bool(decided.decisive), *sorted(m for m in set(sys.modules) - before if "eplb" in m))
"""


@pytest.mark.parametrize(
    ("command", "environ", "loaded"),
    [
        (["vllm", "serve", "m"], {"NCCL_MIN_NCHANNELS": "16"}, "False"),
        (
            ["vllm", "serve", "m", *ASYNC],
            {"NCCL_DEBUG": "INFO"},
            "True",
        ),
        (
            ["vllm", "serve", "m", *ASYNC],
            {"NCCL_MIN_CTAS": "4"},
            f"True {ALL}",
        ),
    ],
    ids=["no hazard", "the ordinary case", "a variable of NCCL"],
)
def test_the_checks_are_loaded_only_if_they_are_needed(
    command: list[str], environ: dict[str, str], loaded: str
) -> None:
    program = "import eplb_launch.plans\n" + QUIET % (command, environ)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == loaded
