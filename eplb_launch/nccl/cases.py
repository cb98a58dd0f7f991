"""The cases in which a cap is void or in doubt. Each case is a row of `checks`.

Imported only for a command that can hang.
"""

from __future__ import annotations

from eplb_launch.files import DISK, InMemory
from eplb_launch.launch_options import NAMES
from eplb_launch.model import UNKNOWN, PlanWarning, Record
from eplb_launch.nccl.checks import NOTES, OVERWRITTEN, WARNINGS
from eplb_launch.nccl.variables import (
    ENVIRONMENT,
    MAXIMA,
    MIN_P2P,
    MINIMA,
    Value,
    channels,
    limit,
    parameter,
    pow2up,
    readings,
)
from eplb_launch.vllm.releases import CAP, MAX_CHANNELS, VARIABLE, stays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.files import Files
    from eplb_launch.model import Server
    from eplb_launch.plans import Plan

    Found = tuple[str, dict[str, object]]  # the code of a row, and the fields of its message

_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))


class Case(Record):
    plan: Plan
    server: Server
    cap: int  # the most CTAs that NCCL may take
    readings: tuple[Mapping[str, Value], ...]  # the values that NCCL may read, the plan's included
    hidden: tuple[Value, ...]  # the limits in conf files that NCCL would read without the plan
    met: Server  # the server as it is with the value that the plan sets
    arrives: bool  # the value that the plan sets reaches it unchanged

    def given(self, name: str) -> str | None:
        """Return an argument of vLLM as given; "" if it is not known."""
        entry = self.plan.given.get(name)
        if entry is None:
            return None
        text = str(entry.value)
        return "" if UNKNOWN in text else text


def shown(text: str) -> str:
    """Return a value for a message: cut, and quoted if it needs quotes."""
    text = text[:40] + "..." if len(text) > 40 else text
    if UNKNOWN in text:
        return "(not known)"
    plain = text.isascii() and text.isprintable() and text and " " not in text
    return text if plain else repr(text)


def advise(
    plan: Plan,
    environ: Mapping[str, str],
    *,
    cap: int,
    files: Files = DISK,
    directory: str | None = None,
) -> Plan:
    """Return the plan of a command that can hang, with its warnings and notes.

    The command is started with `environ` in `directory`; `cap` is the most CTAs that NCCL may take.
    If a conf file already limits NCCL, the returned plan sets nothing.
    """
    server = plan.server
    if server is None:
        return plan
    found = _readings(plan, server, files)
    hidden: tuple[Value, ...] = ()
    if plan.current is None:
        limits = [_low(reading.get(VARIABLE), cap) for reading in found]
        hidden = tuple(dict.fromkeys(value for value in limits if value is not None))
        if hidden and None not in limits:
            value = hidden[0]
            reason = f"{VARIABLE}={shown(value.text)} in {value.source} stays ({plan.reason})"
            plan = plan.replace(variables=(), reason=reason)
    met, arrives = server, True
    if plan.variables:
        text = plan.environment[VARIABLE]
        arrives = bool(server.hands_on)
        if server.hands_on is None:  # a script reads the variable
            from eplb_launch.command import look

            again = look(plan.command, {**environ, VARIABLE: text}, files, directory)[0]
            servers = (again, *again.others) if again else ()
            met = next((one for one in servers if one.words == server.words), again or server)
            arrives = met.environ.get(VARIABLE) == text
        launchers = [i for i, w in enumerate(server.wrappers, 1) if w.name in NAMES]
        if launchers:  # the command starts eplb-launch again, which sets the value there
            arrives = not any(wrapper.sets for wrapper in server.wrappers[launchers[-1] :])
        there = text if arrives else met.environ.get(VARIABLE) or ""
        value = Value("" if dropping(met) else there, ENVIRONMENT)
        found = tuple({**reading, VARIABLE: value} for reading in found)
    texts = [{name: value.text for name, value in reading.items()} for reading in found]
    plan = plan.replace(ctas=max(max(channels(values)) for values in texts))
    cases = list(_find(Case(plan, server, cap, found, hidden, met, arrives)))
    return plan.replace(
        warnings=(*plan.warnings, *_said(WARNINGS, cases, cap)),
        notes=(*plan.notes, *_said(NOTES, cases, cap)),
    )


def _readings(plan: Plan, server: Server, files: Files) -> tuple[Mapping[str, Value], ...]:
    found = readings(
        server.environ,
        plan.vllm_version,
        directory=server.directory,
        other_user=any(wrapper.user for wrapper in server.wrappers),
        files=InMemory({}) if server.remote else files,
    )
    if parameter(server.environ.get("VLLM_BATCH_INVARIANT"), 0) == 0:
        return found
    # vLLM then sets these itself (override_envs_for_invariance).
    fixed = {name: Value("1", "VLLM_BATCH_INVARIANT") for name in (MINIMA[0], MAXIMA[0])}
    return tuple({**reading, **fixed} for reading in found)


def _low(value: Value | None, cap: int) -> Value | None:
    """Return the value if NCCL reads a limit from it that is low enough."""
    number = limit(value.text) if value else None
    return value if number is not None and number <= cap else None


def _said(rows: tuple[PlanWarning, ...], cases: list[Found], cap: int) -> Iterator[PlanWarning]:
    for row in rows:
        for fields in (fields for code, fields in cases if code == row.code):
            message, remedy = (text.format(cap=cap, **fields) for text in (row.message, row.remedy))
            yield row.replace(message=message, remedy=remedy)


