"""The GPUs of the machine, and how many SMs they have: from the driver's files, not from a GPU.

These files are in /proc/driver/nvidia, which container runtimes show and WSL does not have. They
are read as the command sees them.
"""

from __future__ import annotations

from eplb_launch.files import DISK
from eplb_launch.model import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from eplb_launch.files import Files

_HOPPER = "NVIDIA H100 white paper, Hopper architecture in depth"
_BLACKWELL = "FlashInfer pull request 4445: physical SMs"


class Gpu(Record):
    name: str  # as people call it
    sms: int
    products: tuple[str, ...]  # as the driver calls it, without "NVIDIA "
    source: str


# The product names are those of vLLM's tuned configurations (fused_moe/configs), and of GKE. Other
# names are not guessed: products with similar names differ in their SMs.
GPUS: tuple[Gpu, ...] = (
    Gpu("H100", 132, ("H100 80GB HBM3", "H100 80GB", "H100 MEGA 80GB"), f"{_HOPPER}; measured"),
    Gpu("H100 PCIe", 114, ("H100 PCIe",), _HOPPER),
    Gpu("H100 NVL", 132, ("H100 NVL",), "NVIDIA H100 NVL product brief: 16896 CUDA cores"),
    Gpu("H200", 132, ("H200", "H200 NVL", "H200 141GB"), "NVIDIA H200 data sheet; measured"),
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
    Gpu("GB300", 152, ("GB300",), "FlashInfer issue 4254, of its pull request 4557"),
)
NOT_THERE = "is not there"
DRIVER = "/proc/driver/nvidia"
_MAX_BYTES = 1 << 14
_MAX_GPUS = 64


class Seen(Record):
    gpus: tuple[Gpu, ...]  # each model once; empty: not known
    why: str = ""  # why they are not known


def by_product(name: str) -> Gpu | None:
    """Return the GPU with this product name: the driver's, or a label's with "-" for " "."""
    text = _plain(name)
    products = ((gpu, product) for gpu in GPUS for product in (gpu.name, *gpu.products))
    return next((gpu for gpu, product in products if _plain(product) == text), None)


def _plain(name: str) -> str:
    words = name.lower().replace("-", " ").split()
    return " ".join(words[1:] if words[:1] == ["nvidia"] else words)


def seen(environ: Mapping[str, str], files: Files = DISK) -> Seen:
    """Return the GPUs that a command with this environment can use."""
    for variable in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        if "MIG-" in environ.get(variable, ""):
            return Seen((), f"{variable} names a part of a GPU (MIG)")
    # A divided GPU has /proc/driver/nvidia/capabilities/gpu0/mig/gi1.
    devices = [name for name in _names(f"{DRIVER}/capabilities", files) if name[:3] == "gpu"]
    parts = (_names(f"{DRIVER}/capabilities/{device}/mig", files) for device in devices[:_MAX_GPUS])
    if any(name.startswith("gi") for names in parts for name in names):
        return Seen((), "a GPU is divided (MIG)")
    places = sorted(_names(f"{DRIVER}/gpus", files))[:_MAX_GPUS]
    if not places:
        return Seen((), f"{DRIVER}/gpus {NOT_THERE}")
    kinds: dict[str, Gpu] = {}
    for place in places:
        try:
            content = files.read(f"{DRIVER}/gpus/{place}/information", _MAX_BYTES)
        except OSError:
            return Seen((), f"{DRIVER}/gpus cannot be read")
        facts = _facts(content.decode(errors="replace"))
        if facts.get("GPU Excluded") == "Yes":
            continue
        model = facts.get("Model", "")
        gpu = by_product(model)
        if gpu is None:
            shown = repr(model[:40]) if model and model.isprintable() else "a GPU without a name"
            return Seen((), f"the number of SMs of {shown} is not known")
        kinds[gpu.name] = gpu
    return Seen(tuple(kinds.values()), "" if kinds else "the driver lists no GPU")


def _names(folder: str, files: Files) -> list[str]:
    try:
        return files.names(folder)
    except OSError:
        return []


def _facts(text: str) -> dict[str, str]:
    """Return the lines `Model: <tab> NVIDIA H100 80GB HBM3` by name."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}
