"""The rules by which EPLB can hang, and what differs between vLLM releases: one table.

Why it hangs. DeepEP launches its low-latency kernels cooperatively: a kernel starts only when all
of its blocks fit on the GPU at once, and its grid needs most of the SMs. Async EPLB moves expert
weights with NCCL at the same time, from another thread. An NCCL kernel keeps its SMs until its peer
takes part, and a DeepEP kernel keeps its own until all ranks have sent their tokens. Two ranks can
start the two kernels in a different order:

    rank 0: NCCL runs and waits for rank 1; DeepEP waits for the SMs that NCCL holds
    rank 1: DeepEP runs and waits for rank 0; NCCL waits for the SMs that DeepEP holds

Each waits for the other, for ever. NCCL_MAX_CTAS=8 leaves DeepEP the SMs that it needs: both
kernels run at the same time, and the order does not matter. DeepGEMM's mega MoE kernel has a block
on every SM and waits for the other ranks too: vLLM caps NCCL for it even if EPLB is not async.
(vLLM pull requests 32860 and 43339, DeepEP issue 496.)

Sources: vLLM's `vllm/distributed/eplb/eplb_utils.py` (the rule), `vllm/config/parallel.py`
(defaults, communicator, environment variables) and `vllm/utils/argparse_utils.py` (grammar); if
another file is the source, the field names it. Pull requests: 32860 (the rule), 33176
(communicator), 36276 (NIXL), 43110 (default communicator), 43219 (async by default), 43339 (mega
MoE), 44978 (async over NCCL is refused).
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
CAP = 8  # vLLM's value (override_envs_for_eplb)
MAX_CHANNELS = 64  # the highest cap: NCCL's MAXCHANNELS (src/include/device.h)


class Rule(Record):
    """One reason to limit NCCL: the rule holds if all of its conditions hold."""

    name: str
    hazard: str  # what can hang, for people
    conditions: tuple[str, ...]  # names in _CONDITIONS
    source: str


class Condition(Record):
    """One condition of a rule, for given settings."""

    text: str
    holds: bool | None  # None: unknown
    setting: str  # the name of the setting that decides it


class RuleResult(Record):
    """A rule and its conditions, for given settings."""

    rule: Rule
    conditions: tuple[Condition, ...]

    @property
    def holds(self) -> bool | None:
        """True if all conditions hold, False if one does not, None if it is unknown."""
        if any(condition.holds is False for condition in self.conditions):
            return False
        return True if all(condition.holds for condition in self.conditions) else None


def _uses_nccl(communicator: object) -> bool:
    return communicator in ("torch_nccl", "pynccl")


def _elastic_without_nixl(settings: Settings) -> bool | None:
    """Whether mega MoE uses NCCL by default: only with elastic EP, and maybe only without NIXL."""
    elastic, nixl = settings["enable_elastic_ep"], settings["nixl"]
    if elastic.known and elastic.value:
        return True if nixl.known and not nixl.value else None
    return False if elastic.known else None


# By name: the text, the setting that decides, and the test that its value has to pass.
_CONDITIONS: Mapping[str, tuple[str, str, Callable[[Any], bool]]] = {
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
    # These two are for a release that is not known.
    "no_other": ("no eplb_config.communicator other than NCCL", "communicator", _uses_nccl),
    "nccl_of_mega_moe": ("eplb_config.communicator uses NCCL", "communicator", _uses_nccl),
}
# Whether a condition holds if its setting is not given, where the default value does not say it.
_BY_DEFAULT: Mapping[str, Callable[[Settings], bool | None]] = {
    "no_other": lambda _settings: True,
    "nccl_of_mega_moe": _elastic_without_nixl,
}


def _condition(name: str, settings: Settings) -> Condition:
    text, decides, test = _CONDITIONS[name]
    setting = settings[decides]
    if name in _BY_DEFAULT and not setting.given:
        return Condition(text, _BY_DEFAULT[name](settings), decides)
    values = (setting.value,) if setting.known else setting.value or ()
    results = {test(value) for value in values}
    return Condition(text, results.pop() if len(results) == 1 else None, decides)


def evaluate(release: Release, settings: Settings) -> tuple[RuleResult, ...]:
    """Return the result of each rule of a release."""
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
    """What a vLLM release does. The defaults are what the oldest known release does."""

    since: int  # 0.N: the first release that does all this
    minor: int | None = None  # N of this release, 0.N; None: not known
    rules: tuple[Rule, ...] = ()  # the server can hang if one of them holds
    own_rule: bool | None = False  # its workers set NCCL_MAX_CTAS themselves; None: not known
    use_async: bool | None = False  # default of EPLBConfig.use_async; None: not known
    # The default communicator: the first one whose condition holds.
    communicator: Choices = (("always", "torch_nccl"),)
    communicator_option: bool = False  # EPLBConfig.communicator exists
    # What VLLM_ALL2ALL_BACKEND does: it is the default of the option, overrides it, or nothing.
    all2all_variable: Literal["default", "override", ""] = "default"
    removed_backends: tuple[str, ...] = ()  # read as allgather_reducescatter
    synchronous_backends: tuple[str, ...] = ()  # they turn async EPLB off (PR 35212)
    nested_config: bool = False  # a map in the --config file becomes JSON
    human_readable: bool = False  # "1k" is a number in JSON and in dotted options
    empty_model: bool = True  # `--model=` gives a model
    dotted_o: bool = True  # `-O.key value` is a dotted option
    ray_carries: bool | None = False  # Ray workers get NCCL's variables (vllm/ray/ray_env.py)
    # When the Ray executor is RayExecutorV2, in which the variables of a node win: never, if
    # VLLM_USE_RAY_V2_EXECUTOR_BACKEND is set, unless it is 0, always (vllm/v1/executor/abstract.py)
    ray_v2: Literal["", "variable", "default", "always"] = ""
    # The NCCL of its torch (2.9, 2.11, 2.12), and the NCCL of its image if that is another one.
    nccl: tuple[tuple[int, int, int], ...] = ((2, 27, 5),)
    # ENTRYPOINT of its images (docker/Dockerfile, target vllm-openai; docker/Dockerfile.rocm).
    image: tuple[str, ...] = ("vllm", "serve")
    image_for_rocm: tuple[str, ...] = ()


# What release 0.N does differently from the row before it. A new release needs a row if it differs.
CHANGES: Mapping[int, Mapping[str, Any]] = {
    # The image's entry point is `vllm serve` from 0.11.1.
    0: {"image": ("python3", "-m", "vllm.entrypoints.openai.api_server")},
    # The first release with async EPLB.
    12: {"rules": (_low_latency(),), "image": ("vllm", "serve")},
    14: {"all2all_variable": "override", "dotted_o": False, "image_for_rocm": ("vllm", "serve")},
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
_NEWEST = 1_000_000  # above every known release


def _row(minor: int) -> Release:
    fields: dict[str, Any] = {}
    for since, changes in CHANGES.items():
        if since <= minor:
            fields.update(changes, since=since)
    return Release(**fields, minor=minor)


# For a release that is not known: a rule holds if it would hold in any release.
UNKNOWN_RELEASE = _row(_NEWEST).replace(
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
    """Whether vLLM's rule keeps this value of NCCL_MAX_CTAS: `value and value.isdigit()`."""
    return bool(value) and str(value).isdigit()


def minor_release(version: str) -> int | None:
    """Return N of a version 0.N..., or None if the version names no release.

    A build from a checkout without tags is called 0.1.devN, which names none.
    """
    major, _, rest = version.strip().lstrip("v").partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not (major.isascii() and major.isdigit() and digits):
        return None
    if int(major) > 0:
        return _NEWEST
    return int(digits) if int(digits) > 1 or "dev" not in rest else None


def release_of(version: str | None) -> Release:
    """Return the row of a version. A release newer than the table gets the newest row."""
    minor = minor_release(version) if version else None
    return UNKNOWN_RELEASE if minor is None else _row(minor)
