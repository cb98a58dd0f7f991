"""The assessment of a server in a file, and what stands before it there. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from eplb_launch.assessment import EXPOSED, Assessment, assess
from eplb_launch.check.docker_run import ENGINES
from eplb_launch.check.kubernetes.pods import from_secrets_only
from eplb_launch.check.model import OK_STATES
from eplb_launch.check.tasks import Task
from eplb_launch.files import Files
from eplb_launch.launch_options import NAMES, SINGLE_FILE, read
from eplb_launch.model import UNKNOWN as UNREADABLE
from eplb_launch.model import Server, Wrapper, cut
from eplb_launch.plans import Plan
from eplb_launch.vllm.releases import VARIABLE
from eplb_launch.vllm.settings import Setting

# Where the variable set, or the command wrapped, would put it right.
FIXABLE = frozenset(
    (
        "no-limit",
        "settings-not-known",
        "release-not-known",
        "environment-not-read",
        "command-not-understood",
        "config-not-read",
        "launcher-misused",
    )
)
# Where the variable is set, and another value of it would.
WRONG_VALUES = frozenset(("value-not-a-limit", "value-too-high", "value-not-known"))
# Values that may be shown: vllm/config/parallel.py, vllm/config/kernel.py of 0.12 to 0.33.
_VALUES = frozenset(
    (
        *("allgather_reducescatter", "deepep_high_throughput", "deepep_low_latency", "deepep_v2"),
        *("flashinfer_all2allv", "flashinfer_nvlink_one_sided", "flashinfer_nvlink_two_sided"),
        *("mori", "mori_high_throughput", "mori_low_latency", "naive", "nixl_ep", "passthrough"),
        *("pplx", "pynccl", "torch_nccl", "torch_gloo", "nixl"),
        *("auto", "triton", "deep_gemm", "deep_gemm_mega_moe", "cutlass", "marlin", "aiter"),
    )
)
_LAUNCHERS = (*NAMES, SINGLE_FILE)


def assessed(
    task: Task, plan: Plan, server: Server, *, files: Files, idle: bool = False
) -> Assessment:
    """Return the assessment of a server of a task, by its Plan.

    `idle`: the launcher, if it stands there, is told of a release for which it sets nothing.
    """
    wrapped = is_wrapped(server.prefixes)
    if wrapped and launcher_options(server.prefixes) is None:
        reason = "eplb-launch refuses its options, and starts nothing"
        if lacks_dashes(server.prefixes):
            reason = 'eplb-launch starts nothing without "--" before its command'
        return Assessment(EXPOSED, "launcher-misused", reason)
    found = assess(
        plan,
        launched=wrapped and not idle,
        files=files,
        unread=not from_secrets_only(task.unread),
        value_unread=UNREADABLE in (plan.current or "") and _is_set(task),
        # The environment of a container is that of its Ray, but of no other container's.
        ray_capped=not task.workers_without,
    )
    if found.cause == "config-not-read":
        reason = "its --config file is not among the files that are checked, or is not valid YAML"
        found = found.replace(reason=reason, warnings=())
    if wrapped and idle and found.state not in OK_STATES:
        told = "eplb-launch is told of a release for which it sets nothing"
        found = found.replace(reason=f"{found.reason}; {told}")
    return found


def public(found: Assessment, settings: Mapping[str, Setting]) -> Assessment:
    """Return an assessment whose reason shows no text that is none of vLLM's own.

    It may come from a Secret or a file of environment, whose content is nobody's to print.
    """
    reason = found.reason
    for setting in settings.values():
        source = cut(setting.source)
        foreign = isinstance(setting.value, str) and setting.value not in _VALUES
        if foreign or "{" in source:
            said = "(another)" if foreign else setting.shown
            shown = f"{setting.name}={said}, {source.partition(':')[0]}"
            reason = reason.replace(f"{setting.name}={setting.shown}, {source}", shown)
    return found.replace(reason=reason)


def _is_set(task: Task) -> bool:
    """Whether a file says that the variable is set, be it to a value that is not known.

    Behind `sudo` and the like it is not known either, but there nobody has set it.
    """
    return VARIABLE in task.environ or any(
        re.search(rf"\b{VARIABLE}=", word.text) for word in task.words
    )


def launcher_of(prefixes: Sequence[Wrapper]) -> tuple[str, ...]:
    """Return the words that start the launcher; () if it is not there."""
    found = next(filter(_is_launcher, prefixes), None)
    return found.words[:4] if found is not None else ()


def is_wrapped(prefixes: Sequence[Wrapper]) -> bool:
    """Whether the launcher is among what stands before a server."""
    return any(map(_is_launcher, prefixes))


def lacks_dashes(prefixes: Sequence[Wrapper]) -> bool:
    """Whether the launcher is there, and the "--" is not that it wants before its command."""
    return any(_is_launcher(prefix) and "--" not in prefix.words for prefix in prefixes)


def launcher_options(prefixes: Sequence[Wrapper]) -> dict[str, Any] | None:
    """Return the options that the launcher is given; None where it refuses them."""
    found: dict[str, Any] | None = {}
    for prefix in filter(_is_launcher, prefixes):
        names = [word.rpartition("/")[2] for word in prefix.words]
        start = next(i for i, name in enumerate(names) if name in _LAUNCHERS) + 1
        if not any(UNREADABLE in word for word in prefix.words[start:]):
            found = read([*prefix.words[start:], "command"])
    return found


def _is_launcher(prefix: Wrapper) -> bool:
    if prefix.name in ENGINES:
        return False  # what it starts in the container is a prefix of its own
    return prefix.name in _LAUNCHERS or any(
        word.rpartition("/")[2] in _LAUNCHERS for word in prefix.words[:4]
    )
