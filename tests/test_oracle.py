"""What real vLLM decided, command line by command line, and what the plan says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eplb_launch import plan
from eplb_launch.releases import minor_release

ORACLE = sorted((Path(__file__).parent / "data" / "oracle").glob("vllm-*.jsonl"))
SETTINGS = (
    "data_parallel_size",
    "enable_eplb",
    "use_async",
    "all2all_backend",
    "communicator",
    "moe_backend",
)


def right_value(row: dict[str, Any], version: str) -> str | None:
    """Return NCCL_MAX_CTAS as a worker should have it."""
    vllm = row["vllm"]
    if (minor_release(version) or 0) >= 17:
        value: str | None = vllm["nccl_max_ctas"]
        return value
    current: str | None = row["env"].get("NCCL_MAX_CTAS")
    exposed = (
        vllm["data_parallel_size"] > 1
        and vllm["enable_eplb"]
        and vllm["use_async"]
        and vllm["all2all_backend"] == "deepep_low_latency"
    )
    return "8" if exposed and not (current and current.isdigit()) else current


def differences(row: dict[str, Any], version: str, folder: Path) -> list[str]:
    """Return where the plan differs from what vLLM did with a row."""
    for name, text in row["files"].items():
        (folder / name).write_text(text)
    command = ["env", "-C", str(folder), "vllm", *row["argv"]]
    decided = plan(command, row["env"], vllm_version=version, nixl=row["nixl"])
    vllm = row["vllm"]
    if not vllm["accepted"]:
        return []
    found = [
        f"warning {warning.code}: {warning.message}"
        for warning in decided.warnings
        if not warning.code.startswith("value-")  # what NCCL makes of the value: test_warnings
    ]
    right = right_value(row, version)
    value = decided.environment.get("NCCL_MAX_CTAS", row["env"].get("NCCL_MAX_CTAS"))
    if value != right:
        found.append(f"NCCL_MAX_CTAS is {value!r}, not {right!r}")
    for name in SETTINGS:
        # A release without the setting says null; and nobody picks a communicator without EPLB.
        if vllm[name] is None or (name == "communicator" and not vllm["enable_eplb"]):
            continue
        setting = decided.settings.get(name)
        if setting is None or setting.value != vllm[name]:
            found.append(f"{name} is {setting and setting.value!r}, not {vllm[name]!r}")
    return found


@pytest.mark.parametrize("path", ORACLE, ids=lambda path: path.stem)
def test_the_plan_is_what_vllm_decided(path: Path, tmp_path: Path) -> None:
    version = path.stem.removeprefix("vllm-")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 200
    assert sum(row["vllm"]["accepted"] for row in rows) == 170
    wrong = {}
    for number, row in enumerate(rows, 1):
        if found := differences(row, version, tmp_path):
            wrong[number] = found
        for name in row["files"]:
            (tmp_path / name).unlink()
    assert wrong == {}


def test_every_release_of_the_oracle_fires_and_does_not_fire() -> None:
    for path in ORACLE:
        version = path.stem.removeprefix("vllm-")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        changed = [
            right_value(row, version) != row["env"].get("NCCL_MAX_CTAS")
            for row in rows
            if row["vllm"]["accepted"]
        ]
        assert 0 < sum(changed) < len(changed), version
