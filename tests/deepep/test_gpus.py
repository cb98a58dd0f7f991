"""The GPUs of a machine, from the driver's files."""

from __future__ import annotations

import pytest

from eplb_launch.deepep.gpus import DRIVER, GPUS, NOT_THERE, by_product, seen
from eplb_launch.files import InMemory

# The text that driver 580.159.04 writes.
FACTS = """Model: \t\t {}
IRQ:   \t\t 41
GPU UUID: \t GPU-41222c1b-edc8-30e2-d19e-8d574464bad7
Video BIOS: \t 96.00.da.00.0c
Bus Type: \t PCIe
DMA Size: \t 52 bits
DMA Mask: \t 0xfffffffffffff
Bus Location: \t 0000:00:06.0
Device Minor: \t 0
GPU Excluded:\t No
"""


def machine(*models: str, more: dict[str, str] | None = None) -> InMemory:
    texts = {
        f"{DRIVER}/gpus/0000:0{number}:00.0/information": FACTS.format(model)
        for number, model in enumerate(models)
    }
    return InMemory({**texts, **(more or {})})


NAMES = {
    "NVIDIA H100 80GB HBM3": 132,
    "NVIDIA H100 PCIe": 114,
    "NVIDIA H100 NVL": 132,
    "NVIDIA H200": 132,
    "NVIDIA H800": 132,
    "NVIDIA H20": 78,
    "NVIDIA H20-3e": 78,
    "NVIDIA GH200 480GB": 132,
    "NVIDIA B200": 148,
    "NVIDIA GB200": 152,
    "NVIDIA B300 SXM6 AC": 148,
    "NVIDIA GB300": 152,
    "NVIDIA-H100-80GB-HBM3": 132,
    "nvidia-h100-80gb": 132,
    "nvidia-b200": 148,
}


@pytest.mark.parametrize(("name", "sms"), NAMES.items())
def test_a_product_name_gives_the_sms(name: str, sms: int) -> None:
    gpu = by_product(name)
    assert gpu is not None
    assert gpu.sms == sms


@pytest.mark.parametrize(
    "name",
    [
        *("", "NVIDIA", "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM2e", "NVIDIA H1000"),
        *("H100 80GB HBM3 MIG 1g.10gb", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "Graphics Device"),
        *("NVIDIA B2000", "AMD Instinct MI300X", "NVIDIA GH200 Grace"),
    ],
)
def test_no_other_name_is_guessed(name: str) -> None:
    assert by_product(name) is None


def test_every_row_has_its_source_and_no_name_twice() -> None:
    names = [name for gpu in GPUS for name in (gpu.name, *gpu.products)]
    assert all(gpu.source for gpu in GPUS)
    assert all(by_product(name) in GPUS for name in names)
    for gpu in GPUS:
        assert all(by_product(name) == gpu for name in (gpu.name, *gpu.products))


def test_the_driver_files_name_the_gpus_of_a_machine() -> None:
    assert [gpu.name for gpu in seen({}, machine(*["NVIDIA H100 80GB HBM3"] * 8)).gpus] == ["H100"]
    mixed = seen({}, machine("NVIDIA H100 80GB HBM3", "NVIDIA H20"))
    assert [gpu.sms for gpu in mixed.gpus] == [132, 78]


ODD: dict[str, tuple[InMemory, str]] = {
    "no driver": (InMemory({}), NOT_THERE),
    "no GPU": (InMemory({f"{DRIVER}/gpus/x/y": "", f"{DRIVER}/version": ""}), "cannot be read"),
    "no information": (InMemory({f"{DRIVER}/gpus/0/registry": ""}), "cannot be read"),
    "another GPU": (machine("NVIDIA A100-SXM4-80GB"), "'NVIDIA A100-SXM4-80GB'"),
    "one of two is not known": (machine("NVIDIA H20", "NVIDIA H99"), "'NVIDIA H99'"),
    "no model": (InMemory({f"{DRIVER}/gpus/0/information": "IRQ: 1\n"}), "without a name"),
    "nothing in it": (InMemory({f"{DRIVER}/gpus/0/information": ""}), "without a name"),
    "no text": (InMemory({f"{DRIVER}/gpus/0/information": "\0\x1b[31m\udcff:"}), "without a name"),
    "escapes in the name": (machine("NVIDIA \x1b[31mH100"), "without a name"),
    "a long name": (machine("NVIDIA " + "H" * 5000), "'NVIDIA HHH"),
    "MIG": (
        machine(
            "NVIDIA H100 80GB HBM3",
            more={f"{DRIVER}/capabilities/gpu0/mig/gi1/access": ""},
        ),
        "MIG",
    ),
    "excluded": (
        InMemory(
            {f"{DRIVER}/gpus/0/information": FACTS.format("NVIDIA H20").replace(" No", " Yes")},
        ),
        "lists no GPU",
    ),
}


@pytest.mark.parametrize(("files", "why"), ODD.values(), ids=ODD)
def test_gpus_that_are_not_known_have_a_reason(files: InMemory, why: str) -> None:
    found = seen({}, files)
    assert found.gpus == ()
    assert why in found.why
    assert len(found.why) < 120


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"])
def test_a_mig_slice_in_a_variable_makes_the_gpu_unknown(name: str) -> None:
    files = machine("NVIDIA H100 80GB HBM3")
    assert "MIG" in seen({name: "MIG-41222c1b-edc8-30e2-d19e-8d574464bad7"}, files).why
    assert seen({name: "0,1"}, files).gpus


def test_without_mig_the_driver_lists_no_parts() -> None:
    more = {f"{DRIVER}/capabilities/gpu0/mig/config": "", f"{DRIVER}/capabilities/mig/monitor": ""}
    assert seen({}, machine("NVIDIA H100 80GB HBM3", more=more)).gpus


def test_driver_files_with_other_line_ends_are_read() -> None:
    text = "\nModel:NVIDIA H20\r\nGPU Excluded: No\r\n"
    assert [gpu.sms for gpu in seen({}, InMemory({f"{DRIVER}/gpus/0/information": text})).gpus] == [
        78
    ]
