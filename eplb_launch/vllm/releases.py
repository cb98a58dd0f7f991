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
    from typing import Literal

    from eplb_launch.vllm.settings import Setting

    Settings = Mapping[str, Setting]
    Choices = tuple[tuple[Literal["elastic_ep", "nixl", "async", "always"], str], ...]

VARIABLE = "NCCL_MAX_CTAS"
# vLLM's value (override_envs_for_eplb): enough for the weight exchange, few enough for DeepEP.
CAP = 8
MAX_CHANNELS = 64  # NCCL's MAXCHANNELS (src/include/device.h): no cap is higher

# EPLB communicators that move expert weights with NCCL.
NCCL_COMMUNICATORS = frozenset(("torch_nccl", "pynccl"))


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


_LOW_LATENCY = Rule(
    name="deepep_low_latency",
    hazard="async EPLB with DeepEP low-latency",
    conditions=("data_parallel", "eplb", "async_eplb", "deepep_low_latency"),
    source="vLLM PR 32860; DeepEP issue 496",
)
_MEGA_MOE = Rule(
    name="deep_gemm_mega_moe",
    hazard="EPLB over NCCL with DeepGEMM mega MoE",
    conditions=("data_parallel", "eplb", "mega_moe", "nccl_communicator"),
    source="vLLM PR 43339",
)


def _with(rule: Rule, condition: str) -> Rule:
    return rule.replace(conditions=(*rule.conditions, condition))


_LOW_LATENCY_OVER_NCCL = _with(_LOW_LATENCY, "nccl_communicator")


class Release(Record):
    """What a vLLM release does, and those after it up to the next row."""

    since: int  # 0.N
    rules: tuple[Rule, ...]  # the hang is possible where one of them holds
    own_rule: bool | None  # vLLM's workers apply the rules themselves; None: not known
    use_async: bool | None  # default of EPLBConfig.use_async; None: not known
    # The communicator when none is named: the first whose condition holds.
    communicator: Choices
    communicator_option: bool = True  # EPLBConfig.communicator exists
    # VLLM_ALL2ALL_BACKEND: counts where the option is absent, beats it, or is not read.
    all2all_variable: Literal["default", "override", ""] = ""
    removed_backends: frozenset[str] = frozenset()  # read as allgather_reducescatter
    synchronous_backends: frozenset[str] = frozenset()  # async EPLB is turned off (PR 35212)
    nested_config: bool = True  # a map in the --config file becomes JSON
    human_readable: bool = True  # "1k" is a number in JSON and dotted options
    empty_model: bool = False  # `--model=` counts as a model
    dotted_o: bool = False  # `-O.key value` is dotted, as -cc.key
    ray_carries: bool | None = True  # Ray workers get NCCL's variables (vllm/ray/ray_env.py)
    # Whether the Ray executor is that in which the value of a node wins: by VLLM_USE_RAY_V2_..,
    # by it or if it is not set, always (vllm/v1/executor/abstract.py).
    ray_v2: Literal["", "variable", "default", "always"] = ""
    # The NCCL of its torch (2.9, 2.11, 2.12), and of its image where that pins another.
    nccl: tuple[tuple[int, int, int], ...] = ((2, 27, 5),)
    # ENTRYPOINT of its images (docker/Dockerfile, target vllm-openai; docker/Dockerfile.rocm).
    image: tuple[str, ...] = ("vllm", "serve")
    image_for_rocm: tuple[str, ...] = ("vllm", "serve")
    minor: int | None = None  # N of the release itself, 0.N; None: not known

    def has(self, since: int) -> bool:
        """Whether it has what came with 0.`since`; one that is not known has all."""
        return self.minor is None or self.minor >= since


