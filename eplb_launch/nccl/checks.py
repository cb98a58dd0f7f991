"""What voids a cap, as a table: each row has its message and what to do about it.

Imported only for a command that can hang. The launcher prints a row of WARNINGS, and with --strict
does not start the command. Only `explain` shows a row of NOTES: nothing is wrong then.
"""

from __future__ import annotations

from eplb_launch.files import DISK, InMemory
from eplb_launch.launch_options import NAMES
from eplb_launch.model import ANYBODY, FILE, LAUNCHER, PlanWarning
from eplb_launch.model import ENVIRONMENT as BY_ENVIRONMENT
from eplb_launch.nccl.cases import OVERWRITTEN, Case, dropping, find, shown
from eplb_launch.nccl.variables import (
    ENVIRONMENT,
    MAXIMA,
    MINIMA,
    Value,
    channels,
    limit,
    parameter,
    readings,
)
from eplb_launch.vllm.releases import VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.files import Files
    from eplb_launch.model import Server
    from eplb_launch.nccl.cases import Found
    from eplb_launch.plans import Plan


_MINIMUM = "{name}={value} in {where} voids the cap: NCCL takes at least {count} CTAs for {what}"
_UNSET_IT = "unset it there, or set it to {cap} or less"
_KEPT = "vLLM's rule keeps NCCL_MAX_CTAS={value}, as it keeps all digits, "
_SET_IT = "set NCCL_MAX_CTAS={cap}, or unset it"

WARNINGS: tuple[PlanWarning, ...] = (
    PlanWarning(
        "min-nchannels",
        _MINIMUM.replace("{what}", "everything"),
        _UNSET_IT,
        "NCCL src/graph/connect.cc, ncclTopoPostset; measured with NCCL 2.28.9",
        voids=ANYBODY,
    ),
    PlanWarning(
        "min-p2p-nchannels",
        _MINIMUM.replace("{what}", "the weight exchange"),
        _UNSET_IT,
        "NCCL src/graph/paths.cc, ncclTopoComputeP2pChannels; measured with NCCL 2.28.9",
        voids=ANYBODY,
    ),
    PlanWarning(
        "value-not-a-limit",
        _KEPT + "but NCCL reads no limit from it",
        _SET_IT,
        "NCCL src/init.cc; measured with NCCL 2.28.9",
        voids=ANYBODY,
    ),
    PlanWarning(
        "value-too-high",
        _KEPT + "but NCCL may then take {count} CTAs, more than {cap}",
        _SET_IT,
        "NCCL src/graph/paths.cc, ncclTopoComputeP2pChannels; DeepEP issue 496",
        voids=ANYBODY,
    ),
    PlanWarning(
        "max-ctas-too-high",
        "NCCL_MAX_CTAS={value} is more than vLLM's {most}, which is known to work beside DeepEP",
        "give --max-ctas {most} or less, or --max-ctas fit",
        "DeepEP issue 496; vLLM PR 32860",
        voids=(LAUNCHER,),
        launch_only=True,
    ),
    PlanWarning(
        "value-replaced",
        "vLLM's rule replaces NCCL_MAX_CTAS={value}, though NCCL reads a limit of {number} from it",
        "write NCCL_MAX_CTAS={number}: the rule keeps plain digits",
        "NCCL src/misc/param.cc; vLLM PR 32860",
        launch_only=True,
    ),
    PlanWarning(
        "value-empty",
        "NCCL_MAX_CTAS is empty, which is no limit and hides a limit in a conf file",
        "unset it, or set it to a number",
        "NCCL src/misc/param.cc; measured with NCCL 2.28.9",
    ),
    PlanWarning(
        "conf-file-limit",
        "NCCL_MAX_CTAS={value} in {where} is the limit, and eplb-launch sets nothing: vLLM's rule "
        "would hide it",
        "set NCCL_MAX_CTAS={value} in the environment, so that it does not depend on a file",
        "NCCL src/misc/param.cc, initEnv; measured with NCCL 2.28.9",
    ),
    PlanWarning(
        "conf-file-limit-hidden",
        "NCCL_MAX_CTAS={value} in {where} is a limit, and eplb-launch sets nothing, but the "
        "workers of vLLM do not read the file and set 8",
        "set NCCL_MAX_CTAS={value} in the environment: vLLM keeps it",
        "NCCL src/misc/param.cc, initEnv; vLLM PR 32860",
    ),
    PlanWarning(
        "conf-file-limit-unsure",
        "the value that eplb-launch sets hides NCCL_MAX_CTAS={value} in {where}, if NCCL reads "
        "that file",
        "set NCCL_MAX_CTAS={value} in the environment if you want that value",
        "NCCL src/misc/param.cc, initEnv",
    ),
    PlanWarning(
        "variable-dropped",
        "{names} {verb} not pass NCCL_MAX_CTAS on to the server",
        "put `eplb-launch --` directly before {place}{option}",
        "the manual of the program",
        voids=(LAUNCHER, BY_ENVIRONMENT),
        launch_only=True,
    ),
    PlanWarning(
        OVERWRITTEN,
        "{name} sets NCCL_MAX_CTAS={value} for the server, and overwrites the value set here",
        "remove it there, or put `eplb-launch --` directly before {place}",
        "the manual of the program",
        voids=(LAUNCHER,),
        launch_only=True,
    ),
    PlanWarning(
        "ray-workers",
        "vLLM {version} passes no NCCL variables to its Ray workers ({option})",
        'run `eval "$(eplb-launch env -- CMD)"` before `ray start` on every node, or use '
        "`eplb-launch env --format ray -- CMD` as the runtime_env",
        "vLLM up to 0.16, vllm/ray/ray_env.py; issue 6803",
        voids=(LAUNCHER,),
        doubts=(BY_ENVIRONMENT, FILE),
    ),
)

