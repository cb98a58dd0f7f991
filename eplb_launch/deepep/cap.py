"""The cap that fits beside DeepEP's kernels, for a command on the GPUs of its machine.

It follows from the experts of the model, the calls that vLLM can make (`grids`) and the GPUs
(`gpus`). Imported only for a command that can hang.
"""

from __future__ import annotations

import os

from eplb_launch.deepep import grids
from eplb_launch.deepep.gpus import GPUS, NOT_THERE, Gpu, Seen, seen
from eplb_launch.files import DISK
from eplb_launch.model import DOES_NOT_FIT, UNKNOWN, PlanWarning, Record
from eplb_launch.vllm.releases import CAP, VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from eplb_launch.files import Files
    from eplb_launch.plans import Plan

RULE = "deepep_low_latency"
_PARTS: dict[float, str] = {2: "half", 4: "a quarter", 8: "an eighth"}
_MAX_RANGES = 4  # that are shown

_MEGA_MOE = PlanWarning(
    "cap-fit-unknown",
    "the number of SMs that DeepGEMM's mega MoE takes is not known, so no cap is known to fit",
    f"keep vLLM's {CAP}",
    "vLLM PR 43339",
)


# vllm/config/model.py, get_num_experts; from about 0.26 vllm/transformers_utils/config.py.
_KEYS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
# The language model of a multimodal one (transformers, get_text_config; vLLM's configs).
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_MAX_BYTES = 1 << 20  # of a config.json; DeepSeek-V3's has 2 KB


class Experts(Record):
    """The physical experts of a model: the routed ones and their replicas."""

    count: int | None  # None: not known
    source: str  # where the number comes from, or why it is not known


class Row(Record):
    """What fits on a GPU, or on several with the same number of SMs."""

    gpu: str
    fit: grids.Fit
    remedies: tuple[str, ...]  # options that make room beside the calls that leave none


def _is_deepep(plan: Plan) -> bool:
    """Whether the kernels that need SMs beside NCCL are DeepEP's."""
    return plan.decisive is not None and plan.decisive.rule.name == RULE


def _tokens(plan: Plan) -> grids.Tokens:
    given = {name: entry.value for name, entry in plan.given.items()}
    environ = plan.server.environ if plan.server else {}
    return grids.tokens(given, environ, plan.release.minor)


def _gpus(plan: Plan, files: Files) -> Seen:
    if plan.sms:
        return Seen((Gpu(f"a GPU of {plan.sms} SMs", plan.sms, (), "--sms"),))
    if plan.server is None or plan.server.remote:
        return Seen((), "the command runs elsewhere")
    return seen(plan.server.environ, files)


def fit(plan: Plan, files: Files = DISK) -> tuple[int, tuple[PlanWarning, ...]]:
    """Return the cap of `--max-ctas fit` for a command that can hang.

    It is vLLM's 8, with a warning, if the cap that fits is not known.
    """
    no_value = f"--max-ctas fit finds no value, so {VARIABLE} is {CAP}: "
    if not _is_deepep(plan):
        return _warned(CAP, no_value + _MEGA_MOE.message, "give a number")
    found = _gpus(plan, files)
    if not found.gpus:
        message = f"{no_value}the GPU is not known: {found.why}"
        return _warned(CAP, message, "give --sms N, or a number")
    experts = physical_experts(plan, files)
    rows = _rows(plan, found.gpus, experts.count)
    full = next((row for row in rows if row.fit.cap is None), None)
    if full:
        message = (
            f"--max-ctas fit: nothing fits on {full.gpu}, so {VARIABLE} is {CAP}: with "
            f"{experts.count} experts DeepEP's dispatch takes all {full.fit.sms} SMs"
        )
        remedy = "change --eplb-config.num_redundant_experts"
        return _warned(CAP, message, remedy, "max-ctas-nothing-fits")
    cap = min(row.fit.cap or CAP for row in rows)
    if experts.count is None:
        message = (
            f"--max-ctas fit: {VARIABLE}={cap} fits beside DeepEP's combine, but its dispatch is "
            f"not known: {experts.source}"
        )
        return _warned(cap, message, "give a number, or the model as a local directory")
    return cap, ()


def _warned(
    cap: int, message: str, remedy: str, code: str = "max-ctas-unfit"
) -> tuple[int, tuple[PlanWarning, ...]]:
    return cap, (PlanWarning(code, message, remedy, grids.SOURCE),)


def advise(plan: Plan, files: Files = DISK) -> Plan:
    """Return the plan, with a note if its cap does not fit on the GPUs of the machine."""
    found = _gpus(plan, files)
    if not found.gpus or plan.ctas is None or not _is_deepep(plan):
        return plan
    noted = _noted(plan, _rows(plan, found.gpus, None))
    if noted is plan:  # combine leaves enough SMs, so dispatch decides
        noted = _noted(plan, _rows(plan, found.gpus, physical_experts(plan, files).count))
    return noted


