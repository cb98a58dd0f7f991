"""The settings that vLLM makes of the arguments and the environment.

Sources: `vllm/engine/arg_utils.py` (create_engine_config) and `vllm/config/parallel.py`
(EPLBConfig, ParallelConfig.__post_init__) of vLLM 0.12 to 0.33.
"""

from __future__ import annotations

from eplb_launch.model import UNKNOWN, Record, cut
from eplb_launch.vllm.arguments import Given, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from eplb_launch.vllm.arguments import Reading
    from eplb_launch.vllm.releases import Release

# Strings that pydantic takes as booleans (lax mode).
_TRUE = frozenset(("1", "on", "t", "true", "y", "yes"))
_FALSE = frozenset(("0", "off", "f", "false", "n", "no"))

DEFAULT_BACKEND = "allgather_reducescatter"


class Setting(Record):
    """One setting of vLLM."""

    name: str
    value: Any  # if it is not known: a tuple of the possible values, or None
    source: str  # "argument 7: -dp 8", "serve.yaml: enable-eplb", "VLLM_DP_SIZE", "default of ..."
    given: bool = True  # by the command or the environment; False: it is a default
    known: bool = True

    @property
    def shown(self) -> str:
        """The value, for people: "8", "unknown", "nixl or torch_gloo"."""
        if self.known:
            return cut(str(self.value))
        return " or ".join(map(str, self.value)) if self.value else "unknown"


def resolve(
    reading: Reading,
    release: Release,
    environ: Mapping[str, str],
    *,
    nixl: Setting,
    default: str,
) -> dict[str, Setting]:
    """Return the settings by name, in the order in which they are shown.

    `default` is the source of the settings that are not given. Raises RefusedError if vLLM would
    refuse a value.
    """
    defaults = {
        "data_parallel_size": 1,
        "enable_eplb": False,
        "use_async": release.use_async,
        "all2all_backend": DEFAULT_BACKEND,
        "communicator": None,
        "moe_backend": "auto",
        "enable_elastic_ep": False,
    }
    given = _effective(reading, release, environ)
    settings = {}
    for name, by_default in defaults.items():
        entry = given.get(name) or Given(by_default, default)
        known = _known(entry.value)
        if name not in given:
            known = reading.complete and by_default is not None
        value = entry.value if known else None
        settings[name] = Setting(name, value, entry.source, name in given, known)
    backend = settings["all2all_backend"]
    if backend.known and backend.value in release.synchronous_backends:
        settings["use_async"] = backend.replace(name="use_async", value=False)
    if backend.known and backend.value in release.removed_backends:
        settings["all2all_backend"] = backend.replace(value=DEFAULT_BACKEND)
    settings["nixl"] = nixl
    if "communicator" not in given:
        settings["communicator"] = _default_communicator(release, settings, default)
    return settings


def _effective(reading: Reading, release: Release, environ: Mapping[str, str]) -> dict[str, Given]:
    """Return what is given for each setting: by an option, a JSON key or a variable."""
    of_eplb = _keys(reading, release, "eplb_config", "use_async", "communicator")
    given = {**reading.given, **of_eplb}
    found: dict[str, Given | None] = {**given}
    found["data_parallel_size"] = _data_parallel_size(given, environ, complete=reading.complete)
    if "use_async" in given:
        found["use_async"] = _boolean(given["use_async"], "use_async")
    backend = given.get("all2all_backend")
    if backend and backend.value in ("", "None"):
        backend = None  # up to 0.13 the option may be None; later vLLM refuses both
    text, use = environ.get("VLLM_ALL2ALL_BACKEND"), release.all2all_variable
    if text is not None and (use == "override" or (use == "default" and not backend)):
        backend = Given(text, "VLLM_ALL2ALL_BACKEND")
    found["all2all_backend"] = backend
    communicator = given.get("communicator") if release.communicator_option else None
    if communicator and not isinstance(communicator.value, (str, type(None))):
        raise RefusedError("--eplb-config: communicator is not a string")
    found["communicator"] = communicator if communicator and communicator.value else None
    # --moe-backend wins over --kernel-config, unless it is "auto".
    of_kernel = _keys(reading, release, "kernel_config", "moe_backend")
    moe = given.get("moe_backend")
    if moe is None or _normalized(moe.value) == "auto":
        moe = of_kernel.get("moe_backend", moe)
    found["moe_backend"] = moe and moe.replace(value=_normalized(moe.value))
    return {name: entry for name, entry in found.items() if entry}


def _normalized(backend: Any) -> Any:
    return backend.lower().replace("-", "_") if isinstance(backend, str) else backend


def _keys(reading: Reading, release: Release, name: str, *keys: str) -> dict[str, Given]:
    """Return what a JSON option gives for some keys. If it is not known, none of them is known."""
    entry = reading.given.get(name)
    if entry is None:
        return {}
    value = entry.value
    if isinstance(value, str):
        from eplb_launch.vllm.values import json_object

        value = json_object(value, human_readable=release.human_readable)
    if value == UNKNOWN:
        value = dict.fromkeys(keys, UNKNOWN)
    if value is None:
        raise RefusedError(f"--{name.replace('_', '-')} is not a JSON object")
    sources = entry.sources
    return {key: Given(value[key], sources.get(key, entry.source)) for key in keys if key in value}


def _known(value: object) -> bool:
    return not (isinstance(value, str) and UNKNOWN in value)


def _integer(value: Any, name: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise RefusedError(f"{name} is not an integer") from None


def _data_parallel_size(
    given: Mapping[str, Given], environ: Mapping[str, str], *, complete: bool
) -> Given | None:
    """Return the size from the arguments, else from VLLM_DP_SIZE (ParallelConfig.__post_init__)."""
    entry, local = given.get("data_parallel_size"), given.get("data_parallel_size_local")
    if entry and _known(entry.value):
        entry = entry.replace(value=_integer(entry.value, "--data-parallel-size"))
    if entry and (not _known(entry.value) or entry.value > 1):
        return entry
    if local and _known(local.value) and _integer(local.value, "--data-parallel-size-local") == 0:
        return entry
    text = environ.get("VLLM_DP_SIZE")
    if text is None:
        return entry and entry.replace(value=1)  # 1 is the variable's default, also for 0 and -1
    if not entry and not complete:
        return None
    if not _known(text) or (local and not _known(local.value)):
        return Given(UNKNOWN, "VLLM_DP_SIZE")
    return Given(_integer(text, "VLLM_DP_SIZE"), "VLLM_DP_SIZE")


def _boolean(entry: Given, name: str) -> Given:
    value = entry.value
    if not _known(value):
        return entry
    if isinstance(value, str):
        text = value.lower()
        value = True if text in _TRUE else False if text in _FALSE else None
    if value not in (True, False):
        raise RefusedError(f"--eplb-config: {name} is not a boolean")
    return entry.replace(value=bool(value))


def _default_communicator(
    release: Release, settings: Mapping[str, Setting], default: str
) -> Setting:
    """Return the communicator that vLLM picks if none is named."""
    deciding = {"elastic_ep": "enable_elastic_ep", "nixl": "nixl", "async": "use_async"}
    possible: list[str] = []
    for condition, communicator in release.communicator:
        setting = settings[deciding[condition]] if condition in deciding else None  # else "always"
        if not setting or not setting.known or setting.value:
            possible.append(communicator)
        if not setting or (setting.known and setting.value):
            break
    if len(possible) == 1:
        return Setting("communicator", possible[0], default, given=False)
    return Setting("communicator", tuple(possible) or None, default, given=False, known=False)