_NCCL: Choices = (("always", "torch_nccl"),)
_ELASTIC_THEN_NIXL: Choices = (("elastic_ep", "pynccl"), ("nixl", "nixl"), ("always", "torch_gloo"))
_NIXL_THEN_ELASTIC: Choices = (("nixl", "nixl"), ("elastic_ep", "pynccl"), ("always", "torch_gloo"))
_BY_ASYNC: Choices = (("elastic_ep", "pynccl"), ("async", "torch_gloo"), ("always", "torch_nccl"))

_V12 = Release(
    since=12,
    rules=(_LOW_LATENCY,),
    own_rule=False,
    use_async=False,
    communicator=_NCCL,
    communicator_option=False,
    all2all_variable="default",
    nested_config=False,
    human_readable=False,
    empty_model=True,
    dotted_o=True,
    ray_carries=False,
    image_for_rocm=(),
)
_V14 = _V12.replace(
    since=14, all2all_variable="override", dotted_o=False, image_for_rocm=("vllm", "serve")
)
_V16 = _V14.replace(since=16, all2all_variable="", nested_config=True)
_V17 = _V16.replace(
    since=17,
    own_rule=True,
    empty_model=False,
    ray_carries=True,
    removed_backends=frozenset(("pplx",)),
    synchronous_backends=frozenset(("allgather_reducescatter", "naive")),
)
_V19 = _V17.replace(
    since=19,
    removed_backends=frozenset(("pplx", "naive")),
    synchronous_backends=frozenset(("allgather_reducescatter",)),
)
_V20 = _V19.replace(
    since=20,
    synchronous_backends=frozenset(),
    rules=(_LOW_LATENCY_OVER_NCCL,),
    communicator=_BY_ASYNC,
    communicator_option=True,
    human_readable=True,
    ray_v2="variable",
    nccl=((2, 28, 9),),
)
_V21 = _V20.replace(since=21, ray_v2="default")
_V22 = _V21.replace(since=22, communicator=_ELASTIC_THEN_NIXL)
_V23 = _V22.replace(since=23, rules=(_LOW_LATENCY_OVER_NCCL, _MEGA_MOE), use_async=True)
_V24 = _V23.replace(since=24, rules=(_MEGA_MOE,), communicator=_NIXL_THEN_ELASTIC)
_V27 = _V24.replace(since=27, nccl=((2, 29, 7),))
_V33 = _V27.replace(since=33, ray_v2="always", nccl=((2, 29, 7), (2, 31, 2)))

RELEASES: tuple[Release, ...] = (
    # No async EPLB before 0.12. `vllm serve` is the entry point of an image from 0.11.1.
    _V12.replace(since=0, rules=(), image=("python3", "-m", "vllm.entrypoints.openai.api_server")),
    *(_V12, _V14, _V16, _V17, _V19, _V20, _V21, _V22, _V23, _V24, _V27, _V33),
)

# Release not known: whatever any release would limit.
UNKNOWN_RELEASE = _V33.replace(
    since=-1,
    rules=(
        _with(_LOW_LATENCY, "no_other_communicator"),
        _MEGA_MOE.replace(
            conditions=("data_parallel", "eplb", "mega_moe", "nccl_communicator_of_mega_moe")
        ),
    ),
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
        return max(release.since for release in RELEASES) + 1_000_000  # newer than any known
    return int(digits) if int(digits) > 1 or "dev" not in rest else None


def release_of(version: str | None) -> Release:
    """Return the row of a version; a newer release than known gets the newest row."""
    minor = minor_release(version) if version else None
    if minor is None:
        return UNKNOWN_RELEASE
    row = max((r for r in RELEASES if r.since <= minor), key=lambda release: release.since)
    return row.replace(minor=minor)


def judge(release: Release, settings: Settings) -> tuple[RuleResult, ...]:
    """Return the rules of a release with each condition true, false or unknown."""
    return tuple(
        RuleResult(
            rule,
            tuple(
                Condition(text, holds(settings), setting)
                for text, setting, holds in (CONDITIONS[name] for name in rule.conditions)
            ),
        )
        for rule in release.rules
    )
