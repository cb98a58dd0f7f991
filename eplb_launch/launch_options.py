"""The launcher's own options and names, once: for a launch, for Typer, for commands that hold it.

`bin/eplb-launch` looks for `--strict` by itself: for where nothing of this can be loaded.
"""

from __future__ import annotations

from eplb_launch.vllm.releases import CAP, MAX_CHANNELS, minor_release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NAMES = ("eplb-launch", "eplb_launch")  # as a program, and as a module
SINGLE_FILE = "eplb-launch.pyz"
SUB_COMMANDS = ("explain", "env", "ps", "check")
# What may stand before "--": an option, what it takes ("": nothing), and its help.
OPTIONS: Mapping[str, tuple[str, str]] = {
    "--strict": ("", "If there is a warning, do not start CMD: exit with 125."),
    "--quiet": ("", "Print neither what is set nor warnings."),
    "--verbose": ("", "Also print why nothing was set."),
    "--vllm-version": (
        "X.Y.Z",
        "The vLLM release that CMD runs. Nothing is looked up then.",
    ),
    "--max-ctas": (
        "N|fit",
        (
            "Set this cap instead of vLLM's 8: a number from 1 to 64 (NCCL rounds up to a power "
            "of two), or fit. With fit it is the largest power of two up to 8 that fits beside "
            "DeepEP's dispatch and combine on the GPUs of this machine. fit reads the config.json "
            "of a local model to know dispatch; without it, combine alone decides. If the GPU is "
            "not known or nothing fits, fit warns and sets 8."
        ),
    ),
    "--sms": (
        "N",
        (
            "The number of SMs of the GPU, for --max-ctas fit. The GPU is not looked up then. "
            "H100 and H200 have 132, H20 has 78, B200 has 148, GB200 has 152."
        ),
    ),
}
MOST_SMS = 1024


def read(argv: list[str]) -> dict[str, Any] | None:
    """Return the options before "--" of a launch; None for all that is not plainly one.

    A short cut past Typer, which takes ten times as long to import as all the rest, and explains
    what is wrong with others.
    """
    given: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        if word == "--":
            return _checked(given) if next(words, None) is not None else None
        name, equals, value = word.partition("=")
        if name not in OPTIONS or (equals and not OPTIONS[name][0]):
            return None
        takes = OPTIONS[name][0]
        given[name[2:].replace("-", "_")] = (
            (value if equals else next(words, "")) if takes else True
        )
    return None


def _checked(given: dict[str, Any]) -> dict[str, Any] | None:
    try:
        check_version(given.get("vllm_version"))
        cap = cap_options(given.pop("max_ctas", None), given.pop("sms", None))
    except ValueError:
        return None
    return {**given, **cap}


def cap_options(max_ctas: str | None, sms: str | None) -> dict[str, Any]:
    """Return `max_ctas` and `sms` of `plan` from the options of those names; or ValueError."""
    texts = {"max_ctas": max_ctas, "sms": sms}
    options: dict[str, Any] = {
        name: int(text) if text.isascii() and text.isdigit() and len(text) < 9 else text
        for name, text in texts.items()
        if text is not None
    }
    check_cap(**options)
    return options


def check_version(vllm_version: str | None) -> None:
    """Refuse with ValueError what says no release."""
    if vllm_version is not None and minor_release(vllm_version) is None:
        raise ValueError(
            f"--vllm-version must be a vLLM release such as 0.16.0, not {vllm_version!r}"
        )


def check_cap(max_ctas: object = CAP, sms: object = None) -> None:
    """Refuse with ValueError what is no cap, and what is no number of SMs."""
    if max_ctas == "fit":
        if sms is not None and (not isinstance(sms, int) or not 1 <= sms <= MOST_SMS):
            raise ValueError(f"--sms must be a number from 1 to {MOST_SMS}, 132 for an H100")
    elif not isinstance(max_ctas, int) or not 1 <= max_ctas <= MAX_CHANNELS:
        raise ValueError(f"--max-ctas must be a number from 1 to {MAX_CHANNELS}, or fit")
    elif sms is not None:
        raise ValueError("--sms needs --max-ctas fit")
