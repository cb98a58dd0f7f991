"""The grids of DeepEP's kernels, the calls that vLLM can make, and the cap beside them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_launch.deepep.grids import CHANGES, Tokens, fit, grid, remedies, tokens

TESTS = Path(__file__).parents[1]
RESULTS = sorted((TESTS.parent / "benchmarks" / "results").glob("deepep-*.json"))
with (TESTS / "data" / "deepep" / "hangs.csv").open() as file:
    MEASURED = list(csv.DictReader(file))
ANSWERS = [answer for path in RESULTS for answer in json.loads(path.read_text())["answers"]]
SMS = 132  # of the H100s
DEFAULT = tokens({}, {}, 16)


def combine(experts: int, number: int, sms: int = SMS) -> int:
    return max(grid(experts, sms), grid(number, sms))


def most(experts: int, number: int, batches: str) -> int:
    sizes = [number] if batches == "fixed" else range(8, number + 1, 8)
    return max(combine(experts, size) for size in sizes)


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(row.values()))
def test_hangs_were_seen_where_few_sms_are_left_and_nccl_has_more_blocks(
    row: dict[str, str],
) -> None:
    left = SMS - most(int(row["experts"]), int(row["tokens"]), row["batches"])
    hangs = left <= 4 and int(row["nccl"]) > left  # with 6 and more they take turns
    assert row["seen"] == ("hangs" if hangs else "runs")


def test_the_measured_results_are_all_read() -> None:
    assert len(RESULTS) >= 2
    assert len(ANSWERS) > 100
    assert len(MEASURED) > 40


def test_the_profiler_saw_the_grids_of_the_formula() -> None:
    for answer in ANSWERS:
        experts, number = answer["experts"], answer["tokens"]
        assert answer["dispatch"] == [grid(experts, SMS)], answer
        assert answer["combine"] == [combine(experts, number)], answer


def test_a_cap_that_fits_by_the_formula_never_hung() -> None:
    checked = 0
    for answer in ANSWERS:
        if "hangs" not in answer or answer["order"] or not answer["variable"]:
            continue
        left = SMS - most(answer["experts"], answer["tokens"], answer["batches"])
        if int(answer["variable"]) <= left:
            assert not answer["hangs"], answer
            checked += 1
    assert checked > 10


BOUNDARIES = {
    # SMs: the cap, the padded calls that leave no room for it, and the others
    132: (4, (), ((129, 132),)),
    114: (2, (), ((113, 114), (225, 228))),
    148: (4, (), ((145, 148),)),
    78: (2, (232,), ((77, 78), (153, 156), (229, 234))),
    152: (8, (152,), ((145, 152),)),
}


@pytest.mark.parametrize("sms", BOUNDARIES)
def test_the_cap_with_64_experts_is_that_of_the_docs(sms: int) -> None:
    found = fit(sms, 64, DEFAULT)
    assert (found.cap, found.padded, found.eager) == BOUNDARIES[sms]
    assert not found.safe


@pytest.mark.parametrize(
    ("experts", "sms", "cap"),
    [
        *((256, 132, 4), (144, 132, 4), (264, 132, None), (131, 132, 1), (78, 78, None)),
        *((1, 1, None), (None, 132, 4), (288, 148, 4), (384, 78, 1), (8, 512, 8)),
    ],
)
def test_the_cap_is_the_largest_power_of_two_that_fits(
    experts: int | None, sms: int, cap: int | None
) -> None:
    assert fit(sms, experts, DEFAULT).cap == cap


@given(st.integers(1, 2000), st.integers(1, 200), st.integers(1, 600))
def test_the_ranges_are_those_of_the_formula(experts: int, sms: int, number: int) -> None:
    found = fit(sms, experts, Tokens(number, (), ("x",), 1))
    cap = found.cap
    unfit = {call for first, last in found.eager for call in range(first, last + 1)}
    assert (cap is None) is (grid(experts, sms) == sms)
    if cap is not None:
        assert unfit == {n for n in range(1, number + 1) if combine(experts, n, sms) + cap > sms}


@given(st.integers(1, 2000), st.integers(1, 200))
def test_the_grid_is_the_fewest_blocks_of_that_depth(items: int, sms: int) -> None:
    blocks = grid(items, sms)
    assert 1 <= blocks <= min(items, sms)
    assert -(-items // blocks) == -(-items // sms)


@given(st.integers(1, 600), st.integers(2, 200))
def test_the_cap_fits_beside_each_padded_call_that_anything_fits_beside(
    experts: int, sms: int
) -> None:
    found = fit(sms, experts, DEFAULT)
    if found.cap is None:
        assert grid(experts, sms) == sms
        return
    for number in DEFAULT.padded:
        left = sms - combine(experts, number, sms)
        assert (number in found.padded) is (left < found.cap)
        assert left == 0 or left >= found.cap


def test_the_remedy_makes_the_cap_safe() -> None:
    found = fit(SMS, 256, DEFAULT)
    assert remedies(found, DEFAULT) == ("VLLM_MOE_DP_CHUNK_SIZE=128",)
    assert fit(SMS, 256, tokens({}, {"VLLM_MOE_DP_CHUNK_SIZE": "128"}, 16)).safe
    newer = tokens({}, {}, 20)
    assert remedies(fit(SMS, 256, newer), newer) == ("--max-num-batched-tokens 128",)
    assert fit(SMS, 256, tokens({"max_num_batched_tokens": "128"}, {}, 20)).safe
    found = fit(SMS, 264, DEFAULT)
    assert remedies(found, DEFAULT) == ("another --eplb-config.num_redundant_experts",)
    assert not fit(SMS, None, tokens({"max_num_batched_tokens": "64"}, {}, 20)).safe


GRAPHS = (1, 2, 4, *range(8, 257, 8))
# The settings, the variables, the release; the most tokens, and the padded calls.
CALLS: dict[str, tuple[dict[str, Any], dict[str, str], int, int, tuple[int, ...]]] = {
    "0.12": ({}, {}, 12, 256, GRAPHS),
    "0.16": ({}, {}, 16, 256, GRAPHS),
    "0.23": ({}, {}, 23, 256, GRAPHS),
    "a piece": ({}, {"VLLM_MOE_DP_CHUNK_SIZE": "64"}, 16, 64, (1, 2, 4, *range(8, 65, 8))),
    "a piece that counts no more": ({}, {"VLLM_MOE_DP_CHUNK_SIZE": "64"}, 20, 256, GRAPHS),
    "no pieces": (
        {},
        {"VLLM_ENABLE_MOE_DP_CHUNK": "0", "VLLM_MOE_DP_CHUNK_SIZE": "100"},
        16,
        100,
        (1, 2, 4, *range(8, 97, 8), 100),
    ),
    "the rest of a piece": (
        {"cudagraph_capture_sizes": "150"},
        {"VLLM_MOE_DP_CHUNK_SIZE": "100"},
        16,
        100,
        (50, 100),
    ),
    "eager": ({"enforce_eager": True}, {}, 16, 256, (256,)),
    "-O0": ({"optimization_level": "0"}, {}, 16, 256, (256,)),
    "no graphs": ({"compilation_config": {"cudagraph_mode": "NONE"}}, {}, 16, 256, (256,)),
    "no graphs, JSON": ({"compilation_config": '{"cudagraph_mode": "none"}'}, {}, 16, 256, (256,)),
    "sizes": ({"cudagraph_capture_sizes": "1 40 80"}, {}, 16, 256, (1, 40, 80, 256)),
    "sizes, a list": (
        {"compilation_config": {"cudagraph_capture_sizes": [40, 80]}},
        {},
        16,
        256,
        (40, 80, 256),
    ),
    "the largest graph": ({"max_cudagraph_capture_size": "8"}, {}, 16, 256, (1, 2, 4, 8, 256)),
    "few sequences": ({"max_num_seqs": "4"}, {}, 16, 256, (1, 2, 4, 8, 256)),
    "few tokens": ({"max_num_batched_tokens": "20"}, {}, 16, 20, (1, 2, 4, 8, 16, 20)),
    "many tokens": ({"max_num_batched_tokens": "1k"}, {}, 19, 256, GRAPHS),
    "its own size, from 0.20": ({"max_num_batched_tokens": 20}, {}, 20, 20, (1, 2, 4, 8, 16, 20)),
    "throughput": (
        {"performance_mode": "throughput", "max_num_seqs": "4"},
        {},
        20,
        512,
        (1, 2, 4, 8, 512),
    ),
    "speculative": (
        {"speculative_config": {"num_speculative_tokens": 2}, "max_num_seqs": "4"},
        {},
        16,
        256,
        (3, 6, 9, 18, 24, 256),
    ),
    "speculative, 0.12": (
        {"speculative_config": '{"num_speculative_tokens": 2}', "max_num_seqs": "4"},
        {},
        12,
        256,
        (3, 6, 256),
    ),
    "sequence-parallel": (
        {"tensor_parallel_size": "4", "cudagraph_capture_sizes": "8 16"},
        {},
        20,
        64,
        (2, 4, 64),
    ),
    "microbatches": (
        {"enable_dbo": True, "cudagraph_capture_sizes": "9 16"},
        {},
        16,
        256,
        (4, 5, 8, 9, 16, 256),
    ),
}


@pytest.mark.parametrize("row", CALLS.values(), ids=CALLS)
def test_calls_are_those_of_the_settings_and_the_release(
    row: tuple[dict[str, Any], dict[str, str], int, int, tuple[int, ...]],
) -> None:
    settings, environ, minor, largest, padded = row
    found = tokens(settings, environ, minor)
    assert (found.most, found.padded) == (largest, padded)
    assert found.assumed == ()


UNKNOWN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "max_num_batched_tokens": ({"max_num_batched_tokens": "many"}, {}),
    "tensor_parallel_size": ({"tensor_parallel_size": "\0"}, {}),
    "VLLM_MOE_DP_CHUNK_SIZE": ({}, {"VLLM_MOE_DP_CHUNK_SIZE": "big"}),
    "compilation_config": ({"compilation_config": "{"}, {}),
    "cudagraph_capture_sizes": ({"cudagraph_capture_sizes": "1 x"}, {}),
    "num_speculative_tokens": ({"speculative_config": {"method": "mtp"}}, {}),
    "max_num_batched_tokens, which follows max_model_len": ({"enable_chunked_prefill": False}, {}),
}


@pytest.mark.parametrize(("name", "row"), UNKNOWN.items(), ids=UNKNOWN)
def test_an_unknown_setting_counts_as_vllms_default_and_is_named(
    name: str, row: tuple[dict[str, Any], dict[str, str]]
) -> None:
    found = tokens(*row, 16)
    assert found.assumed == (name,)
    assert (found.most, found.padded) == (256, GRAPHS)


def test_an_unknown_release_has_the_calls_of_all() -> None:
    found = tokens({"max_num_batched_tokens": "512"}, {}, None)
    assert found.most == 512
    assert found.bounds == ("VLLM_MOE_DP_CHUNK_SIZE", "--max-num-batched-tokens")
    assert found.assumed == ("the release",)
    assert set(GRAPHS) < set(found.padded)


def test_each_change_differs_from_the_release_before() -> None:
    assert list(CHANGES) == sorted(set(CHANGES))
    tried: dict[str, Any] = {"performance_mode": "throughput", "speculative_config": {}}
    tried |= {"max_num_seqs": "4", "speculative_config": {"num_speculative_tokens": 2}}
    environ = {"VLLM_ENABLE_MOE_DP_CHUNK": "0"}
    seen = [
        (found.most, found.padded) for found in (tokens(tried, environ, n) for n in range(12, 34))
    ]
    changed = [n for n in range(13, 34) if seen[n - 12] != seen[n - 13]]
    assert set(changed) <= set(CHANGES)
