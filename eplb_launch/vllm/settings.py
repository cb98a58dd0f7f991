"""What vLLM would arrive at: the settings that decide, from the arguments and the environment.

Source: `vllm/engine/arg_utils.py` (create_engine_config) and `vllm/config/parallel.py`
(EPLBConfig, ParallelConfig.__post_init__), vLLM 0.12 to 0.33.
"""

from __future__ import annotations

from eplb_launch.model import UNKNOWN, Record, cut
from eplb_launch.vllm.arguments import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from eplb_launch.vllm.arguments import Given, Reading
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
    given = reading.given
    known = reading.complete
    eplb, kernel = given.get("eplb_config"), given.get("kernel_config")
    of_eplb = _keys(eplb, "--eplb-config", release)
    of_kernel = _keys(kernel, "--kernel-config", release)
    found = {
        "data_parallel_size": _data_parallel_size(given, environ, complete=known),
        "enable_eplb": _plain("enable_eplb", given),
        "use_async": _use_async(_key("use_async", of_eplb, eplb)),
        "all2all_backend": _all2all_backend(given, release, environ),
        "communicator": _communicator(_key("communicator", of_eplb, eplb), release),
        "moe_backend": _moe_backend(
            _plain("moe_backend", given), _key("moe_backend", of_kernel, kernel)
        ),
        "enable_elastic_ep": _plain("enable_elastic_ep", given),
    }
    defaults = {
        "data_parallel_size": 1,
        "enable_eplb": False,
        "use_async": release.use_async,
        "all2all_backend": DEFAULT_BACKEND,
        "moe_backend": "auto",
        "enable_elastic_ep": False,
    }
    settings = {
        name: setting or _setting(name, defaults.get(name) if known else None, default, given=False)
        for name, setting in found.items()
    }
    backend = settings["all2all_backend"]
    if backend.known and backend.value in release.synchronous_backends:
        settings["use_async"] = backend.replace(name="use_async", value=False)
    if backend.known and backend.value in release.removed_backends:
        settings["all2all_backend"] = backend.replace(value=DEFAULT_BACKEND)
    if found["communicator"] is None:
        settings["communicator"] = _default_communicator(release, settings, nixl, default)
    settings["nixl"] = nixl
    return settings


def _setting(name: str, value: Any, source: str, *, given: bool = True) -> Setting:
    """Return a setting with this value, or one that is not known for UNKNOWN and None."""
    known = value is not None and _known(value)
    return Setting(name, value if known else None, source, given, known)


def _plain(name: str, given: Mapping[str, Given]) -> Setting | None:
    entry = given.get(name)
    return _setting(name, entry.value, entry.source) if entry else None


def _known(value: object) -> bool:
    return not (isinstance(value, str) and UNKNOWN in value)


def _integer(value: Any, name: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise RefusedError(f"{name} is not an integer") from None


def _data_parallel_size(
    given: Mapping[str, Given], environ: Mapping[str, str], *, complete: bool
) -> Setting | None:
    name = "data_parallel_size"
    setting, local = _plain(name, given), given.get("data_parallel_size_local")
    if setting and setting.known:
        setting = setting.replace(value=_integer(setting.value, "--data-parallel-size"))
    # Without data parallel arguments the variables count (ParallelConfig.__post_init__).
    if setting and (not setting.known or setting.value > 1):
        return setting
    if local and _known(local.value) and _integer(local.value, "--data-parallel-size-local") == 0:
        return setting
    if "VLLM_DP_SIZE" not in environ:
        return setting and setting.replace(value=1)  # the variable's default: 0 and -1 end here
    if not setting and not complete:
        return None
    variable = environ["VLLM_DP_SIZE"]
    if not _known(variable) or (local and not _known(local.value)):
        return Setting(name, None, "VLLM_DP_SIZE", known=False)
    return Setting(name, _integer(variable, "VLLM_DP_SIZE"), "VLLM_DP_SIZE")


def _all2all_backend(
    given: Mapping[str, Given], release: Release, environ: Mapping[str, str]
) -> Setting | None:
    name, variable = "all2all_backend", "VLLM_ALL2ALL_BACKEND"
    setting = _plain(name, given)
    if setting and setting.value in ("", "None"):
        setting = None  # up to 0.13 the option may be None; later both are refused
    use = release.all2all_variable
    if variable in environ and (use == "override" or (use == "default" and not setting)):
        return _setting(name, environ[variable], variable)
    return setting


def _keys(entry: Given | None, option: str, release: Release) -> Mapping[str, Any] | None:
    """Return the keys of a JSON option; None where the whole of it cannot be known."""
    if entry is None:
        return {}
    value = entry.value
    if isinstance(value, str):
        from eplb_launch.vllm.values import parse_json

        try:
            value = parse_json(value, human_readable=release.human_readable)
        except ValueError:
            raise RefusedError(f"{option} is not valid JSON") from None
        except RecursionError:
            raise RefusedError(f"{option} is nested too deeply") from None
    if value == UNKNOWN:
        return None
    if not isinstance(value, dict):
        raise RefusedError(f"{option} is not a JSON object")
    return value


def _key(name: str, keys: Mapping[str, Any] | None, entry: Given | None) -> Setting | None:
    """Return what a JSON option says of a key, of which `keys` are all; None if it has none."""
    if entry is None or (keys is not None and name not in keys):
        return None
    known = keys is not None and _known(keys[name])
    value = keys[name] if keys is not None and known else None
    return Setting(name, value, entry.source_of(name), known=known)


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


def _communicator(setting: Setting | None, release: Release) -> Setting | None:
    if setting is None or not release.communicator_option:
        return None
    if setting.known and setting.value is None:
        return None
    if setting.known and not isinstance(setting.value, str):
        raise RefusedError("--eplb-config: communicator is not a string")
    return setting


def _default_communicator(
    release: Release, settings: Mapping[str, Setting], nixl: Setting, default: str
) -> Setting:
    """Return what vLLM picks where no communicator is named; not known if what decides is not."""
    deciding = {
        "elastic_ep": settings["enable_elastic_ep"],
        "nixl": nixl,
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
    found = setting and _backend(setting)
    if found and (not found.known or found.value != "auto"):
        return found
    return _backend(of_kernel) if of_kernel else found


def _backend(setting: Setting) -> Setting:
    text = setting.value
    named = isinstance(text, str)
    return setting.replace(value=text.lower().replace("-", "_")) if named else setting
