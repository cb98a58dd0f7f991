"""What differs between vLLM releases, as one table: when EPLB can hang, first of all.

Why it hangs: DeepEP's kernels are launched cooperatively, all blocks of a grid at once or none, and
take most SMs of a GPU. Async EPLB moves expert weights with NCCL meanwhile, whose kernel keeps its
SMs until the peer takes part. Rank 0 has NCCL running and its DeepEP kernel waits for SMs; on rank
1 it is the other way round: each waits for the other. With few CTAs for NCCL both fit.

The next release is one row, if it differs.

Read from vLLM's published sources: `vllm/distributed/eplb/eplb_utils.py` (the rule),
`vllm/config/parallel.py` (defaults, communicator, environment variables) and
`vllm/utils/argparse_utils.py` (grammar). Pull requests: 32860 (the rule), 33176 (communicator),
36276 (NIXL), 43110 (communicator when not named), 43219 (async by default), 43339 (mega MoE),
44978 (async over NCCL is refused). Where another file is the source, the field names it.
"""

from __future__ import annotations

from eplb_launch.model import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal

    from eplb_launch.vllm.settings import Setting

    Settings = Mapping[str, Setting]
    Choices = tuple[tuple[Literal["elastic_ep", "nixl", "async", "always"], str], ...]

VARIABLE = "NCCL_MAX_CTAS"
# vLLM's value (override_envs_for_eplb): enough for the weight exchange, few enough for DeepEP.
CAP = 8
MAX_CHANNELS = 64  # NCCL's MAXCHANNELS (src/include/device.h): no cap is higher


class Rule(Record):
    """One reason to limit NCCL: it holds where all of its conditions do."""

    name: str
    hazard: str  # what the info line says
    conditions: tuple[str, ...]  # names in CONDITIONS
    source: str


class Condition(Record):
    """One condition of a rule, as it stands."""

    text: str
    holds: bool | None  # None: unknown
    setting: str  # the name of the setting that decides it


class RuleResult(Record):
    """A rule and its conditions."""

    rule: Rule
    conditions: tuple[Condition, ...]

    @property
    def holds(self) -> bool | None:
        """True if all conditions hold, False if one does not, else None: unknown."""
        if any(condition.holds is False for condition in self.conditions):
            return False
        return True if all(condition.holds for condition in self.conditions) else None


def _uses_nccl(communicator: object) -> bool:
    return communicator in ("torch_nccl", "pynccl")


# By name: what it says, the setting that decides, and for which values of that it holds.
CONDITIONS: Mapping[str, tuple[str, str, Callable[[Any], bool]]] = {
    "data_parallel": ("data_parallel_size > 1", "data_parallel_size", lambda size: size > 1),
    "eplb": ("enable_eplb", "enable_eplb", bool),
    "async_eplb": ("eplb_config.use_async", "use_async", bool),
    "deepep_low_latency": (
        'all2all_backend == "deepep_low_latency"',
        "all2all_backend",
        lambda backend: backend == "deepep_low_latency",
    ),
    "mega_moe": (
        'moe_backend == "deep_gemm_mega_moe"',
        "moe_backend",
        lambda backend: backend == "deep_gemm_mega_moe",
    ),
    "nccl": ("eplb_config.communicator uses NCCL", "communicator", _uses_nccl),
    # Where the release is not known.
    "no_other": ("no eplb_config.communicator other than NCCL", "communicator", _uses_nccl),
    "nccl_of_mega_moe": ("eplb_config.communicator uses NCCL", "communicator", _uses_nccl),
}


def _elastic_without_nixl(settings: Settings) -> bool | None:
    """Whether mega MoE picks NCCL by itself: only for elastic EP, with NIXL in some releases."""
    elastic, nixl = settings["enable_elastic_ep"], settings["nixl"]
    if elastic.known and elastic.value:
        return True if nixl.known and not nixl.value else None
    return False if elastic.known else None


# Conditions that hold for other reasons where nobody gave the setting.
_NOT_GIVEN: Mapping[str, Callable[[Settings], bool | None]] = {
    "no_other": lambda _settings: True,
    "nccl_of_mega_moe": _elastic_without_nixl,
}


def _condition(name: str, settings: Settings) -> Condition:
    text, decides, test = CONDITIONS[name]
    setting = settings[decides]
    if name in _NOT_GIVEN and not setting.given:
        return Condition(text, _NOT_GIVEN[name](settings), decides)
    values = (setting.value,) if setting.known else setting.value or ()
    possible = {test(value) for value in values}
    return Condition(text, possible.pop() if len(possible) == 1 else None, decides)


def judge(release: Release, settings: Settings) -> tuple[RuleResult, ...]:
    """Return the rules of a release with each condition true, false or unknown."""
    return tuple(
        RuleResult(rule, tuple(_condition(name, settings) for name in rule.conditions))
        for rule in release.rules
    )


def _low_latency(*more: str) -> Rule:
    return Rule(
        "deepep_low_latency",
        "async EPLB with DeepEP low-latency",
        ("data_parallel", "eplb", "async_eplb", "deepep_low_latency", *more),
        "vLLM PR 32860; DeepEP issue 496",
    )


def _mega_moe(communicator: str) -> Rule:
    return Rule(
        "deep_gemm_mega_moe",
        "EPLB over NCCL with DeepGEMM mega MoE",
        ("data_parallel", "eplb", "mega_moe", communicator),
        "vLLM PR 43339",
    )


