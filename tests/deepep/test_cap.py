"""The cap that fits for a command on its GPUs, and what is said about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from eplb_launch import plan
from eplb_launch.deepep import cap
from eplb_launch.deepep.gpus import DRIVER
from eplb_launch.files import InMemory

if TYPE_CHECKING:
    from eplb_launch import Plan

ASYNC = [
    *("-dp", "8", "-ep", "--enable-eplb", "--all2all-backend", "deepep_low_latency"),
    *("--eplb-config.use_async", "true"),
]
H100, H20, GB200 = "NVIDIA H100 80GB HBM3", "NVIDIA H20", "NVIDIA GB200"


def machine(*models: str, experts: int | None = 256) -> InMemory:
    texts = {f"{DRIVER}/gpus/{n}/information": f"Model: {m}\n" for n, m in enumerate(models)}
    config = {} if experts is None else {"n_routed_experts": experts}
    return InMemory({**texts, "/m/config.json": json.dumps(config)})


def decide(
    files: InMemory, *more: str, environ: dict[str, str] | None = None, **options: Any
) -> Plan:
    words = ["vllm", "serve", "/m", *ASYNC, *more]
    version = options.pop("version", "0.16.0")
    return plan(words, environ or {}, vllm_version=version, nixl=False, files=files, **options)


# The GPUs, the experts, more arguments: the cap of `fit`.
FITS: dict[str, tuple[list[str], int | None, list[str], str]] = {
    "H100": ([H100], 256, [], "4"),
    "H100, few experts": ([H100], 64, [], "4"),
    "H20": ([H20], 256, [], "2"),
    "GB200": ([GB200], 64, [], "8"),
    "GB200, 288": ([GB200], 288, [], "8"),
    "GB200, 304": ([GB200], 300, [], "2"),
    "several kinds": ([GB200, H100, H20], 256, [], "2"),
    "few tokens": ([H100], 64, ["--max-num-batched-tokens", "64"], "8"),
    "dotted": ([H100], 64, ["-cc.cudagraph_capture_sizes", "[8]", "-tp", "8"], "4"),
    "eager": ([H100], 64, ["--enforce-eager", "--max-num-batched-tokens=120"], "8"),
}


@pytest.mark.parametrize("row", FITS.values(), ids=FITS)
def test_the_cap_is_the_smallest_that_fits_on_the_gpus_of_the_machine(
    row: tuple[list[str], int | None, list[str], str],
) -> None:
    models, experts, more, number = row
    decided = decide(machine(*models, experts=experts), *more, max_ctas="fit")
    assert decided.environment == {"NCCL_MAX_CTAS": number}
    assert decided.warnings == ()
    assert decided.unfit == ()


def test_given_sms_win_over_the_gpus_of_the_machine() -> None:
    decided = decide(machine(H100), max_ctas="fit", sms=78)
    assert decided.environment == {"NCCL_MAX_CTAS": "2"}


WARNED: dict[str, tuple[InMemory, str, str, str]] = {
    "no GPU": (machine(), "8", "max-ctas-unfit", "the GPU is not known"),
    "another GPU": (machine("NVIDIA H99"), "8", "max-ctas-unfit", "'NVIDIA H99'"),
    "no experts": (machine(H100, experts=None), "4", "max-ctas-unfit", "its dispatch is not known"),
    "nothing": (machine(H100, experts=264), "8", "max-ctas-nothing-fits", "all 132 SMs"),
}


@pytest.mark.parametrize("row", WARNED.values(), ids=WARNED)
def test_a_cap_that_is_not_known_has_a_warning(row: tuple[InMemory, str, str, str]) -> None:
    files, number, code, text = row
    decided = decide(files, max_ctas="fit")
    assert decided.environment == {"NCCL_MAX_CTAS": number}
    (warning,) = decided.warnings
    assert warning.code == code
    assert text in warning.message


def test_the_grid_of_mega_moe_is_not_known() -> None:
    more = ["--enable-elastic-ep", "--moe-backend", "deep_gemm_mega_moe"]
    words = ["vllm", "serve", "/m", *ASYNC[:6], *more, "--eplb-config.use_async=false"]
    decided = plan(
        words, {}, vllm_version="0.24.0", nixl=False, files=machine(H100), max_ctas="fit"
    )
    assert decided.environment == {"NCCL_MAX_CTAS": "8"}
    assert [warning.code for warning in decided.warnings] == ["max-ctas-unfit"]
    assert "mega MoE" in decided.warnings[0].message
    explained = cap.explain(decided, machine(H100))
    assert explained.beside == ()
    assert [note.code for note in explained.notes] == ["cap-fit-unknown"]


# The GPUs, the experts, the options; the note without its start, "" for no note.
NOTED: dict[str, tuple[list[str], int | None, dict[str, Any], str]] = {
    "H100": ([H100], 64, {}, "on H100 only while NCCL uses half of it"),
    "H100, no experts": ([H100], None, {}, "on H100 only while NCCL uses half of it"),
    "H20": ([H20], 64, {}, "on H20 only while NCCL uses a quarter of it"),
    "both": (
        [H100, H20],
        64,
        {},
        "on H100 only while NCCL uses half of it, on H20 only while NCCL uses a quarter of it",
    ),
    "nothing fits": ([H100], 264, {}, "on H100 only while NCCL uses half of it"),
    "GB200, by dispatch": ([GB200], 300, {}, "on GB200 only while NCCL uses a quarter of it"),
    "GB200, no room": ([GB200], 304, {}, "not at all on GB200"),
    "GB200": ([GB200], 64, {}, ""),
    "a cap that fits": ([H100], 64, {"max_ctas": 4}, ""),
    "2": ([H20], 64, {"max_ctas": 2}, ""),
    "a value that stays": ([H100], 64, {"environ": {"NCCL_MAX_CTAS": "4"}}, ""),
    "6, which NCCL takes for 8": (
        [H100],
        64,
        {"max_ctas": 6},
        "on H100 only while NCCL uses half of it",
    ),
    "no GPU": ([], 64, {}, ""),
    "another GPU": (["NVIDIA H99"], 64, {}, ""),
}


@pytest.mark.parametrize("row", NOTED.values(), ids=NOTED)
def test_a_cap_that_does_not_fit_has_a_note(
    row: tuple[list[str], int | None, dict[str, Any], str],
) -> None:
    models, experts, options, text = row
    decided = decide(machine(*models, experts=experts), **options)
    assert [note.message for note in decided.unfit] == (
        [f"8 fits beside DeepEP {text}"] if text else []
    )
    assert "cap-does-not-fit" not in {warning.code for warning in decided.warnings}
    assert decided.reason == decide(machine(), **options).reason


def test_a_command_that_cannot_hang_has_no_note() -> None:
    words = ["vllm", "serve", "/m"]
    assert plan(words, {}, vllm_version="0.16.0", files=machine(H100)).notes == ()


def test_explain_has_one_row_for_each_gpu_of_the_machine() -> None:
    found = cap.explain(decide(machine(H100)), machine(H100))
    (row,) = found.beside
    assert (row.gpu, row.fit.dispatch, row.fit.combine, row.fit.cap) == ("H100", 128, 128, 4)
    assert cap.calls_beside(row.fit) == "129 to 132"
    assert row.remedies == ("VLLM_MOE_DP_CHUNK_SIZE=128",)
    assert [note.code for note in found.notes] == ["cap-does-not-fit"]


def test_explain_shows_all_gpus_on_a_machine_without_one() -> None:
    files = machine(experts=64)
    found = cap.explain(decide(files), files)
    assert [(row.fit.sms, row.fit.cap) for row in found.beside] == [
        *((132, 4), (114, 2), (78, 2), (148, 4), (152, 8)),
    ]
    (note,) = found.notes
    assert note.code == "cap-does-not-fit"
    assert "H100 PCIe, H20 only while NCCL uses a quarter of it" in note.message
    assert "GB200" not in note.message
    by_sms = {row.fit.sms: cap.calls_beside(row.fit) for row in found.beside}
    assert by_sms[78] == "77 to 78, 153 to 156, 229 to 234 (232 padded)"


def test_explain_says_what_is_not_known() -> None:
    files = machine("NVIDIA H99", experts=None)
    found = cap.explain(decide(files, "--max-num-seqs", "some"), files)
    (note,) = (note for note in found.notes if note.code == "cap-fit-unknown")
    for text in ("does not give the number of experts", "max_num_seqs", "'NVIDIA H99'"):
        assert text in note.message


def test_a_cap_is_safe_if_it_fits_beside_every_call() -> None:
    files = machine(H100)
    environ = {"VLLM_MOE_DP_CHUNK_SIZE": "128"}
    found = cap.explain(decide(files, environ=environ, max_ctas="fit"), files)
    assert [row.fit.safe for row in found.beside] == [True]
    assert found.beside[0].remedies == ()
    newer = decide(files, "--max-num-batched-tokens", "128", version="0.19.0", max_ctas="fit")
    assert cap.explain(newer, files).beside[0].fit.safe
