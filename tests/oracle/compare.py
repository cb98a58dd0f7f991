"""What real vLLM decided beside what the plan says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eplb_launch import plan
from eplb_launch.vllm.releases import minor_release

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "NCCL_MAX_CTAS"
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
    current: str | None = row["env"].get(VARIABLE)
    exposed = (
        vllm["data_parallel_size"] > 1
        and vllm["enable_eplb"]
        and vllm["use_async"]
        and vllm["all2all_backend"] == "deepep_low_latency"
    )
    return "8" if exposed and not (current and current.isdigit()) else current


def fires(row: dict[str, Any], version: str) -> bool:
    """Whether the variable has to be set for an accepted row."""
    current: str | None = row["env"].get(VARIABLE)
    return right_value(row, version) != current


def differences(row: dict[str, Any], version: str, folder: Path) -> list[str]:
    """Return where the plan differs from what vLLM did with a row; `folder` is to write in."""
    for name, text in row["files"].items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    command = ["env", "-C", str(folder), "vllm", *row["argv"]]
    try:
        decided = plan(command, row["env"], vllm_version=version, nixl=row["nixl"])
    except Exception as error:  # noqa: BLE001 - whatever it is, this row is wanted
        return [f"plan() raises {error!r}"]
    finally:
        for name in row["files"]:
            (folder / name).unlink()
    vllm = row["vllm"]
    if not vllm["accepted"]:
        return []
    found = [
        f"warning {warning.code}: {warning.message}"
        for warning in decided.warnings
        # What comes after vLLM's decision, in NCCL and on the way to Ray's workers: test_checks.
        if not warning.code.startswith("value-") and warning.code != "ray-workers"
    ]
    right = right_value(row, version)
    value = decided.environment.get(VARIABLE, row["env"].get(VARIABLE))
    if value != right:
        found.append(f"{VARIABLE} is {value!r}, not {right!r}")
    for name in SETTINGS:
        # A release without the setting says null; and nobody picks a communicator without EPLB.
        if vllm[name] is None or (name == "communicator" and not vllm["enable_eplb"]):
            continue
        setting = decided.settings.get(name)
        if setting is None or setting.value != vllm[name]:
            found.append(f"{name} is {setting and setting.value!r}, not {vllm[name]!r}")
    return found
