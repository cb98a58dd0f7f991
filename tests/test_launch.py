"""If the rule holds, the command gets NCCL_MAX_CTAS=8 and an otherwise unchanged environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Ended, Starter

RELEASE = ["--vllm-version", "0.16.0"]
# Setting: the arguments that meet its condition.
SETTINGS = {
    "data_parallel_size": ["--data-parallel-size", "8"],
    "enable_eplb": ["--enable-eplb"],
    "expert_parallel": ["--enable-expert-parallel"],
    "all2all_backend": ["--all2all-backend", "deepep_low_latency"],
    "use_async": ["--eplb-config.use_async", "true"],
}
# EPLB balances nothing without it, but it is no condition of the rule.
NOT_A_CONDITION = "expert_parallel"
SERVE = ["vllm", "serve", "m", *(word for words in SETTINGS.values() for word in words)]
LINE = (
    b"eplb-launch: set NCCL_MAX_CTAS=8: async EPLB with DeepEP low-latency"
    b" (data_parallel_size=8, vLLM 0.16.0)\n"
)

# The environment of the launcher, and the environment that the command gets.
ENVIRONMENTS: dict[str, tuple[list[bytes], list[bytes]]] = {
    "absent": ([b"A=1", b"B=2"], [b"A=1", b"B=2", b"NCCL_MAX_CTAS=8"]),
    "empty": ([b"A=1", b"NCCL_MAX_CTAS=", b"B=2"], [b"A=1", b"NCCL_MAX_CTAS=8", b"B=2"]),
    "not a number": ([b"NCCL_MAX_CTAS=all", b"B=2"], [b"NCCL_MAX_CTAS=8", b"B=2"]),
    "negative": ([b"A=1", b"NCCL_MAX_CTAS=-1"], [b"A=1", b"NCCL_MAX_CTAS=8"]),
    "not UTF-8": ([b"NCCL_MAX_CTAS=\xff", b"B=2"], [b"NCCL_MAX_CTAS=8", b"B=2"]),
    "without =": ([b"NCCL_MAX_CTAS", b"B=2"], [b"NCCL_MAX_CTAS", b"B=2", b"NCCL_MAX_CTAS=8"]),
    "twice": (
        [b"NCCL_MAX_CTAS=x", b"B=2", b"NCCL_MAX_CTAS=y"],
        [b"NCCL_MAX_CTAS=8", b"B=2", b"NCCL_MAX_CTAS=y"],
    ),
    "beside oddities": (
        [b"=x", b"A=1", b"A=2", b"NOTHING", b"", b"\xff=\xfe", b"my.var=1"],
        [b"=x", b"A=1", b"A=2", b"NOTHING", b"", b"\xff=\xfe", b"my.var=1", b"NCCL_MAX_CTAS=8"],
    ),
    "in the C locale": (
        [b"LANG=C", b"LC_CTYPE=POSIX", b"B=2"],
        [b"LANG=C", b"LC_CTYPE=POSIX", b"B=2", b"NCCL_MAX_CTAS=8"],
    ),
    "among 5000": (
        [b"NAME_%d=1" % number for number in range(5000)],
        [*(b"NAME_%d=1" % number for number in range(5000)), b"NCCL_MAX_CTAS=8"],
    ),
}


@pytest.fixture
def path(start: Starter, tmp_path: Path) -> bytes:
    """Return a PATH on which `vllm` is the probe, as an entry of an environment."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vllm").symlink_to(os.fsdecode(start.probe))
    return b"PATH=" + os.fsencode(tmp_path / "bin")


@pytest.fixture
def serve(start: Starter, launcher: list[str], path: bytes) -> Ended:
    """Return the result of starting a server for which the rule holds."""
    return start([*launcher, *RELEASE, "--", *SERVE], environ=[path])


def test_one_line_says_what_was_set_and_why(serve: Ended) -> None:
    assert (serve.status, serve.out, serve.err) == (0, b"", LINE)


def test_the_variable_arrives_in_the_same_process(serve: Ended, path: bytes) -> None:
    assert serve.seen["pid"] == "@PID@"
    assert serve.environ() == [path, b"NCCL_MAX_CTAS=8"]
    assert serve.argv()[1:] == [os.fsencode(word) for word in SERVE[1:]]


