"""How many SMs DeepEP's dispatch leaves, and how many experts a command's model has."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_launch import plan
from eplb_launch.files import Given
from eplb_launch.nccl.deepep import advice, fitting_ctas, grid, physical_experts, table

if TYPE_CHECKING:
    from pathlib import Path

    from eplb_launch import Plan

ASYNC = [
    *("-dp", "8", "-ep", "--enable-eplb", "--all2all-backend", "deepep_low_latency"),
    *("--eplb-config.use_async", "true"),
]
EXPERTS = (128, 144, 256, 288, 384, 512)
# By SMs: the blocks of dispatch for EXPERTS, and the largest power of two that fits beside it.
GRIDS = {
    132: ((128, 72, 128, 96, 128, 128), (4, 8, 4, 8, 4, 4)),
    78: ((64, 72, 64, 72, 77, 74), (8, 4, 8, 4, 1, 4)),
    148: ((128, 144, 128, 144, 128, 128), (8, 4, 8, 4, 8, 8)),
}


@pytest.mark.parametrize("sms", GRIDS)
def test_the_grid_and_what_fits(sms: int) -> None:
    assert tuple(grid(experts, sms) for experts in EXPERTS) == GRIDS[sms][0]
    assert tuple(fitting_ctas(experts, sms) for experts in EXPERTS) == GRIDS[sms][1]


# The number of SMs that NCCL's stand-in held, the grid, and whether it ran, on an H200.
MEASURED = [(8, 124, True), (8, 126, False), (8, 128, False), (4, 128, True), (36, 96, True)]


@pytest.mark.parametrize(("ctas", "blocks", "ran"), MEASURED)
def test_what_was_measured(ctas: int, blocks: int, ran: bool) -> None:
    assert (132 - blocks >= ctas) is ran
    assert grid(blocks, 132) == blocks  # an expert a block


@pytest.mark.parametrize(
    ("experts", "sms", "ctas"),
    [(132, 132, None), (264, 132, None), (78, 78, None), (131, 132, 1), (1, 132, 8), (1, 1, None)],
)
def test_at_the_edges(experts: int, sms: int, ctas: int | None) -> None:
    assert fitting_ctas(experts, sms) == ctas


@given(st.integers(1, 2000), st.integers(1, 200))
def test_the_grid_is_the_fewest_blocks_of_that_depth(experts: int, sms: int) -> None:
    blocks = grid(experts, sms)
    depth = -(-experts // blocks)
    assert 1 <= blocks <= min(experts, sms)
    assert depth == -(-experts // sms)
    ctas = fitting_ctas(experts, sms)
    assert ctas in {None, 1, 2, 4, 8}
    left = sms - blocks
    assert (ctas is None) is (left == 0)
    if ctas:
        assert ctas <= left
        assert ctas == 8 or 2 * ctas > left


def test_the_table_of_gpus() -> None:
    assert [(row.gpu, row.sms, row.blocks, row.left, row.fits) for row in table(256)] == [
        ("H100, H200", 132, 128, 4, 4),
        ("H20", 78, 64, 14, 8),
        ("B200", 148, 128, 20, 8),
    ]


def decide(model: str, *more: str, environ: dict[str, str] | None = None, **options: Any) -> Plan:
    words = ["vllm", "serve", model, *ASYNC, *more]
    return plan(words, environ or {}, vllm_version="0.16.0", nixl=False, **options)


def model(folder: Path, config: object) -> str:
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    return str(folder)


CONFIGS: dict[str, tuple[object, int | None]] = {
    "Qwen": ({"num_experts": 128}, 128),
    "DBRX": ({"moe_num_experts": 16}, 16),
    "DeepSeek": ({"n_routed_experts": 256, "n_shared_experts": 1}, 256),
    "Mixtral": ({"num_local_experts": 8}, 8),
    "multimodal": ({"text_config": {"num_experts": 128}, "num_experts": 1}, 128),
    "InternVL": ({"llm_config": {"n_routed_experts": 64}}, 64),
    "DeepSeek-VL2": ({"language_config": {"n_routed_experts": 64}}, 64),
    "Qwen Omni": ({"thinker_config": {"text_config": {"num_experts": 128}}}, 128),
    "Ernie": ({"moe_num_experts": [64, 64]}, 64),
    "vLLM's order": ({"num_local_experts": 8, "n_routed_experts": 256}, 256),
    "null before": ({"num_experts": None, "n_routed_experts": 256}, 256),
    "dense": ({"hidden_size": 4096}, None),
    "none": ({"num_experts": 0}, None),
    "negative": ({"num_experts": -1}, None),
    "a boolean": ({"num_experts": True}, None),
    "a string": ({"num_experts": "128"}, None),
    "an empty list": ({"num_experts": []}, None),
    "absurd": ({"num_experts": 10**12}, None),
    "a list": ([1], None),
    "no JSON": ("{", None),
    "too deep": ("[" * 200_000, None),
    "nested for ever": (
        {"text_config": {"text_config": {"text_config": {"num_experts": 4}}}},
        None,
    ),
    "too long": (" " * (1 << 20) + '{"num_experts": 128}', None),
    "a huge number": ('{"num_experts": ' + "9" * 5000 + "}", None),
}


@pytest.mark.parametrize(("config", "count"), CONFIGS.values(), ids=CONFIGS)
def test_the_experts_of_a_local_model(tmp_path: Path, config: object, count: int | None) -> None:
    experts = physical_experts(decide(model(tmp_path, config)))
    assert experts.count == count
    assert "config.json" in experts.source


REDUNDANT: dict[str, tuple[list[str], int | None]] = {
    "dotted": (["--eplb-config.num_redundant_experts", "32"], 288),
    "not given": ([], 256),
    "null": (["--eplb-config.num_redundant_experts", "null"], None),
    "no number": (["--eplb-config.num_redundant_experts", "many"], None),
    "negative": (["--eplb-config.num_redundant_experts", "-1"], None),
}


@pytest.mark.parametrize(("more", "count"), REDUNDANT.values(), ids=REDUNDANT)
def test_redundant_experts(tmp_path: Path, more: list[str], count: int | None) -> None:
    found = physical_experts(decide(model(tmp_path, {"n_routed_experts": 256}), *more))
    assert found.count == count


JSON_CONFIGS: dict[str, int | None] = {
    '{"use_async": true, "num_redundant_experts": 32}': 288,
    '{"use_async": true, "num_redundant_experts": "32"}': 288,
    '{"use_async": true}': 256,
    '{"use_async": true, "num_redundant_experts": []}': None,
}


@pytest.mark.parametrize(("text", "count"), JSON_CONFIGS.items())
def test_redundant_experts_in_json(tmp_path: Path, text: str, count: int | None) -> None:
    name = model(tmp_path, {"n_routed_experts": 256})
    words = ["vllm", "serve", name, *ASYNC[:-2], "--eplb-config", text]
    assert physical_experts(plan(words, {}, vllm_version="0.16.0", nixl=False)).count == count


def test_redundant_experts_that_cannot_be_known(tmp_path: Path) -> None:
    name = model(tmp_path, {"n_routed_experts": 256})
    line = f"vllm serve {name} {' '.join(ASYNC)} --eplb-config.num_redundant_experts $(pick)"
    decided = plan(["sh", "-c", line], {}, vllm_version="0.16.0", nixl=False)
    assert physical_experts(decided).count is None


def test_where_the_model_is(tmp_path: Path) -> None:
    name = model(tmp_path, {"n_routed_experts": 256})
    (tmp_path / "serve.yaml").write_text(f"model: {name}\n")
    serve = ["vllm", "serve", *ASYNC]
    module = ["python3", "-m", "vllm.entrypoints.openai.api_server", *ASYNC]
    for words in (
        [*serve, "--model", name],
        [*serve[:2], f"--model={name}", *ASYNC],
        [*serve, "--config", str(tmp_path / "serve.yaml")],
        [*module, "--model", name],
        [*module, f"--model={name}"],
        ["vllm", "serve", "org/name", *ASYNC, "--hf-config-path", name],
        ["env", "-C", str(tmp_path.parent), "vllm", "serve", tmp_path.name, *ASYNC],
    ):
        found = physical_experts(plan(words, {}, vllm_version="0.16.0", nixl=False))
        assert (found.count, words) == (256, words)


def test_a_model_among_files_that_are_given() -> None:
    files = Given({"/models/config.json": '{"n_routed_experts": 256}'})
    decided = decide("/models", files=files)
    assert physical_experts(decided, files).count == 256
    assert physical_experts(decided).count is None


@pytest.mark.parametrize(
    "kind", ["missing", "name", "pipe", "folder", "file", "overrides", "image"]
)
def test_where_the_experts_are_not_known(tmp_path: Path, kind: str) -> None:
    name = str(tmp_path)
    more: list[str] = []
    if kind == "name":
        name = "deepseek-ai/DeepSeek-V3"
    elif kind == "pipe":
        os.mkfifo(tmp_path / "config.json")
    elif kind == "folder":
        (tmp_path / "config.json").mkdir()
    elif kind == "file":
        name = model(tmp_path, {"num_experts": 128}) + "/config.json"
    elif kind == "overrides":
        more = ["--hf-overrides", '{"num_experts": 4}']
        model(tmp_path, {"num_experts": 128})
    elif kind == "image":
        model(tmp_path, {"num_experts": 128})
    before = ["docker", "run", "-e", "NCCL_MAX_CTAS", "image"] if kind == "image" else []
    words = [*before, "vllm", "serve", name, *ASYNC, *more]
    found = physical_experts(plan(words, {}, vllm_version="0.16.0", nixl=False))
    assert found.count is None
    assert found.source


def test_the_cap_that_fits(tmp_path: Path) -> None:
    name = model(tmp_path, {"n_routed_experts": 256})
    for sms, cap in ((132, "4"), (78, "8"), (148, "8")):
        decided = decide(name, max_ctas="fit", sms=sms)
        assert decided.environment == {"NCCL_MAX_CTAS": cap}
        assert decided.warnings == ()


def test_a_value_that_stays_has_to_fit(tmp_path: Path) -> None:
    name = model(tmp_path, {"n_routed_experts": 256})
    decided = decide(name, environ={"NCCL_MAX_CTAS": "8"}, max_ctas="fit", sms=132)
    assert decided.environment == {}
    assert [warning.code for warning in decided.warnings] == ["value-too-high"]


UNFIT = {
    "experts not known": (["org/name"], 132, "the number of experts is not known"),
    "nothing fits": (["--eplb-config.num_redundant_experts", "8"], 132, "takes all of 132 SMs"),
}


@pytest.mark.parametrize(("more", "sms", "why"), UNFIT.values(), ids=UNFIT)
def test_where_nothing_fits_it_is_8_and_a_warning(
    tmp_path: Path, more: list[str], sms: int, why: str
) -> None:
    name = model(tmp_path, {"n_routed_experts": 256})
    decided = decide(
        more[0] if len(more) == 1 else name, *more[1:] and more, max_ctas="fit", sms=sms
    )
    assert decided.environment == {"NCCL_MAX_CTAS": "8"}
    (warning,) = decided.warnings
    assert warning.code in ("max-ctas-unfit", "max-ctas-nothing-fits")
    assert (warning.code == "max-ctas-nothing-fits") is ("takes all" in why)
    assert why in warning.message


def test_fitting_is_about_deepep_only() -> None:
    words = [
        *("vllm", "serve", "m", "-dp", "8", "-ep", "--enable-eplb", "--enable-elastic-ep"),
        *("--moe-backend", "deep_gemm_mega_moe", "--eplb-config.use_async=false"),
    ]
    decided = plan(words, {}, vllm_version="0.24.0", nixl=False, max_ctas="fit", sms=132)
    assert [warning.code for warning in decided.warnings] == ["max-ctas-unfit"]
    assert advice(decided) == ((), ())


def test_nothing_is_computed_where_there_is_no_hazard() -> None:
    decided = plan(["vllm", "serve", "m"], {}, max_ctas="fit", sms=132)
    assert (decided.environment, decided.warnings, advice(decided)) == ({}, (), ((), ()))


# The experts, what is set and kept, and on which GPUs the cap does not fit.
NOTED: dict[str, tuple[int, dict[str, Any], list[str]]] = {
    "256": (256, {}, ["H100, H200"]),
    "144": (144, {}, ["H20", "B200"]),
    "384": (384, {}, ["H100, H200", "H20"]),
    "32": (32, {}, []),
    "256, 4 is set": (256, {"max_ctas": 4}, []),
    "256, 4 is kept": (256, {"environ": {"NCCL_MAX_CTAS": "4"}}, []),
    "256, 5 is kept": (256, {"environ": {"NCCL_MAX_CTAS": "5"}}, ["H100, H200"]),
    "264, nothing does": (264, {}, ["H100, H200"]),
}


@pytest.mark.parametrize(("count", "options", "gpus"), NOTED.values(), ids=NOTED)
def test_where_the_cap_does_not_fit(
    tmp_path: Path, count: int, options: dict[str, Any], gpus: list[str]
) -> None:
    found, _ = advice(decide(model(tmp_path, {"num_experts": count}), **options))
    assert {note.code for note in found} <= {"cap-does-not-fit"}
    assert [note.message[3:].partition(", with ")[0] for note in found] == gpus


def test_what_the_note_says(tmp_path: Path) -> None:
    name = model(tmp_path, {"n_routed_experts": 256})
    (note,), _ = advice(decide(name, "--eplb-config.num_redundant_experts", "0"))
    assert note.message == (
        f"on H100, H200, with 256 physical experts ({name}/config.json: 256), DeepEP's dispatch "
        "takes 128 of 132 SMs: 8 CTAs do not fit beside it, 4 would"
    )
    assert note.remedy == "`eplb-launch --max-ctas 4` on such GPUs"
    _, (note,) = advice(decide("org/name"))
    assert note.code == "cap-fit-unknown"
