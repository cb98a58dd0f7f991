"""A launch imports few modules: each one slows down every start, and can be shadowed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Starter

# The arguments of a server, with every setting of the rule.
SERVE = [
    *("vllm", "serve", "deepseek-ai/DeepSeek-V3", "--tensor-parallel-size", "1"),
    *("--data-parallel-size", "8", "--enable-expert-parallel", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--eplb-config.use_async", "true"),
    *("--eplb-config.window_size", "1000", "--max-model-len", "8192", "--port", "8000"),
]
COSTLY = {
    *("argparse", "click", "collections", "dataclasses", "enum", "functools"),
    *("importlib.metadata", "inspect", "json", "logging", "pathlib", "psutil", "re", "rich"),
    *("shlex", "signal", "subprocess", "typer", "typing", "warnings", "yaml"),
}
# Modules that are built into the interpreter, and one tiny file.
FREE = {"_signal", "errno", "gc", "__future__"}


@pytest.fixture
def environ(start: Starter, tmp_path: Path) -> list[bytes]:
    """Return an environment with a `vllm`, in which Python prints its imports."""
    (tmp_path / "vllm").symlink_to(os.fsdecode(start.probe))
    return [b"PATH=" + os.fsencode(tmp_path), b"PYTHONPROFILEIMPORTTIME=1"]


def imported(text: bytes) -> set[str]:
    """Return the modules that PYTHONPROFILEIMPORTTIME printed."""
    lines = text.decode().splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


@pytest.fixture
def at_start(start: Starter, environ: list[bytes]) -> set[str]:
    """Return the modules that the interpreter imports by itself, also for its .pth files."""
    script = start.forms["script"][0]
    with open(script) as file:
        interpreter = file.readline()[2:].strip()
    return imported(start([interpreter, "-c", "pass"], environ=environ).err)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="release looked up"),
        pytest.param(["--vllm-version", "0.16.0"], id="release given"),
        pytest.param(["--quiet", "--strict"], id="flags"),
    ],
)
def test_a_launch_loads_its_own_modules_and_no_other(
    start: Starter,
    environ: list[bytes],
    at_start: set[str],
    options: list[str],
) -> None:
    ended = start([*start.forms["script"], *options, "--", *SERVE], environ=environ)
    assert ended.seen
    loaded = imported(ended.err) - at_start
    assert "eplb_launch.launch" in loaded
    assert not loaded & COSTLY
    assert "eplb_launch.entrypoints" in loaded
    assert not any(name.startswith("eplb_launch.command") for name in loaded)
    assert {name for name in loaded - FREE if not name.startswith("eplb_launch")} == set()


def test_a_command_that_is_no_server_loads_no_more(
    start: Starter,
    environ: list[bytes],
    at_start: set[str],
) -> None:
    ended = start([*start.forms["script"], "--", "vllm", "--version"], environ=environ)
    assert ended.seen
    loaded = imported(ended.err) - at_start
    assert {name for name in loaded - FREE if not name.startswith("eplb_launch")} == set()


def test_only_an_unknown_program_is_looked_up(start: Starter, environ: list[bytes]) -> None:
    known = start([*start.forms["script"], "--", "/usr/bin/nice", *SERVE], environ=environ)
    other = start([*start.forms["script"], "--", "/usr/bin/true", *SERVE], environ=environ)
    assert "eplb_launch.command.find" in imported(known.err)
    assert "eplb_launch.command.scripts" not in imported(known.err)
    assert "eplb_launch.command.scripts" in imported(other.err)
