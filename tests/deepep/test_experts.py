"""The number of experts of the model of a command."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from eplb_launch import plan
from eplb_launch.deepep.cap import physical_experts
from eplb_launch.files import InMemory

if TYPE_CHECKING:
    from pathlib import Path

    from eplb_launch import Plan

ASYNC = [
    *("-dp", "8", "-ep", "--enable-eplb", "--all2all-backend", "deepep_low_latency"),
    *("--eplb-config.use_async", "true"),
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
def test_config_json_says_how_many_experts_a_model_has(
    tmp_path: Path, config: object, count: int | None
) -> None:
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
def test_redundant_experts_are_added_to_those_of_the_model(
    tmp_path: Path, more: list[str], count: int | None
) -> None:
    found = physical_experts(decide(model(tmp_path, {"n_routed_experts": 256}), *more))
    assert found.count == count


JSON_CONFIGS: dict[str, int | None] = {
    '{"use_async": true, "num_redundant_experts": 32}': 288,
    '{"use_async": true, "num_redundant_experts": "32"}': 288,
    '{"use_async": true}': 256,
    '{"use_async": true, "num_redundant_experts": []}': None,
}


@pytest.mark.parametrize(("text", "count"), JSON_CONFIGS.items())
def test_redundant_experts_count_in_json_too(tmp_path: Path, text: str, count: int | None) -> None:
    name = model(tmp_path, {"n_routed_experts": 256})
    words = ["vllm", "serve", name, *ASYNC[:-2], "--eplb-config", text]
    assert physical_experts(plan(words, {}, vllm_version="0.16.0", nixl=False)).count == count


def test_redundant_experts_may_be_not_known(tmp_path: Path) -> None:
    name = model(tmp_path, {"n_routed_experts": 256})
    line = f"vllm serve {name} {' '.join(ASYNC)} --eplb-config.num_redundant_experts $(pick)"
    decided = plan(["sh", "-c", line], {}, vllm_version="0.16.0", nixl=False)
    assert physical_experts(decided).count is None


def test_the_model_is_read_from_its_directory(tmp_path: Path) -> None:
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


def test_config_json_is_read_from_the_files_that_are_given() -> None:
    files = InMemory({"/models/config.json": '{"n_routed_experts": 256}'})
    decided = decide("/models", files=files)
    assert physical_experts(decided, files).count == 256
    assert physical_experts(decided).count is None


@pytest.mark.parametrize(
    "kind", ["missing", "name", "pipe", "folder", "file", "overrides", "image"]
)
def test_the_source_says_why_the_experts_are_not_known(tmp_path: Path, kind: str) -> None:
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
