"""What vLLM would arrive at: the settings that decide, from the arguments and the environment.

Source: `vllm/engine/arg_utils.py` (create_engine_config) and `vllm/config/parallel.py`
(EPLBConfig, ParallelConfig.__post_init__), vLLM 0.12 to 0.33.
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

# Booleans as pydantic takes them from JSON (lax mode), besides true, false, 1, 0, 1.0 and 0.0.
_TRUE = frozenset(("1", "on", "t", "true", "y", "yes"))
_FALSE = frozenset(("0", "off", "f", "false", "n", "no"))

DEFAULT_BACKEND = "allgather_reducescatter"


class Setting(Record):
    """A setting that vLLM arrives at."""

    name: str
    value: Any  # where it is not known: a tuple of what it can be, or None
    source: str  # "argument 7: -dp 8", "serve.yaml: enable-eplb", "VLLM_DP_SIZE", "default of ..."
    given: bool = True  # by the command or the environment; False: a default
    known: bool = True

    @property
    def shown(self) -> str:
        """The value as a person reads it: "8", "unknown", "nixl or torch_gloo"."""
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
    """Return the settings by name, in the order in which a person reads them.

    `default` is the source of the settings that nobody gave. Raises RefusedError where vLLM would
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
    of_eplb = _keys(reading, release, "eplb_config", "use_async", "communicator")
    of_kernel = _keys(reading, release, "kernel_config", "moe_backend")
    given = {**reading.given, **of_eplb}
    found = {name: _setting(name, given.get(name)) for name in defaults}
    found["data_parallel_size"] = _data_parallel_size(
        found["data_parallel_size"], given, environ, complete=reading.complete
    )
    found["use_async"] = _use_async(found["use_async"])
    found["all2all_backend"] = _all2all_backend(found["all2all_backend"], release, environ)
    found["communicator"] = _communicator(found["communicator"], release)
    found["moe_backend"] = _moe_backend(
        found["moe_backend"], _setting("moe_backend", of_kernel.get("moe_backend"))
    )
    settings = {}
    for name, value in defaults.items():
        known = reading.complete and value is not None
        by_default = Setting(name, value if known else None, default, given=False, known=known)
        settings[name] = found[name] or by_default
    backend = settings["all2all_backend"]
    if backend.known and backend.value in release.synchronous_backends:
        settings["use_async"] = backend.replace(name="use_async", value=False)
    if backend.known and backend.value in release.removed_backends:
        settings["all2all_backend"] = backend.replace(value=DEFAULT_BACKEND)
    settings["nixl"] = nixl
    if found["communicator"] is None:
        settings["communicator"] = _default_communicator(release, settings, default)
    return settings


def _keys(reading: Reading, release: Release, name: str, *keys: str) -> dict[str, Given]:
    """Return the keys that a JSON option gives; all, not known, where it cannot be known."""
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
    return {key: Given(value[key], entry.source_of(key)) for key in keys if key in value}


def _setting(name: str, entry: Given | None) -> Setting | None:
    if entry is None:
        return None
    known = _known(entry.value)
    return Setting(name, entry.value if known else None, entry.source, known=known)


def _known(value: object) -> bool:
    return not (isinstance(value, str) and UNKNOWN in value)


def _integer(value: Any, name: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise RefusedError(f"{name} is not an integer") from None


def _data_parallel_size(
    setting: Setting | None,
    given: Mapping[str, Given],
    environ: Mapping[str, str],
    *,
    complete: bool,
) -> Setting | None:
    """Return the size by the arguments, else by VLLM_DP_SIZE (ParallelConfig.__post_init__)."""
    if setting and setting.known:
        setting = setting.replace(value=_integer(setting.value, "--data-parallel-size"))
    if setting and (not setting.known or setting.value > 1):
        return setting
    local = given.get("data_parallel_size_local")
    if local and _known(local.value) and _integer(local.value, "--data-parallel-size-local") == 0:
        return setting
    if "VLLM_DP_SIZE" not in environ:
        return setting and setting.replace(value=1)  # the variable's default: 0 and -1 end here
    if not setting and not complete:
        return None
    variable = environ["VLLM_DP_SIZE"]
    if not _known(variable) or (local and not _known(local.value)):
        return Setting("data_parallel_size", None, "VLLM_DP_SIZE", known=False)
    return Setting("data_parallel_size", _integer(variable, "VLLM_DP_SIZE"), "VLLM_DP_SIZE")


def _use_async(setting: Setting | None) -> Setting | None:
    if setting is None or not setting.known:
        return setting
    value = setting.value
    if isinstance(value, str):
        text = value.lower()
        value = True if text in _TRUE else False if text in _FALSE else None
    if value not in (True, False):
        raise RefusedError("--eplb-config: use_async is not a boolean")
    return setting.replace(value=bool(value))


def _all2all_backend(
    setting: Setting | None, release: Release, environ: Mapping[str, str]
) -> Setting | None:
    if setting and setting.value in ("", "None"):
        setting = None  # up to 0.13 the option may be None; later both are refused
    text = environ.get("VLLM_ALL2ALL_BACKEND")
    use = release.all2all_variable
    if text is not None and (use == "override" or (use == "default" and not setting)):
        return _setting("all2all_backend", Given(text, "VLLM_ALL2ALL_BACKEND"))
    return setting


def _communicator(setting: Setting | None, release: Release) -> Setting | None:
    if setting is None or not release.communicator_option:
        return None
    if setting.known and setting.value is None:
        return None
    if setting.known and not isinstance(setting.value, str):
        raise RefusedError("--eplb-config: communicator is not a string")
    return setting


def _default_communicator(
    release: Release, settings: Mapping[str, Setting], default: str
) -> Setting:
    """Return what vLLM picks where no communicator is named; not known if what decides is not."""
    deciding = {
        "elastic_ep": settings["enable_elastic_ep"],
        "nixl": settings["nixl"],
        "async": settings["use_async"],
        "always": Setting("always", value=True, source=default),
    }
    possible: list[str] = []
    for condition, communicator in release.communicator:
        setting = deciding[condition]
        if not setting.known or setting.value:
            possible.append(communicator)
        if setting.known and setting.value:
            break
    if len(possible) == 1:
        return Setting("communicator", possible[0], default, given=False)
    return Setting("communicator", tuple(possible) or None, default, given=False, known=False)


def _moe_backend(setting: Setting | None, of_kernel: Setting | None) -> Setting | None:
    """Return the one of --moe-backend, which wins over --kernel-config unless it says "auto"."""
    if of_kernel and (not setting or (setting.known and _plain(setting.value) == "auto")):
        setting = of_kernel
    return setting and setting.replace(value=_plain(setting.value))


def _plain(backend: Any) -> Any:
    return backend.lower().replace("-", "_") if isinstance(backend, str) else backend
