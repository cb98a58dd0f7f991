"""The rule as vLLM wrote it: four conditions, and which values it keeps."""

from __future__ import annotations

import inspect
import itertools
import os
import pydoc
import subprocess
import sys
from types import SimpleNamespace

import pytest

import eplb_launch
from eplb_launch import override_envs_for_eplb, plan

SIZES = (0, 1, 2, 8)
BACKENDS = ("deepep_low_latency", "deepep_high_throughput", "allgather_reducescatter", None)
# Values that are set already, and whether they stay: `value and value.isdigit()`.
CURRENT = {
    None: False,
    "": False,
    "0": True,
    "00": True,
    "08": True,
    "8": True,
    "4": True,
    "64": True,
    "4294967304": True,
    "99999999999999999999": True,
    "\u0668": True,  # ARABIC-INDIC DIGIT EIGHT
    "\u00b2": True,  # SUPERSCRIPT TWO: isdigit(), though int() refuses it
    "\u2167": False,  # ROMAN NUMERAL EIGHT is numeric, and no digit
    "8 ": False,
    " 8": False,
    "+8": False,
    "-1": False,
    "0x8": False,
    "8.0": False,
    "1_0": False,
    "8abc": False,
    "abc": False,
}
CASES = list(itertools.product(SIZES, (False, True), (False, True), BACKENDS))


def config(size: int, eplb: bool, use_async: bool, backend: str | None) -> SimpleNamespace:
    return SimpleNamespace(
        data_parallel_size=size,
        enable_eplb=eplb,
        eplb_config=SimpleNamespace(use_async=use_async),
        all2all_backend=backend,
    )


def command(size: int, eplb: bool, use_async: bool, backend: str | None) -> list[str]:
    words = ["vllm", "serve", "m", f"-dp={size}", "--enable-expert-parallel"]
    words += ["--enable-eplb"] if eplb else []
    words += ["--eplb-config.use_async", str(use_async).lower()]
    return words + ([] if backend is None else ["--all2all-backend", backend])


def expected(
    size: int, eplb: bool, use_async: bool, backend: str | None, current: str | None
) -> str | None:
    exposed = size > 1 and eplb and use_async and backend == "deepep_low_latency"
    return "8" if exposed and not CURRENT[current] else current


@pytest.mark.parametrize("current", CURRENT, ids=repr)
def test_the_override_follows_the_truth_table(current: str | None) -> None:
    for case in CASES:
        environ = {} if current is None else {"NCCL_MAX_CTAS": current}
        override_envs_for_eplb(config(*case), environ)
        assert environ.get("NCCL_MAX_CTAS") == expected(*case, current), case


@pytest.mark.parametrize("current", CURRENT, ids=repr)
@pytest.mark.parametrize("version", ["0.12.0", "0.16.0", "0.17.1", "0.19.1"])
def test_the_plan_follows_the_truth_table(current: str | None, version: str) -> None:
    for case in CASES:
        environ = {} if current is None else {"NCCL_MAX_CTAS": current}
        decided = plan(command(*case), environ, vllm_version=version, nixl=False)
        after = {**environ, **decided.environment}
        assert after.get("NCCL_MAX_CTAS") == expected(*case, current), case
        # test_checks tests the warnings about the value.
        assert all(warning.code.startswith("value-") for warning in decided.warnings)


def test_the_truth_table_has_rows_that_fire_and_rows_that_do_not() -> None:
    fired = [expected(*case, None) == "8" for case in CASES]
    assert sum(fired) == 2
    assert len(fired) == 64


def test_the_override_leaves_all_else_alone() -> None:
    environ = {"A": "1", "NCCL_MIN_CTAS": "4"}
    override_envs_for_eplb(config(8, True, True, "deepep_low_latency"), environ)
    assert environ == {"A": "1", "NCCL_MIN_CTAS": "4", "NCCL_MAX_CTAS": "8"}


def test_the_override_writes_the_environment_of_the_process_and_says_so_once() -> None:
    script = """
import os
from types import SimpleNamespace
from eplb_launch import override_envs_for_eplb
config = SimpleNamespace(data_parallel_size=8, enable_eplb=True,
                         eplb_config=SimpleNamespace(use_async=True),
                         all2all_backend="deepep_low_latency")
override_envs_for_eplb(config)
print(os.environ["NCCL_MAX_CTAS"])
for value in ("", "x"):
    os.environ["NCCL_MAX_CTAS"] = value
    override_envs_for_eplb(config)
    print(os.environ["NCCL_MAX_CTAS"])
"""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NCCL_")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "8\n8\n8\n"
    assert done.stderr == (
        "eplb-launch: set NCCL_MAX_CTAS=8: async EPLB with DeepEP low-latency "
        "(data_parallel_size=8)\n"
    )


def test_the_override_asks_for_no_more_than_four_attributes() -> None:
    class Strict:
        data_parallel_size = 2
        enable_eplb = True
        all2all_backend = "deepep_low_latency"

        class eplb_config:  # noqa: N801
            use_async = True

    environ: dict[str, str] = {}
    override_envs_for_eplb(Strict(), environ)
    assert environ == {"NCCL_MAX_CTAS": "8"}


def test_help_prints_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t")
    for name in set(eplb_launch.__all__) - {"__version__"}:
        assert "s3cr3t" not in pydoc.render_doc(getattr(eplb_launch, name))
    assert inspect.signature(override_envs_for_eplb).parameters["environ"].default is None
