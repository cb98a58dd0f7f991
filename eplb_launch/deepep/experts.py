"""How many physical experts the model of a command has, as far as its config.json is here."""

from __future__ import annotations

import os

from eplb_launch.files import DISK
from eplb_launch.model import UNKNOWN, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from eplb_launch.files import Files
    from eplb_launch.plans import Plan

# vllm/config/model.py, get_num_experts; vllm/transformers_utils/config.py from 0.26 or so.
_KEYS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
# Where the language model of a multimodal one is (transformers, get_text_config; vLLM's configs).
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_MAX_BYTES = 1 << 20  # of a config.json; DeepSeek-V3's has 2 KB


class Experts(Record):
    """The physical experts of a model: all that DeepEP counts, replicas included."""

    count: int | None  # None: not known
    source: str  # where that is from, or why it is not known


def physical_experts(plan: Plan, files: Files = DISK) -> Experts:
    """Return how many experts the command's model has, with EPLB's redundant ones.

    Known where the model is a directory among `files`: its config.json is read.
    """
    name, path, why = _config(plan, files)
    if why:
        return Experts(None, why)
    logical = _logical(_load(path, files))
    if logical is None:
        return Experts(None, f"{name} does not say how many")
    redundant = _redundant(plan)
    if redundant is None:
        return Experts(None, "num_redundant_experts is not known")
    more = f", and {redundant} redundant" if redundant else ""
    return Experts(logical + redundant, f"{name}: {logical}{more}")


def _config(plan: Plan, files: Files) -> tuple[str, str, str]:
    """Return the config.json of the model, where it can be opened, and why there is none."""
    server = plan.server
    model = plan.given.get("hf_config_path") or plan.given.get("model")
    if server is None or model is None:
        return "", "", "which model it is is not known"
    if server.elsewhere:
        return "", "", f"the command runs elsewhere ({server.elsewhere})"
    if "hf_overrides" in plan.given:
        return "", "", "--hf-overrides may change their number"
    name = os.path.join(str(model.value), "config.json")
    path = os.path.join(server.directory or "", name)
    if UNKNOWN in path or not files.is_file(path):
        return "", "", "the model is not a local directory with a config.json"
    return name, path, ""


def _redundant(plan: Plan) -> int | None:
    entry = plan.given.get("eplb_config")
    keys: Any = entry.value if entry else {}
    if isinstance(keys, str):
        from eplb_launch.vllm.values import json_object

        keys = json_object(keys, human_readable=True)
    value = keys.get("num_redundant_experts", 0) if isinstance(keys, dict) else None
    try:
        number = int(value) if isinstance(value, (int, float, str)) else -1
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 1 << 20 else None


def _load(path: str, files: Files) -> object:
    """Return the content of a small JSON file, or None."""
    import json

    try:
        content = files.read(path, _MAX_BYTES + 1)
        return None if len(content) > _MAX_BYTES else json.loads(content)
    except (OSError, ValueError, RecursionError):
        return None


def _logical(config: object, depth: int = 3) -> int | None:
    """Return the number of routed experts, that of the language model first."""
    if not isinstance(config, dict) or not depth:
        return None
    for key in _NESTED:
        found = _logical(config.get(key), depth - 1)
        if found is not None:
            return found
    for key in _KEYS:
        value = config.get(key)
        if isinstance(value, list) and value:
            value = value[0]  # Ernie: the same for each modality
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20:
            return value
    return None
