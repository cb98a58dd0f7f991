"""The cases in which the cap is void or in doubt: one function for each row of `checks`.

The row says what a case is. Each yields, for every one that it finds, the fields of the message.
First what the values are, then what keeps the variable from where NCCL runs: wrappers, Ray, nodes.
"""

from __future__ import annotations

from eplb_launch.launch_options import NAMES
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.nccl.variables import (
    MIN_P2P,
    MINIMA,
    channels,
    limit,
    parameter,
    pow2up,
)
from eplb_launch.vllm.releases import CAP, MAX_CHANNELS, VARIABLE, stays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.model import Server
    from eplb_launch.nccl.variables import Value
    from eplb_launch.plans import Plan

    Fields = dict[str, object]  # what stands in the braces of a message

_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))


class Case(Record):
    plan: Plan
    server: Server
    environ: Mapping[str, str]  # what the command is started with
    cap: int  # the most CTAs that there may be
    readings: tuple[Mapping[str, Value], ...]  # what NCCL may find, what the plan sets included
    hidden: tuple[Value, ...]  # limits in conf files that it would find without the plan
    met: Server  # the server that there is with what the plan sets
    arrives: bool  # what the plan sets reaches it as it is

    @property
    def kept(self) -> str | None:
        """The value that vLLM's rule keeps."""
        current = self.plan.current
        return current if stays(current) and not self.plan.variables else None

    @property
    def replaced(self) -> str | None:
        """The value that the plan replaces, which may be empty."""
        return self.plan.current if self.plan.variables and self.arrives else None

    def given(self, name: str) -> str | None:
        """Return an argument of vLLM as given; "" where it cannot be known."""
        entry = self.plan.given.get(name)
        if entry is None:
            return None
        text = str(entry.value)
        return "" if UNKNOWN in text else text


def shown(text: str) -> str:
    """Return a value as it may stand in a line: quoted where that is needed, and not endless."""
    text = text[:40] + "..." if len(text) > 40 else text
    if UNKNOWN in text:
        return "(not known)"
    plain = text.isascii() and text.isprintable() and text and " " not in text
    return text if plain else repr(text)


def minima(case: Case, names: tuple[str, ...], default: int) -> Iterator[Fields]:
    """Find minimums above the cap; `default` is what NCCL takes for one that is not set."""
    said = set()
    for reading in case.readings:
        for name in names:
            value = reading.get(name)
            number = parameter(value.text, default) if value else default
            if value is None or number == default:
                continue
            count = min(pow2up(number) if name == MIN_P2P else number, MAX_CHANNELS)
            if count > case.cap and (name, value) not in said:
                said.add((name, value))
                where = value.source
                yield {"name": name, "value": shown(value.text), "where": where, "count": count}
            break


def _without_minima(reading: Mapping[str, Value]) -> int:
    """Return how many CTAs NCCL may take by a reading, its minimums left out."""
    names = reading.keys() - {*MINIMA, MIN_P2P}
    return max(channels({name: reading[name].text for name in names}))


def _unlimited(case: Case) -> bool:
    return any(_without_minima(reading) > case.cap for reading in case.readings)


def kept_ignored(case: Case) -> Iterator[Fields]:
    if case.kept and limit(case.kept) is None and _unlimited(case):
        yield {"value": shown(case.kept)}


def kept_too_high(case: Case) -> Iterator[Fields]:
    number = limit(case.kept)
    if case.kept and number is not None and _unlimited(case):
        yield {"value": shown(case.kept), "count": max(map(_without_minima, case.readings))}


def set_too_high(case: Case) -> Iterator[Fields]:
    value = case.plan.environment.get(VARIABLE)
    if value and int(value) > CAP:
        yield {"value": value, "most": CAP}


def replaced(case: Case) -> Iterator[Fields]:
    number = limit(case.replaced)
    if case.replaced and number is not None and 0 < number <= case.cap:
        yield {"value": shown(case.replaced), "number": number}


def empty(case: Case) -> Iterator[Fields]:
    if case.replaced == "":
        yield {}


def file_kept(case: Case, *, own_rule: bool) -> Iterator[Fields]:
    """Find a limit in a conf file that stays; `own_rule`: workers set 8 where they see none."""
    plan = case.plan
    if not plan.variables and plan.current is None and bool(plan.release.own_rule) is own_rule:
        yield from (_in_file(value) for value in case.hidden[:1])


def file_hidden(case: Case) -> Iterator[Fields]:
    yield from map(_in_file, case.hidden if case.plan.variables else ())


def _in_file(value: Value) -> Fields:
    return {"value": shown(value.text), "where": value.source}


def env_plugin(case: Case) -> Iterator[Fields]:
    if case.server.environ.get("NCCL_ENV_PLUGIN", "none") not in ("", "none"):
        yield {}


def rounded(case: Case) -> Iterator[Fields]:
    value = case.plan.environment.get(VARIABLE)
    if value and pow2up(int(value)) != int(value):
        yield {"value": value, "count": pow2up(int(value))}


def dropped(case: Case) -> Iterator[Fields]:
    if not case.server.prefixes or not (case.plan.variables or case.plan.current):
        return
    names = dropping(case.met)
    if names:
        options = (wrapper.option for wrapper in case.met.prefixes if wrapper.name == names[0])
        option = next(options, "").format(name=VARIABLE, value=case.cap)
        yield {
            "names": " and ".join(names),
            "verb": "does" if len(names) == 1 else "do",
            "place": _place(case.server),
            "option": f", or give {names[0]} {option}" if option and len(names) == 1 else "",
        }


def overwritten(case: Case) -> Iterator[Fields]:
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
    found: list[str] = []
    for wrapper in server.prefixes:
        if wrapper.name in NAMES or wrapper.sets:
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


def ray(case: Case, *, carries: bool | None) -> Iterator[Fields]:
    """Find Ray workers, where the release hands them NCCL's variables or not; None: not known."""
    if case.plan.release.ray_carries is carries and _uses_ray(case):
        yield {"option": _uses_ray(case), "version": case.plan.vllm_version}


def ray_v2(case: Case) -> Iterator[Fields]:
    use = case.plan.release.ray_v2
    wanted = case.server.environ.get("VLLM_USE_RAY_V2_EXECUTOR_BACKEND")
    opted = parameter(wanted, 0) != 0 if wanted else use == "default"
    if (use == "always" or (use and opted)) and _uses_ray(case):
        yield {"version": case.plan.vllm_version}


def nodes(case: Case) -> Iterator[Fields]:
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
