"""What each release does: the table, and the row of a version."""

from __future__ import annotations

import pytest

from eplb_launch import plan
from eplb_launch.vllm.releases import CHANGES, UNKNOWN_RELEASE, minor_release, release_of

LOW_LATENCY = [
    *("vllm", "serve", "m", "-dp", "8", "-ep", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency"),
]
MEGA_MOE = [
    *("vllm", "serve", "m", "-dp", "8", "-ep", "--enable-eplb"),
    *("--moe-backend", "deep_gemm_mega_moe"),
]


def asynchronous(value: str = "true") -> list[str]:
    return [f"--eplb-config.use_async={value}"]


def over(communicator: str) -> list[str]:
    return [f"--eplb-config.communicator={communicator}"]


MINORS = {
    "0.16.0": 16,
    "0.9.2": 9,
    "0.17.1+cu129": 17,
    "0.18.0rc1.dev12": 18,
    "0.18.0rc1.dev12+g1a2b3c.d20260101": 18,
    "v0.20.0": 20,
    " 0.21.0\n": 21,
    "0.33": 33,
    "0.100.0": 100,
    "0.1.0": 1,
    # The version of a checkout without tags, and texts that are no version.
    "0.1.dev1+g1a2b3c": None,
    "0.0.0": 0,
    "dev": None,
    "": None,
    "0": None,
    "0.": None,
    "0.x": None,
    "-1.2": None,
    "\u0660.16": None,
}


@pytest.mark.parametrize(("version", "minor"), MINORS.items())
def test_a_version_gives_its_minor_release(version: str, minor: int | None) -> None:
    assert minor_release(version) == minor


def test_a_version_finds_the_newest_row_that_is_not_newer() -> None:
    rows = {"0.11.2": 0, "0.12.0": 12, "0.13.9": 12, "0.14.0": 14, "0.15.1": 14, "0.16.0": 16}
    rows |= {"0.17.0": 17, "0.18.1": 17, "0.19.0": 19, "0.20.0": 20, "0.21.0": 21, "0.22.0": 22}
    rows |= {"0.23.0": 23, "0.24.0": 24, "0.27.0": 27, "0.33.0": 33, "0.99.0": 33, "1.0.0": 33}
    assert {version: release_of(version).since for version in rows} == rows
    assert [release_of(version).minor for version in ("0.13.9", "0.99.0")] == [13, 99]
    assert release_of(None) is release_of("nonsense") is UNKNOWN_RELEASE


def test_the_rows_are_in_order() -> None:
    assert list(CHANGES) == sorted(CHANGES)


# What is set for each release: the columns of the table in README.md.
CASES: dict[str, tuple[list[str], dict[str, bool]]] = {
    "async low-latency, communicator not named": (
        [*LOW_LATENCY, *asynchronous()],
        {"0.11.2": False, "0.12.0": True, "0.13.0": True, "0.14.1": True, "0.15.1": True}
        | {"0.16.0": True, "0.17.1": True, "0.19.1": True, "0.20.2": False, "0.21.0": False}
        | {"0.22.1": False, "0.23.0": False, "0.24.0": False, "0.33.0": False},
    ),
    "low-latency, async not named": (
        [*LOW_LATENCY, *over("pynccl")],
        {"0.16.0": False, "0.19.1": False, "0.22.1": False, "0.23.0": True, "0.24.0": False},
    ),
    "low-latency, not async": (
        [*LOW_LATENCY, *asynchronous("false"), *over("torch_nccl")],
        {"0.12.0": False, "0.17.1": False, "0.20.2": False, "0.23.0": False, "0.33.0": False},
    ),
    "async low-latency over torch_nccl": (
        [*LOW_LATENCY, *asynchronous(), *over("torch_nccl")],
        {"0.12.0": True, "0.20.2": True, "0.21.0": True, "0.22.1": True, "0.23.0": True}
        | {"0.24.0": False},
    ),
    "async low-latency over Gloo": (
        # Up to 0.15 the key is ignored and NCCL is used; 0.16 to 0.19 refuse it.
        [*LOW_LATENCY, *asynchronous(), *over("torch_gloo")],
        {"0.12.0": True, "0.15.1": True, "0.20.2": False, "0.23.0": False, "0.33.0": False},
    ),
    "async low-latency with elastic EP": (
        [*LOW_LATENCY, *asynchronous(), "--enable-elastic-ep"],
        {"0.17.1": True, "0.20.2": True, "0.22.1": True, "0.23.0": True, "0.24.0": False},
    ),
    "mega MoE over pynccl, not async": (
        [*MEGA_MOE, *asynchronous("false"), *over("pynccl")],
        {"0.20.2": False, "0.22.1": False, "0.23.0": True, "0.24.0": True, "0.33.0": True},
    ),
    "mega MoE, communicator not named": (
        [*MEGA_MOE, *asynchronous("false")],
        {"0.22.1": False, "0.23.0": False, "0.24.0": False, "0.33.0": False},
    ),
    "mega MoE with elastic EP": (
        [*MEGA_MOE, *asynchronous("false"), "--enable-elastic-ep"],
        {"0.22.1": False, "0.23.0": True, "0.24.0": True, "0.33.0": True},
    ),
}


@pytest.mark.parametrize(
    ("command", "version", "fires"),
    [
        pytest.param(command, version, fires, id=f"{name}, vLLM {version}")
        for name, (command, releases) in CASES.items()
        for version, fires in releases.items()
    ],
)
def test_each_release_sets_the_cap_only_for_its_own_conditions(
    command: list[str], version: str, fires: bool
) -> None:
    decided = plan(command, {}, vllm_version=version, nixl=False)
    assert decided.environment == ({"NCCL_MAX_CTAS": "8"} if fires else {})


@pytest.mark.parametrize(
    ("command", "nixl", "version", "fires"),
    [
        ([*LOW_LATENCY, *asynchronous(), "--enable-elastic-ep"], True, "0.23.0", True),
        ([*MEGA_MOE, "--enable-elastic-ep"], True, "0.23.0", True),
        ([*MEGA_MOE, "--enable-elastic-ep"], True, "0.24.0", False),
        ([*MEGA_MOE, "--enable-elastic-ep"], False, "0.24.0", True),
        ([*MEGA_MOE, "--enable-elastic-ep"], None, "0.24.0", True),
        ([*MEGA_MOE], None, "0.24.0", False),
        ([*LOW_LATENCY, *asynchronous()], None, "0.22.1", False),
    ],
)
def test_nixl_decides_where_the_release_asks_for_it(
    command: list[str],
    nixl: bool | None,
    version: str,
    fires: bool,
) -> None:
    # The program is not found, so it is not known whether NIXL is installed.
    decided = plan(["/nowhere/vllm", *command[1:]], {}, vllm_version=version, nixl=nixl)
    assert bool(decided.environment) is fires


ALL2ALL = {
    # flag, variable: the releases where the cap is set
    ("deepep_low_latency", None): {"0.13.0": True, "0.15.1": True, "0.16.0": True},
    (None, "deepep_low_latency"): {"0.13.0": True, "0.15.1": True, "0.16.0": False},
    ("naive", "deepep_low_latency"): {"0.13.0": False, "0.15.1": True, "0.16.0": False},
    ("deepep_low_latency", "naive"): {"0.13.0": True, "0.15.1": False, "0.16.0": True},
    ("None", "deepep_low_latency"): {"0.13.0": True, "0.15.1": True, "0.16.0": False},
    (None, "naive"): {"0.13.0": False, "0.15.1": False, "0.16.0": False},
}


@pytest.mark.parametrize(
    ("flag", "variable", "version", "fires"),
    [(*key, *item) for key, releases in ALL2ALL.items() for item in releases.items()],
)
def test_the_backend_variable_counts_only_in_its_releases(
    flag: str | None,
    variable: str | None,
    version: str,
    fires: bool,
) -> None:
    command = [*LOW_LATENCY[:-2], *asynchronous()]
    command += [] if flag is None else ["--all2all-backend", flag]
    environ = {} if variable is None else {"VLLM_ALL2ALL_BACKEND": variable}
    assert bool(plan(command, environ, vllm_version=version).environment) is fires


DP_SIZE = {
    "no option": ([], "8", True),
    "the variable says 1": ([], "1", False),
    "the option wins": (["-dp=2"], "1", True),
    "an option of 1 does not win": (["-dp=1"], "8", True),
    "an option of 0 does not win": (["-dp=0"], "8", True),
    "no local rank": (["-dpl=0"], "8", False),
    "a local rank": (["-dpl=1"], "8", True),
    "not set": ([], None, False),
}


@pytest.mark.parametrize(("options", "variable", "fires"), DP_SIZE.values(), ids=DP_SIZE)
def test_the_size_variable_counts_where_the_option_is_at_most_1(
    options: list[str], variable: str | None, fires: bool
) -> None:
    command = ["vllm", "serve", "m", *options, *LOW_LATENCY[5:], *asynchronous()]
    environ = {} if variable is None else {"VLLM_DP_SIZE": variable}
    decided = plan(command, environ, vllm_version="0.17.1")
    assert bool(decided.environment) is fires
    assert decided.warnings == ()


UNKNOWN = {
    "the four conditions": ([*LOW_LATENCY, *asynchronous()], {}, True),
    "async not named": (LOW_LATENCY, {}, True),
    "not async": ([*LOW_LATENCY, *asynchronous("no")], {}, False),
    "NCCL named": ([*LOW_LATENCY, *asynchronous(), *over("pynccl")], {}, True),
    "another communicator named": ([*LOW_LATENCY, *asynchronous(), *over("nixl")], {}, False),
    "another backend": ([*LOW_LATENCY[:-1], "naive", *asynchronous()], {}, False),
    "the backend by variable": (
        [*LOW_LATENCY[:-2], *asynchronous()],
        {"VLLM_ALL2ALL_BACKEND": "deepep_low_latency"},
        True,
    ),
    "mega MoE over NCCL": ([*MEGA_MOE, *over("torch_nccl")], {}, True),
    "mega MoE, communicator not named": (MEGA_MOE, {}, False),
    "mega MoE with elastic EP": ([*MEGA_MOE, "--enable-elastic-ep"], {}, True),
    "mega MoE over Gloo": ([*MEGA_MOE, *over("torch_gloo")], {}, False),
    "mega MoE without EPLB": ([*MEGA_MOE, *over("pynccl"), "--no-enable-eplb"], {}, False),
}


@pytest.mark.parametrize(("command", "environ", "fires"), UNKNOWN.values(), ids=UNKNOWN)
def test_the_cap_is_set_for_an_unknown_release_if_any_release_would_need_it(
    command: list[str],
    environ: dict[str, str],
    fires: bool,
) -> None:
    decided = plan(["/nowhere/vllm", *command[1:]], environ)
    assert decided.vllm_version is None
    assert bool(decided.environment) is fires
