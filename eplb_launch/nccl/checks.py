"""What makes the cap void, as a table: each row says what it means and what to do about it.

Imported only for a command that can hang. A row of WARNINGS is said at launch and is fatal with
--strict; a row of NOTES is for `explain`: what a person should know, with nothing wrong here.
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


_MINIMUM = "{name}={value} in {where} defeats the cap: NCCL takes {count} CTAs for {what}, at least"
_UNSET_IT = "unset it there, or give it {cap} or less"
_KEPT = "NCCL_MAX_CTAS={value} stays, as vLLM's rule keeps any digits, "
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
        _KEPT + "but NCCL reads no limit from it: nothing is limited",
        _SET_IT,
        "NCCL src/init.cc; measured with NCCL 2.28.9",
        voids=ANYBODY,
    ),
    PlanWarning(
        "value-too-high",
        _KEPT + "but it leaves NCCL {count} CTAs, more than {cap}",
        _SET_IT,
        "NCCL src/graph/paths.cc, ncclTopoComputeP2pChannels; DeepEP issue 496",
        voids=ANYBODY,
    ),
    PlanWarning(
        "max-ctas-too-high",
        "NCCL_MAX_CTAS={value} is more than vLLM's {most}, beside which DeepEP is known to run",
        "give --max-ctas {most} or less, or fit",
        "DeepEP issue 496; vLLM PR 32860",
        voids=(LAUNCHER,),
        launch_only=True,
    ),
    PlanWarning(
        "value-replaced",
        "NCCL_MAX_CTAS={value} is replaced, as vLLM's rule has it, "
        "though NCCL would have read a limit of {number}",
        "write it as NCCL_MAX_CTAS={number}: plain digits stay",
        "NCCL src/misc/param.cc; vLLM PR 32860",
        launch_only=True,
    ),
    PlanWarning(
        "value-empty",
        "NCCL_MAX_CTAS is set to nothing, which is no limit and hides one in a conf file",
        "unset it, or give it a number",
        "NCCL src/misc/param.cc; measured with NCCL 2.28.9",
    ),
    PlanWarning(
        "conf-file-limit",
        "NCCL_MAX_CTAS={value} in {where} is the limit: it stays, and nothing is set, "
        "where vLLM's rule would hide it",
        "set NCCL_MAX_CTAS={value} in the environment, so that it does not rest on a file",
        "NCCL src/misc/param.cc, initEnv; measured with NCCL 2.28.9",
    ),
    PlanWarning(
        "conf-file-limit-hidden",
        "NCCL_MAX_CTAS={value} in {where} stays, and nothing is set, but vLLM's own workers do "
        "not see the file and set 8",
        "set NCCL_MAX_CTAS={value} in the environment: vLLM keeps that",
        "NCCL src/misc/param.cc, initEnv; vLLM PR 32860",
    ),
    PlanWarning(
        "conf-file-limit-unsure",
        "NCCL_MAX_CTAS={value} in {where} is hidden by what is set here, if NCCL reads that file",
        "set NCCL_MAX_CTAS={value} in the environment if it is meant",
        "NCCL src/misc/param.cc, initEnv",
    ),
    PlanWarning(
        "variable-dropped",
        "{names} {verb} not hand NCCL_MAX_CTAS on to the server",
        "put `eplb-launch --` directly before {place}{option}",
        "the manual of the program",
        voids=(LAUNCHER, BY_ENVIRONMENT),
        launch_only=True,
    ),
    PlanWarning(
        OVERWRITTEN,
        "{name} sets NCCL_MAX_CTAS={value} for the server, whatever is set here",
        "take it out there, or put `eplb-launch --` directly before {place}",
        "the manual of the program",
        voids=(LAUNCHER,),
        launch_only=True,
    ),
    PlanWarning(
        "ray-workers",
        "vLLM {version} hands no NCCL variable to its Ray workers ({option})",
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
        "before 0.17 vLLM hands no NCCL variable to its Ray workers ({option}); "
        "the release is not known",
        "say --vllm-version, or set the variable before `ray start` on every node",
        "vLLM vllm/ray/ray_env.py; issue 6803",
    ),
    PlanWarning(
        "ray-node-value",
        "with the Ray executor of vLLM {version} an NCCL_MAX_CTAS that a node has already wins",
        "unset it where `ray start` runs, on every node",
        "vLLM v1/executor/ray_executor_v2.py",
    ),
    PlanWarning(
        "every-node",
        "this command starts a part of the server only ({option})",
        "put `eplb-launch --` before the command of every node",
        "vLLM vllm/config/parallel.py",
    ),
    PlanWarning(
        "env-plugin",
        "NCCL_ENV_PLUGIN may answer with other values, which cannot be seen from here",
        "look for `NCCL_MAX_CTAS set by environment` in the log with NCCL_DEBUG=INFO",
        "NCCL 2.28.7, plugins/env",
    ),
    PlanWarning(
        "max-ctas-rounded",
        "NCCL rounds up to a power of two in the weight exchange: {value} means {count} there",
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

    `environ` is what the command is started with, in `directory`; `cap` the most CTAs that there
    may be. Where a conf file limits NCCL already, the plan returned sets nothing.
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
        if server.hands_on is None:  # a script that looks at the variable
            met = _found_again(plan, server, {**environ, VARIABLE: text}, files, directory)
            arrives = met.environ.get(VARIABLE) == text
        launchers = [i for i, w in enumerate(server.wrappers, 1) if w.name in NAMES]
        if launchers:  # the last one sets it there
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
    # vLLM sets these itself then (override_envs_for_invariance).
    fixed = {name: Value("1", "VLLM_BATCH_INVARIANT") for name in (MINIMA[0], MAXIMA[0])}
    return tuple({**reading, **fixed} for reading in found)


def _found_again(
    plan: Plan,
    server: Server,
    environ: Mapping[str, str],
    files: Files,
    directory: str | None,
) -> Server:
    """Return the same server in the command, started with another environment."""
    from eplb_launch.command import look

    found = look(plan.command, environ, files, directory)[0]
    servers = (found, *found.others) if found else ()
    return next((other for other in servers if other.words == server.words), found or server)


def _file_limit(reading: Mapping[str, Value], cap: int) -> Value | None:
    """Return the limit in a conf file, if it is one that NCCL honours and low enough."""
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
