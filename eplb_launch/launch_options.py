"""The launcher's names and options, in one place.

The start, the Typer app and the readers of commands use them. Only `bin/eplb-launch` looks for
`--strict` itself, in case the package cannot be loaded.
"""

from __future__ import annotations

from eplb_launch.vllm.releases import CAP, MAX_CHANNELS, minor_release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

NAMES = ("eplb-launch", "eplb_launch")  # of the program and of the module
SINGLE_FILE = "eplb-launch.pyz"
SUB_COMMANDS = ("explain", "env", "ps", "check")
# The options before "--": what each takes ("" for a flag), and its help.
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
    """Return the options of a plain launch; None for any other command line.

    Typer reads the others, and says what is wrong with them. Importing it takes ten times as long
    as everything else that a launch does.
    """
    given: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name not in OPTIONS or (equals and not OPTIONS[name][0]):
            return None
        if OPTIONS[name][0] and not equals:
            value = next(words, "")
        given[name[2:].replace("-", "_")] = value if OPTIONS[name][0] else True
    if next(words, None) is None:
        return None  # there is no "--", or no command after it
    try:
        return with_numbers(given)
    except ValueError:
        return None


def with_numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as `plan` takes them; ValueError if one has a wrong value."""
    values = {**options}
    for name in ("max_ctas", "sms"):
        text = values.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 9:
            values[name] = int(text)
    check_options(values.get("vllm_version"), values.get("max_ctas", CAP), values.get("sms"))
    return values


def check_command(command: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command, or raise TypeError if one is not a string."""
    if isinstance(command, (str, bytes)):
        raise TypeError("a command is a sequence of words, not one string")
    words = tuple(command)
    for number, word in enumerate(words, 1):
        if not isinstance(word, str):
            kind = type(word).__name__
            raise TypeError(f"word {number} of the command is not a string: {kind}")
    return words


def check_options(
    vllm_version: str | None = None, max_ctas: object = CAP, sms: object = None
) -> None:
    """Raise ValueError if one of these options has a wrong value."""
    if vllm_version is not None and minor_release(vllm_version) is None:
        raise ValueError(
            f"--vllm-version must be a vLLM release such as 0.16.0, not {vllm_version!r}"
        )
    if max_ctas == "fit":
        if sms is not None and (not isinstance(sms, int) or not 1 <= sms <= MOST_SMS):
            raise ValueError(f"--sms must be a number from 1 to {MOST_SMS}, 132 for an H100")
    elif not isinstance(max_ctas, int) or not 1 <= max_ctas <= MAX_CHANNELS:
        raise ValueError(f"--max-ctas must be a number from 1 to {MAX_CHANNELS}, or fit")
    elif sms is not None:
        raise ValueError("--sms needs --max-ctas fit")