NOTES: tuple[PlanWarning, ...] = (
    PlanWarning(
        "ray-workers-unsure",
        "vLLM before 0.17 passes no NCCL variables to its Ray workers ({option}), and the release "
        "is not known",
        "give --vllm-version, or set the variable before `ray start` on every node",
        "vLLM vllm/ray/ray_env.py; issue 6803",
    ),
    PlanWarning(
        "ray-node-value",
        "with the Ray executor of vLLM {version}, the NCCL_MAX_CTAS that a node has set wins",
        "unset it where `ray start` runs, on every node",
        "vLLM v1/executor/ray_executor_v2.py",
    ),
    PlanWarning(
        "every-node",
        "this command starts only a part of the server ({option})",
        "put `eplb-launch --` before the command of every node",
        "vLLM vllm/config/parallel.py",
    ),
    PlanWarning(
        "env-plugin",
        "NCCL_ENV_PLUGIN may give NCCL other values, which eplb-launch cannot see",
        "look for `NCCL_MAX_CTAS set by environment` in the log with NCCL_DEBUG=INFO",
        "NCCL 2.28.7, plugins/env",
    ),
    PlanWarning(
        "max-ctas-rounded",
        "NCCL rounds {value} up to a power of two in the weight exchange: {count}",
        "use a power of two",
        "NCCL src/graph/paths.cc, ncclTopoComputeP2pChannels; measured with NCCL 2.28.9",
    ),
)


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
        limits = [_file_limit(reading, cap) for reading in found]
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
        there = "" if dropping(met) else there
        found = tuple({**reading, VARIABLE: Value(there, ENVIRONMENT)} for reading in found)
    texts = [{name: value.text for name, value in reading.items()} for reading in found]
    plan = plan.replace(ctas=max(max(channels(values)) for values in texts))
    cases = list(find(Case(plan, server, cap, found, hidden, met, arrives)))
    return plan.replace(
        warnings=(*plan.warnings, *_said(WARNINGS, cases, cap)),
        notes=(*plan.notes, *_said(NOTES, cases, cap)),
    )


def _readings(plan: Plan, server: Server, files: Files) -> tuple[Mapping[str, Value], ...]:
    other_user = any(wrapper.user for wrapper in server.wrappers)
    found = readings(
        server.environ,
        plan.vllm_version,
        directory=server.directory,
        other_user=other_user,
        files=InMemory({}) if server.elsewhere else files,
    )
    if parameter(server.environ.get("VLLM_BATCH_INVARIANT"), 0) == 0:
        return found
    # vLLM then sets these itself (override_envs_for_invariance).
    fixed = {name: Value("1", "VLLM_BATCH_INVARIANT") for name in (MINIMA[0], MAXIMA[0])}
    return tuple({**reading, **fixed} for reading in found)


def _file_limit(reading: Mapping[str, Value], cap: int) -> Value | None:
    """Return the limit that NCCL reads from a conf file, if it is low enough."""
    value = reading.get(VARIABLE)
    if value is None or value.source == ENVIRONMENT:
        return None
    number = limit(value.text)
    return value if number is not None and number <= cap else None


def _said(rows: tuple[PlanWarning, ...], cases: list[Found], cap: int) -> Iterator[PlanWarning]:
    for row in rows:
        for fields in (fields for code, fields in cases if code == row.code):
            message, remedy = (text.format(cap=cap, **fields) for text in (row.message, row.remedy))
            yield row.replace(message=message, remedy=remedy)