@pytest.mark.parametrize(("before", "after"), ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_environment_differs_by_the_variable_alone(
    start: Starter,
    path: bytes,
    before: list[bytes],
    after: list[bytes],
) -> None:
    ended = start([*start.forms["script"], *RELEASE, "--", *SERVE], environ=[path, *before])
    assert ended.environ() == [path, *after]
    said, *rest = ended.err.splitlines(keepends=True)
    assert said == LINE
    # A warning also says how NCCL would read the replaced value.
    assert all(line.startswith(b"eplb-launch: warning: NCCL_MAX_CTAS") for line in rest)


@pytest.mark.parametrize("value", [b"1", b"8", b"16", b"08"])
def test_a_number_that_is_set_stays(start: Starter, path: bytes, value: bytes) -> None:
    environ = [path, b"NCCL_MAX_CTAS=" + value, b"B=2"]
    ended = start([*start.forms["script"], *RELEASE, "--", *SERVE], environ=environ)
    assert ended.environ() == environ


@pytest.mark.parametrize("missing", [name for name in SETTINGS if name != NOT_A_CONDITION])
def test_nothing_is_set_or_said_without_a_condition(
    start: Starter,
    path: bytes,
    missing: str,
) -> None:
    words = [word for name in SETTINGS if name != missing for word in SETTINGS[name]]
    command = [*start.forms["script"], *RELEASE, "--", "vllm", "serve", "m", *words]
    ended = start(command, environ=[path])
    assert (ended.status, ended.out, ended.err) == (0, b"", b"")
    assert ended.environ() == [path]


def test_quiet_sets_and_says_nothing(start: Starter, path: bytes) -> None:
    command = [*start.forms["script"], *RELEASE, "--quiet", "--", *SERVE]
    ended = start(command, environ=[path])
    assert (ended.status, ended.out, ended.err) == (0, b"", b"")
    assert ended.environ() == [path, b"NCCL_MAX_CTAS=8"]


@pytest.mark.parametrize(
    "conditions",
    [
        pytest.param("os.close(2)", id="stderr closed"),
        pytest.param("os.closerange(0, 3)", id="0, 1 and 2 closed"),
        pytest.param("os.dup2(os.open('/dev/full', os.O_WRONLY), 2)", id="stderr full"),
        pytest.param("r, w = os.pipe(); os.dup2(w, 2); os.close(r); os.close(w)", id="closed pipe"),
        pytest.param("os.chdir('/proc/self/fd')", id="odd cwd"),
    ],
)
def test_the_variable_arrives_in_odd_conditions(
    start: Starter,
    path: bytes,
    conditions: str,
) -> None:
    command = [*start.forms["script"], *RELEASE, "--", *SERVE]
    ended = start(command, environ=[path], conditions=conditions)
    assert (ended.status, ended.out) == (0, b"")
    assert ended.environ() == [path, b"NCCL_MAX_CTAS=8"]


SHADOWED = (
    *("argparse", "ast", "collections", "contextlib", "copyreg", "dataclasses", "enum"),
    *("fnmatch", "functools", "glob", "importlib_metadata", "inspect", "json", "keyword"),
    *("locale", "logging", "operator", "pathlib", "platform", "psutil", "random", "re", "reprlib"),
    *(
        "select",
        "shlex",
        "shutil",
        "signal",
        "string",
        "subprocess",
        "tempfile",
        "textwrap",
        "threading",
    ),
    *("token", "tokenize", "typer", "types", "typing", "typing_extensions", "warnings", "weakref"),
    *("yaml", "zipfile"),
)


@pytest.fixture
def shadows(tmp_path: Path) -> bytes:
    """Return a PYTHONPATH whose modules all fail, as an entry of an environment."""
    directory = tmp_path / "shadows"
    directory.mkdir()
    for name in SHADOWED:
        (directory / f"{name}.py").write_text("raise SystemExit('shadowed: ' + __name__)\n")
    return b"PYTHONPATH=" + os.fsencode(directory)


def test_the_command_starts_if_pythonpath_shadows_modules(
    start: Starter,
    path: bytes,
    shadows: bytes,
) -> None:
    command = [*start.forms["script"], *RELEASE, "--", *SERVE]
    ended = start(command, environ=[path, shadows])
    assert (ended.status, ended.out, ended.err) == (0, b"", LINE)
    assert ended.environ() == [path, shadows, b"NCCL_MAX_CTAS=8"]


def test_a_module_that_cannot_be_loaded_is_reported_and_the_command_runs(
    start: Starter,
    path: bytes,
    shadows: bytes,
) -> None:
    in_json = ["--eplb-config", '{"use_async": true, "x": "s3cret"}']
    command = [*start.forms["script"], *RELEASE, "--", *SERVE[:-2], *in_json]
    ended = start(command, environ=[path, shadows])
    assert ended.environ() == [path, shadows]
    assert (ended.status, ended.out) == (0, b"")
    assert ended.err.startswith(b"eplb-launch: ")
    assert ended.err.count(b"\n") == 1
    assert b"s3cret" not in ended.err
