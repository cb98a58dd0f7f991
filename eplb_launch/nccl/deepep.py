"""How many SMs DeepEP's low-latency dispatch leaves to NCCL, by the number of experts.

DeepEP launches it cooperatively, one block on each SM (csrc/kernels/internode_ll.cu at 73b6ea4 and
d4f41e4, the revisions that vLLM 0.12 to 0.24 pin), so it starts only when that many SMs are free.
That a block of NCCL takes the whole SM, and that the grid waits as soon as one SM is missing, was
measured on an H200, with NCCL's own kernel and a stand-in for DeepEP's (benchmarks/nccl). The
grid itself is arithmetic, from
DeepEP's source. The combine kernel depends on the tokens of a step, which nobody knows before.

Imported only for `explain` and for `--max-ctas fit`.
"""

from __future__ import annotations

import json
import os

from eplb_launch.command.entrypoints import UNKNOWN
from eplb_launch.files import DISK
from eplb_launch.model import Record
from eplb_launch.plans import NOTHING_FITS, PlanWarning
from eplb_launch.vllm.releases import CAP, VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from eplb_launch.files import Files
    from eplb_launch.plans import Plan

# GPUs and their number of streaming multiprocessors (NVIDIA's data sheets).
GPUS: tuple[tuple[str, int], ...] = (("H100, H200", 132), ("H20", 78), ("B200", 148))
SOURCE = "DeepEP csrc/kernels/internode_ll.cu; blocking measured on an H200: benchmarks/nccl"
RULE = "deepep_low_latency"

# vllm/config/model.py, get_num_experts; vllm/transformers_utils/config.py from 0.26 or so.
_KEYS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
# Where the language model of a multimodal one is (transformers, get_text_config; vLLM's configs).
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_MAX_BYTES = 1 << 20  # of a config.json; DeepSeek-V3's has 2 KB


class Experts(Record):
    """The physical experts of a model: all that DeepEP counts, replicas included."""

    count: int | None  # None: not known
    source: str  # where that is from, or why it is not known


class Fit(Record):
    """How a GPU is shared between DeepEP's dispatch and NCCL."""

    gpu: str
    sms: int
    blocks: int  # of DeepEP's dispatch, an SM each
    fits: int | None  # the largest power of two up to 8 that the rest has room for; None: nothing

    @property
    def left(self) -> int:
        """The SMs that dispatch leaves."""
        return self.sms - self.blocks


def grid(experts: int, sms: int) -> int:
    """Return how many blocks, and so SMs, dispatch takes for so many physical experts."""
    groups = -(-experts // sms)  # experts of a block
    return -(-experts // groups)


def fitting_ctas(experts: int, sms: int) -> int | None:
    """Return the largest power of two, up to 8, that fits beside dispatch; None: nothing does."""
    left = sms - grid(experts, sms)
    return min(1 << (left.bit_length() - 1), CAP) if left > 0 else None


def table(experts: int) -> tuple[Fit, ...]:
    """Return how it looks on each of GPUS."""
    return tuple(Fit(gpu, sms, grid(experts, sms), fitting_ctas(experts, sms)) for gpu, sms in GPUS)


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
        from eplb_launch.vllm.values import parse_json

        try:
            keys = parse_json(keys, human_readable=True)
        except (ValueError, RecursionError):
            return None
    value = keys.get("num_redundant_experts", 0) if isinstance(keys, dict) else None
    try:
        number = int(value) if isinstance(value, (int, float, str)) else -1
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 1 << 20 else None


def _load(path: str, files: Files) -> object:
    """Return the content of a small JSON file, or None."""
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


def fit(plan: Plan, sms: int, files: Files = DISK) -> tuple[int, tuple[PlanWarning, ...]]:
    """Return the cap for a GPU with so many SMs; vLLM's 8, with a warning, where it is not known.

    `plan` is of a command that can hang.
    """
    verdict = plan.verdict
    if verdict is None or verdict.rule.name != RULE:
        why = "it says nothing about kernels other than DeepEP's"
        return CAP, (_unfit(why, "give a number"),)
    experts = physical_experts(plan, files)
    if experts.count is None:
        why = f"the number of experts is not known: {experts.source}"
        return CAP, (_unfit(why, "give a number, or the model as a local directory"),)
    found = fitting_ctas(experts.count, sms)
    if found is None:
        message = (
            f"--max-ctas fit: nothing fits, with {experts.count} experts DeepEP's dispatch takes "
            f"all of {sms} SMs"
        )
        remedy = "change --eplb-config.num_redundant_experts, or give a number"
        return CAP, (PlanWarning(NOTHING_FITS, message, remedy, SOURCE),)
    return found, ()


def _unfit(why: str, remedy: str) -> PlanWarning:
    message = f"--max-ctas fit finds no value, so {VARIABLE} is {CAP}: {why}"
    return PlanWarning("max-ctas-unfit", message, remedy, SOURCE)


def advice(
    plan: Plan, files: Files = DISK
) -> tuple[tuple[PlanWarning, ...], tuple[PlanWarning, ...]]:
    """Return warnings of GPUs beside whose dispatch the cap does not fit, and notes; for `explain`.

    The note says why it cannot be told.
    """
    verdict = plan.verdict
    if verdict is None or verdict.rule.name != RULE:
        return (), ()
    cap = plan.ctas or CAP
    experts = physical_experts(plan, files)
    if experts.count is None:
        message = f"whether {cap} CTAs are few enough is not known: {experts.source}"
        remedy = (
            "with 128, 256, 384 or 512 physical experts on a GPU of 132 SMs (H100, H200) use "
            "`eplb-launch --max-ctas 4`"
        )
        return (), (PlanWarning("cap-fit-unknown", message, remedy, SOURCE),)
    unfit = (
        PlanWarning("cap-does-not-fit", *_does_not_fit(row, experts, cap), SOURCE)
        for row in table(experts.count)
        if row.left < cap
    )
    return tuple(unfit), ()


def _does_not_fit(row: Fit, experts: Experts, cap: int) -> tuple[str, str]:
    message = (
        f"on {row.gpu}, with {experts.count} physical experts ({experts.source}), DeepEP's "
        f"dispatch takes {row.blocks} of {row.sms} SMs: {cap} CTAs do not fit beside it"
    )
    if row.fits is None:
        return f"{message}, and no number does", "change --eplb-config.num_redundant_experts"
    return f"{message}, {row.fits} would", f"`eplb-launch --max-ctas {row.fits}` on such GPUs"
