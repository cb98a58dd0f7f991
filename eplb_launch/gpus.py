"""Which GPUs the machine has, and how many SMs: from the driver's files, without asking a GPU.

Reads /proc/driver/nvidia, which the driver writes and container runtimes show. It is not there on
WSL. Pure but for the files, which a caller may give a root of, or a reader of its own.
"""

from __future__ import annotations

import os

from eplb_launch.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HOPPER = "NVIDIA H100 white paper, Hopper architecture in depth"
_BLACKWELL = "FlashInfer pull request 4445: physical SMs"


class Gpu(Record):
    """A kind of GPU."""

    name: str  # as a person calls it
    sms: int
    products: tuple[str, ...]  # as the driver calls it, "NVIDIA " left out
    source: str


# Names of products: those of the tuned configurations in vLLM, fused_moe/configs. A name that is
# not here is not guessed: other products of one name have other numbers of SMs.
GPUS: tuple[Gpu, ...] = (
    Gpu("H100", 132, ("H100 80GB HBM3",), f"{_HOPPER}; measured"),
    Gpu("H100 PCIe", 114, ("H100 PCIe",), _HOPPER),
    Gpu("H100 NVL", 132, ("H100 NVL",), "NVIDIA H100 NVL product brief: 16896 CUDA cores"),
    Gpu("H200", 132, ("H200", "H200 NVL"), "NVIDIA H200 data sheet; measured"),
    Gpu("H800", 132, ("H800",), "DeepSeek-V3 technical report, 3.5.1"),
    Gpu("H20", 78, ("H20", "H20-3e"), "DeepEP issue 389"),
    Gpu(
        "GH200",
        132,
        ("GH200 480GB", "GH200 120GB", "GH200 144G HBM3e"),
        "NVIDIA GH200 data sheet: 16896 CUDA cores",
    ),
    Gpu("B200", 148, ("B200",), _BLACKWELL),
    Gpu("GB200", 152, ("GB200",), _BLACKWELL),
    Gpu("B300", 148, ("B300 SXM6 AC",), _BLACKWELL),
    Gpu("GB300", 152, ("GB300",), "FlashInfer pull request 4557"),
)
_DRIVER = "/proc/driver/nvidia"
_MAX_BYTES = 1 << 14
_MANY = 64  # GPUs of a machine


class Seen(Record):
    """The GPUs of a machine, as far as they are known."""

    gpus: tuple[Gpu, ...]  # each kind once; empty: not known
    why: str = ""  # why they are not known


def by_product(name: str) -> Gpu | None:
    """Return the row of a product by the driver's name for it, or of a name in GPUS."""
    words = name.replace("_", " ").replace("-SXM", " SXM").split()
    text = " ".join(words[1:] if words[:1] == ["NVIDIA"] else words)
    for gpu in GPUS:
        if text == gpu.name or text in gpu.products:
            return gpu
    return None


def seen(
    environ: Mapping[str, str],
    root: str = "",
    *,
    names: Callable[[str], list[str]] = os.listdir,
    read: Callable[[str], str] | None = None,
) -> Seen:
    """Return the GPUs that a command started with `environ` finds.

    `root` is the directory that it sees as "/", if that is not ours. `names` lists a directory,
    `read` returns the beginning of a file; both raise OSError for what is not there.
    """
    for variable in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        if "MIG-" in environ.get(variable, ""):
            return Seen((), f"{variable} names a part of a GPU (MIG)")
    folder = root + _DRIVER
    if _has_parts(folder, names):
        return Seen((), "a GPU is divided (MIG)")
    try:
        places = sorted(names(f"{folder}/gpus"))[:_MANY]
    except OSError:
        return Seen((), f"{_DRIVER}/gpus is not there")
    kinds: dict[str, Gpu] = {}
    for place in places:
        try:
            facts = _facts((read or _beginning)(f"{folder}/gpus/{place}/information"))
        except OSError:
            return Seen((), f"{_DRIVER}/gpus cannot be read")
        if facts.get("GPU Excluded") == "Yes":
            continue
        gpu = by_product(facts.get("Model", ""))
        if gpu is None:
            return Seen((), f"the SMs of {_shown(facts.get('Model', ''))} are not known here")
        kinds[gpu.name] = gpu
    return Seen(tuple(kinds.values()), "" if kinds else "the driver lists no GPU")


def _has_parts(folder: str, names: Callable[[str], list[str]]) -> bool:
    """Whether a GPU has MIG instances: /proc/driver/nvidia/capabilities/gpu0/mig/gi1."""
    try:
        devices = [name for name in names(f"{folder}/capabilities") if name.startswith("gpu")]
    except OSError:
        return False
    for device in devices[:_MANY]:
        try:
            if any(name.startswith("gi") for name in names(f"{folder}/capabilities/{device}/mig")):
                return True
        except OSError:
            pass
    return False


def _facts(text: str) -> dict[str, str]:
    """Return the lines `Model: <tab> NVIDIA H100 80GB HBM3` by name."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _shown(model: str) -> str:
    return repr(model[:40]) if model and model.isprintable() else "a GPU without a name"


def _beginning(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(_MAX_BYTES).decode(errors="replace")