def _find(case: Case) -> Iterator[Found]:
    """Yield the cases that apply."""
    yield from _minima(case, "min-nchannels", MINIMA, -2)
    yield from _minima(case, "min-p2p-nchannels", (MIN_P2P,), 1)
    yield from _values(case)
    for value in case.hidden if case.plan.variables else case.hidden[:1]:
        code = "conf-file-limit-hidden" if case.plan.release.own_rule else "conf-file-limit"
        if case.plan.variables:
            code = "conf-file-limit-unsure"
        yield code, {"value": shown(value.text), "where": value.source}
    if case.server.environ.get("NCCL_ENV_PLUGIN", "none") not in ("", "none"):
        yield "env-plugin", {}
    if case.server.wrappers:
        yield from _wrappers(case)
    yield from _ray(case)
    yield from _nodes(case)


def _minima(case: Case, code: str, names: tuple[str, ...], default: int) -> Iterator[Found]:
    """Yield the minimums above the cap; `default` is NCCL's value for an unset minimum."""
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
                fields = {"name": name, "value": shown(value.text), "where": value.source}
                yield code, {**fields, "count": count}
            break


def _values(case: Case) -> Iterator[Found]:
    current = case.plan.current
    number = limit(current)
    if case.plan.variables:
        value = int(case.plan.environment[VARIABLE])
        if value > CAP:
            yield "max-ctas-too-high", {"value": value, "most": CAP}
        if pow2up(value) != value:
            yield "max-ctas-rounded", {"value": value, "count": pow2up(value)}
        if case.arrives and current == "":
            yield "value-empty", {}
        elif case.arrives and current and number is not None and number <= case.cap:
            yield "value-replaced", {"value": shown(current), "number": number}
    elif current and stays(current):
        without_minima = [
            {name: one.text for name, one in reading.items() if name not in (*MINIMA, MIN_P2P)}
            for reading in case.readings
        ]
        most = max(max(channels(values)) for values in without_minima)
        if most > case.cap:
            code = "value-not-a-limit" if number is None else "value-too-high"
            yield code, {"value": shown(current), "count": most}


def _wrappers(case: Case) -> Iterator[Found]:
    plan, server = case.plan, case.server
    names = dropping(case.met)
    arrived = case.met.environ.get(VARIABLE)
    if names and (plan.variables or plan.current):
        one = len(names) == 1
        options = (wrapper.option for wrapper in case.met.wrappers if wrapper.name == names[0])
        option = next(options, "").format(name=VARIABLE, value=case.cap) if one else ""
        fields: dict[str, object] = {"names": " and ".join(names), "verb": "does" if one else "do"}
        fields["option"] = f", or give {names[0]} {option}" if option else ""
        yield "variable-dropped", {**fields, "place": _place(server)}
    elif plan.variables and not case.arrives and not names and arrived is not None:
        sets = [wrapper.name for wrapper in server.wrappers if wrapper.sets]
        name = sets[-1] if sets else server.wrappers[-1].name
        yield OVERWRITTEN, {"name": name, "value": shown(arrived), "place": _place(server)}


def dropping(server: Server) -> list[str]:
    """Return the wrappers that drop the variable and have no wrapper behind them that sets it."""
    found: list[str] = []
    for wrapper in server.wrappers:
        if wrapper.name in NAMES or wrapper.sets:
            found.clear()
        elif wrapper.drops:
            found.append(shown(wrapper.name))
    return list(dict.fromkeys(found))


def _place(server: Server) -> str:
    """Return the command that `eplb-launch --` has to stand before."""
    program = server.program.rpartition("/")[2]
    if not server.entry or not program or not program.isprintable():
        return "the server's own command"
    if server.entry.startswith(program):
        return f"`{server.entry}`"
    return f"`{program} -m {server.entry}`" if "." in server.entry else f"`{program}`"


def _ray(case: Case) -> Iterator[Found]:
    names = ("distributed_executor_backend", "data_parallel_backend")
    used = [name for name in names if case.given(name) == "ray"]
    if not used:
        return
    release = case.plan.release
    option = f"--{used[0].replace('_', '-')} ray"
    fields: dict[str, object] = {"option": option, "version": case.plan.vllm_version}
    if not release.ray_carries:
        yield "ray-workers-unsure" if release.ray_carries is None else "ray-workers", fields
    wanted = case.server.environ.get("VLLM_USE_RAY_V2_EXECUTOR_BACKEND")
    opted = parameter(wanted, 0) != 0 if wanted else release.ray_v2 == "default"
    if release.ray_v2 == "always" or (release.ray_v2 and opted):
        yield "ray-node-value", fields


def _nodes(case: Case) -> Iterator[Found]:
    if case.given("data_parallel_backend") == "ray":
        return  # one command starts all nodes
    size = case.plan.settings["data_parallel_size"]
    local = _integer(case.given("data_parallel_size_local"))
    backend = case.given("distributed_executor_backend")
    signs = {
        "nnodes": (_integer(case.given("nnodes")) or 0) > 1,
        "headless": case.given("headless") == "True",
        "data_parallel_size_local": local is not None and size.known and local < size.value,
        "data_parallel_start_rank": True,
        "data_parallel_rank": True,
        "data_parallel_address": case.given("data_parallel_address") not in _LOCAL,
        "data_parallel_hybrid_lb": case.given("data_parallel_hybrid_lb") == "True",
        "data_parallel_external_lb": case.given("data_parallel_external_lb") == "True",
        "distributed_executor_backend": backend == "external_launcher",
    }
    given = [name for name, several in signs.items() if several and name in case.plan.given]
    if given:
        source = case.plan.given[given[0]].source
        yield "every-node", {"option": source if source.isprintable() else ascii(source)}


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        return None
