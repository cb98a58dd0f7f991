"""The conditions of the rules, each true, false or unknown, and how they combine.

The rules themselves, and which release has which, are data in `releases`.
"""

from __future__ import annotations

from eplb_launch.model import Record
from eplb_launch.vllm.releases import NCCL_COMMUNICATORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eplb_launch.vllm.releases import Release, Rule
    from eplb_launch.vllm.settings import Setting

    Settings = Mapping[str, Setting]


class Condition(Record):
    """One condition of a rule, as it stands."""

    text: str
    holds: bool | None  # None: unknown
    setting: str  # the name of the setting that decides it


class Verdict(Record):
    """A rule and its conditions."""

    rule: Rule
    conditions: tuple[Condition, ...]

    @property
    def holds(self) -> bool | None:
        """True if all conditions hold, False if one does not, else None: unknown."""
        if any(condition.holds is False for condition in self.conditions):
            return False
        return True if all(condition.holds for condition in self.conditions) else None


def _is(name: str, test: Callable[[object], bool]) -> Callable[[Settings], bool | None]:
    def holds(settings: Settings) -> bool | None:
        setting = settings[name]
        if setting.known:
            return test(setting.value)
        possible = {test(value) for value in setting.value or ()}
        return possible.pop() if len(possible) == 1 else None

    return holds


def _no_other_communicator(settings: Settings) -> bool | None:
    setting = settings["communicator"]
    if not setting.given:
        return True
    return setting.value in NCCL_COMMUNICATORS if setting.known else None


def _nccl_communicator_of_mega_moe(settings: Settings) -> bool | None:
    """Every release with this rule picks no NCCL communicator by itself, except for elastic EP."""
    setting, elastic, nixl = (settings[n] for n in ("communicator", "enable_elastic_ep", "nixl"))
    if setting.given:
        return setting.value in NCCL_COMMUNICATORS if setting.known else None
    if elastic.known and elastic.value:
        return True if nixl.known and not nixl.value else None
    return False if elastic.known else None


# By name: what it says, the setting that decides, and whether it holds.
CONDITIONS: Mapping[str, tuple[str, str, Callable[[Settings], bool | None]]] = {
    "data_parallel": (
        "data_parallel_size > 1",
        "data_parallel_size",
        _is("data_parallel_size", lambda value: isinstance(value, int) and value > 1),
    ),
    "eplb": ("enable_eplb", "enable_eplb", _is("enable_eplb", bool)),
    "async_eplb": ("eplb_config.use_async", "use_async", _is("use_async", bool)),
    "deepep_low_latency": (
        'all2all_backend == "deepep_low_latency"',
        "all2all_backend",
        _is("all2all_backend", lambda value: value == "deepep_low_latency"),
    ),
    "mega_moe": (
        'moe_backend == "deep_gemm_mega_moe"',
        "moe_backend",
        _is("moe_backend", lambda value: value == "deep_gemm_mega_moe"),
    ),
    "nccl_communicator": (
        "eplb_config.communicator uses NCCL",
        "communicator",
        _is("communicator", lambda value: value in NCCL_COMMUNICATORS),
    ),
    "no_other_communicator": (
        "no eplb_config.communicator other than NCCL",
        "communicator",
        _no_other_communicator,
    ),
    "nccl_communicator_of_mega_moe": (
        "eplb_config.communicator uses NCCL",
        "communicator",
        _nccl_communicator_of_mega_moe,
    ),
}


def judge(release: Release, settings: Settings) -> tuple[Verdict, ...]:
    """Return the rules of a release with each condition true, false or unknown."""
    return tuple(
        Verdict(
            rule,
            tuple(
                Condition(text, holds(settings), setting)
                for text, setting, holds in (CONDITIONS[name] for name in rule.conditions)
            ),
        )
        for rule in release.rules
    )