class Release(Record):
    """What a vLLM release does; the defaults are those of the oldest one."""

    since: int  # 0.N, the first that does all this
    minor: int | None = None  # N of the release itself, 0.N; None: not known
    rules: tuple[Rule, ...] = ()  # the hang is possible where one of them holds
    own_rule: bool | None = False  # its workers apply the rules themselves; None: not known
    use_async: bool | None = False  # default of EPLBConfig.use_async; None: not known
    # The communicator when none is named: the first whose condition holds.
    communicator: Choices = (("always", "torch_nccl"),)
    communicator_option: bool = False  # EPLBConfig.communicator exists
    # VLLM_ALL2ALL_BACKEND: counts where the option is absent, beats it, or is not read.
    all2all_variable: Literal["default", "override", ""] = "default"
    removed_backends: tuple[str, ...] = ()  # read as allgather_reducescatter
    synchronous_backends: tuple[str, ...] = ()  # async EPLB is turned off (PR 35212)
    nested_config: bool = False  # a map in the --config file becomes JSON
    human_readable: bool = False  # "1k" is a number in JSON and dotted options
    empty_model: bool = True  # `--model=` counts as a model
    dotted_o: bool = True  # `-O.key value` is dotted, as -cc.key
    ray_carries: bool | None = False  # Ray workers get NCCL's variables (vllm/ray/ray_env.py)
    # Whether the Ray executor is that in which the value of a node wins: by VLLM_USE_RAY_V2_..,
    # by it or if it is not set, always (vllm/v1/executor/abstract.py).
    ray_v2: Literal["", "variable", "default", "always"] = ""
    # The NCCL of its torch (2.9, 2.11, 2.12), and of its image where that pins another.
    nccl: tuple[tuple[int, int, int], ...] = ((2, 27, 5),)
    # ENTRYPOINT of its images (docker/Dockerfile, target vllm-openai; docker/Dockerfile.rocm).
    image: tuple[str, ...] = ("vllm", "serve")
    image_for_rocm: tuple[str, ...] = ()


# What each release 0.N does otherwise than the row before it.
CHANGES: Mapping[int, Mapping[str, Any]] = {
    # `vllm serve` is the entry point of an image from 0.11.1.
    0: {"image": ("python3", "-m", "vllm.entrypoints.openai.api_server")},
    # The first with async EPLB.
    12: {"rules": (_low_latency(),), "image": ("vllm", "serve")},
    14: {
        "all2all_variable": "override",
        "dotted_o": False,
        "image_for_rocm": ("vllm", "serve"),
    },
    16: {"all2all_variable": "", "nested_config": True},
    17: {
        "own_rule": True,
        "empty_model": False,
        "ray_carries": True,
        "removed_backends": ("pplx",),
        "synchronous_backends": ("allgather_reducescatter", "naive"),
    },
    19: {
        "removed_backends": ("pplx", "naive"),
        "synchronous_backends": ("allgather_reducescatter",),
    },
    20: {
        "synchronous_backends": (),
        "rules": (_low_latency("nccl"),),
        "communicator": (
            ("elastic_ep", "pynccl"),
            ("async", "torch_gloo"),
            ("always", "torch_nccl"),
        ),
        "communicator_option": True,
        "human_readable": True,
        "ray_v2": "variable",
        "nccl": ((2, 28, 9),),
    },
    21: {"ray_v2": "default"},
    22: {"communicator": (("elastic_ep", "pynccl"), ("nixl", "nixl"), ("always", "torch_gloo"))},
    23: {"rules": (_low_latency("nccl"), _mega_moe("nccl")), "use_async": True},
    24: {
        "rules": (_mega_moe("nccl"),),
        "communicator": (("nixl", "nixl"), ("elastic_ep", "pynccl"), ("always", "torch_gloo")),
    },
    27: {"nccl": ((2, 29, 7),)},
    33: {"ray_v2": "always", "nccl": ((2, 29, 7), (2, 31, 2))},
}
_NEWER = 1_000_000  # than all that are known


def _row(minor: int) -> Release:
    fields: dict[str, Any] = {}
    for since, changes in CHANGES.items():
        if since <= minor:
            fields.update(changes, since=since)
    return Release(**fields, minor=minor)


# Release not known: whatever any release would limit.
UNKNOWN_RELEASE = _row(_NEWER).replace(
    since=-1,
    minor=None,
    rules=(_low_latency("no_other"), _mega_moe("nccl_of_mega_moe")),
    own_rule=None,
    use_async=None,
    communicator=(),
    all2all_variable="default",
    ray_carries=None,
    ray_v2="",
    nccl=(),
)


def stays(value: str | None) -> bool:
    """Whether vLLM's rule keeps a value of VARIABLE: not empty, and `str.isdigit()`."""
    return bool(value) and str(value).isdigit()


def minor_release(version: str) -> int | None:
    """Return N of a version 0.N..., or None where the version does not say which release it is.

    A build from a checkout without tags calls itself 0.1.devN, which says nothing.
    """
    major, _, rest = version.strip().lstrip("v").partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not (major.isascii() and major.isdigit() and digits):
        return None
    if int(major) > 0:
        return _NEWER
    return int(digits) if int(digits) > 1 or "dev" not in rest else None


def release_of(version: str | None) -> Release:
    """Return the row of a version; a newer release than known gets the newest row."""
    minor = minor_release(version) if version else None
    return UNKNOWN_RELEASE if minor is None else _row(minor)
