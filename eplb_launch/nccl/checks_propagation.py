"""The cases in which the variable does not get to where NCCL runs: prefixes, Ray, other nodes.

As in `hazard_cases`, each function yields the fields of a row's message.
"""

from __future__ import annotations

from eplb_launch.nccl.checks_values import shown
from eplb_launch.nccl.variables import parameter
from eplb_launch.vllm.releases import VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from eplb_launch.model import Server
    from eplb_launch.nccl.checks_values import Case, Fields

_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))


def dropped(case: Case) -> Iterator[Fields]:
    """Yield programs on the way that do not hand the variable on."""
    if not case.server.prefixes or not (case.plan.variables or case.plan.current):
        return
    names = dropping(case.met)
    if names:
        from eplb_launch.command.wrappers import PREFIXES

        row = PREFIXES.get(names[0], {})
        option = row.get("option", "").format(name=VARIABLE, value=case.cap)
        yield {
            "names": " and ".join(names),
            "verb": "does" if len(names) == 1 else "do",
            "place": _place(case.server),
            "option": f", or give {names[0]} {option}" if option and len(names) == 1 else "",
        }


def overwritten(case: Case) -> Iterator[Fields]:
    """Yield a program on the way that sets it to something else."""
    if case.arrives or not case.plan.variables or not case.server.prefixes:
        return
    arrived = case.met.environ.get(VARIABLE)
    if arrived is None or dropping(case.met):
        return
    wrappers = case.server.prefixes
    names = [wrapper.name for wrapper in wrappers if wrapper.sets] or [wrappers[-1].name]
    yield {"names": names[-1], "value": shown(arrived), "place": _place(case.server)}


def dropping(server: Server) -> list[str]:
    """Return the programs that do not hand the variable on, where none behind them sets it."""
    if not server.prefixes:
        return []
    from eplb_launch.command.wrappers import LAUNCHERS

    found: list[str] = []
    for wrapper in server.prefixes:
        if wrapper.name in LAUNCHERS or wrapper.sets:
            found.clear()
        elif wrapper.drops:
            found.append(shown(wrapper.name))
    return list(dict.fromkeys(found))


def _place(server: Server) -> str:
    """Return what `eplb-launch --` has to stand in front of."""
    program = server.program.rpartition("/")[2]
    if not server.entry or not program or not program.isprintable():
        return "the server's own command"
    if server.entry.startswith(program):
        return f"`{server.entry}`"
    return f"`{program} -m {server.entry}`" if "." in server.entry else f"`{program}`"


def _uses_ray(case: Case) -> str:
    for name in ("distributed_executor_backend", "data_parallel_backend"):
        if case.given(name) == "ray":
            return "--" + name.replace("_", "-") + " ray"
    return ""


def ray(case: Case) -> Iterator[Fields]:
    """Yield Ray workers of a release that hands them no NCCL variable."""
    if case.plan.release.ray_carries is False and _uses_ray(case):
        yield {"option": _uses_ray(case), "version": case.plan.vllm_version}


def ray_unknown(case: Case) -> Iterator[Fields]:
    """Yield Ray workers, where the release is not known."""
    if case.plan.release.ray_carries is None and _uses_ray(case):
        yield {"option": _uses_ray(case)}


def ray_v2(case: Case) -> Iterator[Fields]:
    """Yield Ray workers that take a value of their node first."""
    use = case.plan.release.ray_v2
    wanted = case.server.environ.get("VLLM_USE_RAY_V2_EXECUTOR_BACKEND")
    opted = parameter(wanted, 0) != 0 if wanted else use == "default"
    if (use == "always" or (use and opted)) and _uses_ray(case):
        yield {"version": case.plan.vllm_version}


def nodes(case: Case) -> Iterator[Fields]:
    """Yield signs of a server that is more than this command."""
    if case.given("data_parallel_backend") == "ray":
        return  # one command starts them all
    size = case.plan.settings["data_parallel_size"]
    local = _integer(case.given("data_parallel_size_local"))
    count = _integer(case.given("nnodes"))
    address = case.given("data_parallel_address")
    tests = {
        "nnodes": count is not None and count > 1,
        "headless": case.given("headless") == "True",
        "data_parallel_size_local": local is not None and size.known and local < size.value,
        "data_parallel_start_rank": True,
        "data_parallel_rank": True,
        "data_parallel_address": address not in _LOCAL,
        "data_parallel_hybrid_lb": case.given("data_parallel_hybrid_lb") == "True",
        "data_parallel_external_lb": case.given("data_parallel_external_lb") == "True",
        "distributed_executor_backend": case.given("distributed_executor_backend")
        == "external_launcher",
    }
    for name, several in tests.items():
        if several and name in case.plan.given:
            source = case.plan.given[name].source
            yield {"option": source if source.isprintable() else ascii(source)}
            return


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        return None
