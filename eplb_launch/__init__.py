"""Start vLLM with the NCCL limit that keeps expert-parallel load balancing from hanging.

- `plan(command, environ)` decides and returns a frozen `Plan`; `Plan.environment` is what to set.
- `run(command)` decides and becomes the command. `become(command, environment)` only becomes it.
- `override_envs_for_eplb(parallel_config)` replaces vLLM's function of that name.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eplb_launch._version import __version__
    from eplb_launch.launch import become, run
    from eplb_launch.model import PlanWarning
    from eplb_launch.override import override_envs_for_eplb
    from eplb_launch.plans import Plan, plan

__all__ = [
    "Plan",
    "PlanWarning",
    "__version__",
    "become",
    "override_envs_for_eplb",
    "plan",
    "run",
]
# The modules of these names, unless they are in `plans`.
_MODULES = {
    "PlanWarning": "model",
    "__version__": "_version",
    "become": "launch",
    "override_envs_for_eplb": "override",
    "run": "launch",
}


def __getattr__(name: str) -> object:
    """Import a public name on its first use: a plain launch must not import all of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'plans')}")
    globals()[name] = value = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return [*__all__]