def explain(plan: Plan, files: Files = DISK) -> Plan:
    """Return the plan with rows for `explain`: for the GPUs of the machine, else for all known."""
    if not _is_deepep(plan):
        return plan if plan.decisive is None else plan.replace(notes=(*plan.notes, _MEGA_MOE))
    found = _gpus(plan, files)
    experts = physical_experts(plan, files)
    rows = _rows(plan, found.gpus or GPUS, experts.count)
    plan = plan.replace(beside=rows) if plan.unfit else _noted(plan, rows).replace(beside=rows)
    assumed = ", ".join(_tokens(plan).assumed)
    unknown = [f"dispatch is not counted: {experts.source}"] if experts.count is None else []
    unknown += [f"taken as vLLM's default: {assumed}"] if assumed else []
    if not found.gpus and not found.why.endswith(NOT_THERE):  # without a GPU, all GPUs are shown
        unknown.append(f"the GPU: {found.why}")
    if not unknown:
        return plan
    message = "not known about DeepEP's kernels: " + "; ".join(unknown)
    remedy = "give the model as a local directory, --vllm-version or --sms, whichever is missing"
    note = PlanWarning("cap-fit-unknown", message, remedy, grids.SOURCE)
    return plan.replace(notes=(*plan.notes, note))


def _rows(plan: Plan, gpus: Iterable[Gpu], experts: int | None) -> tuple[Row, ...]:
    calls = _tokens(plan)
    by_sms: dict[int, list[str]] = {}
    for gpu in gpus:
        by_sms.setdefault(gpu.sms, []).append(gpu.name)
    rows = []
    for sms, names in by_sms.items():
        one = grids.fit(sms, experts, calls)
        left = one.cap is None or one.padded or one.eager
        rows.append(Row(", ".join(names), one, grids.remedies(one, calls) if left else ()))
    return tuple(rows)


def _noted(plan: Plan, rows: Iterable[Row]) -> Plan:
    """Return the plan, with a note about the GPUs on which its cap does not fit."""
    ctas = plan.ctas or CAP
    parts: dict[int | None, list[str]] = {}
    for row in rows if ctas <= CAP else ():
        if row.fit.cap is None or row.fit.cap < ctas:
            parts.setdefault(row.fit.cap, []).append(row.gpu)
    if not parts:
        return plan
    said = []
    for cap, names in parts.items():
        gpus = ", ".join(names)
        half = cap and f"on {gpus} only while NCCL uses {_PARTS.get(ctas / cap, cap)} of it"
        said.append(half or f"not at all on {gpus}")
    message = f"{ctas} fits beside DeepEP " + ", ".join(said)
    note = PlanWarning(DOES_NOT_FIT, message, "`eplb-launch --max-ctas fit`", grids.SOURCE)
    return plan.replace(notes=(*plan.notes, note))


def calls_beside(fit: grids.Fit) -> str:
    """Return the calls that leave no room for the cap, in words; "" if there are none."""
    shown = [f"{first}" if first == last else f"{first} to {last}" for first, last in fit.eager]
    text = ", ".join(shown[:_MAX_RANGES]) + (", …" if len(shown) > _MAX_RANGES else "")
    if not fit.padded or not text:
        return text
    padded = ", ".join(map(str, fit.padded[:_MAX_RANGES]))
    return f"{text} ({padded} padded)"


def physical_experts(plan: Plan, files: Files = DISK) -> Experts:  # noqa: PLR0911 - one reason after the other
    """Return the number of experts of the model, EPLB's redundant experts included.

    It is known if the model is a directory among `files`: its config.json is read.
    """
    server = plan.server
    model = plan.given.get("hf_config_path") or plan.given.get("model")
    if server is None or model is None:
        return Experts(None, "the model is not known")
    if server.remote:
        return Experts(None, f"the command runs elsewhere ({server.remote})")
    if "hf_overrides" in plan.given:
        return Experts(None, "--hf-overrides may change the number of experts")
    name = os.path.join(str(model.value), "config.json")
    path = os.path.join(server.directory or "", name)
    if UNKNOWN in path or not files.is_file(path):
        return Experts(None, "the model is not a local directory with a config.json")
    logical = _logical(_load(path, files))
    if logical is None:
        return Experts(None, f"{name} does not give the number of experts")
    redundant = _redundant(plan)
    if redundant is None:
        return Experts(None, "num_redundant_experts is not known")
    more = f", and {redundant} redundant" if redundant else ""
    return Experts(logical + redundant, f"{name}: {logical}{more}")


def _redundant(plan: Plan) -> int | None:
    entry = plan.given.get("eplb_config")
    keys = grids.json_keys(entry.value if entry else {})
    number = None if keys is None else grids.integer(keys.get("num_redundant_experts", 0))
    return number if number is not None and 0 <= number < 1 << 20 else None


def _load(path: str, files: Files) -> object:
    import json

    try:
        content = files.read(path, _MAX_BYTES + 1)
        return None if len(content) > _MAX_BYTES else json.loads(content)
    except (OSError, ValueError, RecursionError):
        return None


def _logical(config: object, depth: int = 3) -> int | None:
    """Return the number of routed experts; that of the language model wins."""
    if not isinstance(config, dict) or not depth:
        return None
    for key in _NESTED:
        found = _logical(config.get(key), depth - 1)
        if found is not None:
            return found
    for key in _KEYS:
        value = config.get(key)
        if isinstance(value, list) and value:
            value = value[0]  # Ernie has the same number for each modality
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20:
            return value
    return None
