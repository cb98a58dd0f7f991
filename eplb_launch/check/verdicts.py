"""What a Plan means for a server in a file: ok, exposed, or unknown. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from eplb_launch.check.docker_run import ENGINES
from eplb_launch.check.kubernetes.pods import from_secrets_only
from eplb_launch.check.model import EXPOSED, NOT_KNOWN, OK, Answer
from eplb_launch.command.entrypoints import UNKNOWN
from eplb_launch.launch_options import NAMES, SINGLE_FILE, read
from eplb_launch.nccl.variables import MIN_P2P, MINIMA
from eplb_launch.vllm.releases import CAP, VARIABLE, stays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eplb_launch.check.tasks import Task
    from eplb_launch.command.entrypoints import Server, Wrapper
    from eplb_launch.plans import Plan, PlanWarning
    from eplb_launch.vllm.rules import Verdict

# Where the variable set, or the command wrapped, would put it right.
FIXABLE = frozenset(
    (
        "no-limit",
        "settings-not-known",
        "environment-not-read",
        "command-not-understood",
        "config-not-read",
        "launcher-misused",
    )
)
# Where the variable is set, and another value of it would.
WRONG_VALUES = frozenset(("value-not-a-limit", "value-too-high", "value-not-known"))
_LAUNCHERS = (*NAMES, SINGLE_FILE)
# With a high value, they make a limit void.
_DEFEATS = (*MINIMA, MIN_P2P)
# Warnings of a Plan that say that a cap which is there does not hold.
_VOID = frozenset(
    (
        "min-nchannels",
        "min-p2p-nchannels",
        "value-not-a-limit",
        "value-too-high",
        "variable-dropped",
        "variable-overwritten",
    )
)


def answer(task: Task, plan: Plan, server: Server, *, idle: bool = False) -> Answer:
    """Return the verdict on a server of a task, by its Plan.

    `idle`: the launcher, if it stands there, is told of a release for which it sets nothing.
    """
    wrapped = is_wrapped(server.prefixes)
    if wrapped and launcher_options(server.prefixes) is None:
        reason = "eplb-launch refuses its options, and starts nothing"
        if lacks_dashes(server.prefixes):
            reason = 'eplb-launch starts nothing without "--" before its command'
        return Answer(EXPOSED, "launcher-misused", reason)
    if any(warning.code == "config-unreadable" for warning in plan.warnings):
        reason = "its --config file is not among the files that are checked, or is not valid YAML"
        return Answer(NOT_KNOWN, "config-not-read", reason, ("the --config file",))
    if not plan.settings:
        return Answer(NOT_KNOWN, "command-not-understood", plan.reason)
    if plan.verdict is not None:
        found = _of_rule(task, plan, plan.verdict, wrapped=wrapped and not idle)
        number = (launcher_options(server.prefixes) or {}).get("max_ctas", CAP)
        if found.cause == "wrapped" and isinstance(number, int) and number > CAP:
            state = EXPOSED if plan.verdict.holds else NOT_KNOWN
            reason = f"{plan.reason}; eplb-launch sets {VARIABLE}={number}, more than {CAP}"
            found = Answer(state, "value-too-high", reason)
        elif wrapped and idle and found.verdict != OK:
            told = "eplb-launch is told of a release for which it sets nothing"
            found = found.replace(reason=f"{found.reason}; {told}")
        doubtful = [name for name in _DEFEATS if UNKNOWN in (server.environ.get(name) or "")]
        if found.verdict == OK and doubtful:
            reason = f"{plan.reason}; {doubtful[0]} may make the limit void: its value is not known"
            found = Answer(NOT_KNOWN, "limit-not-known", reason, tuple(doubtful))
        return found
    if wrapped:
        return Answer(OK, "wrapped", f"eplb-launch stands before it ({plan.reason})")
    return Answer(OK, "not-needed", plan.reason)


def _of_rule(task: Task, plan: Plan, verdict: Verdict, *, wrapped: bool) -> Answer:
    """Answer where a rule holds, or cannot be ruled out."""
    conditions = verdict.conditions
    unknown = tuple(condition.text for condition in conditions if condition.holds is None)
    limited = stays(plan.current) or not plan.variables
    own_rule = bool(plan.release.own_rule)
    void = _void(task, plan, limited=limited, wrapped=wrapped, own_rule=own_rule)
    if void is not None:
        state = EXPOSED if verdict.holds else NOT_KNOWN
        found = Answer(
            state, void.code, f"{plan.reason}, and the limit is void: {void.code}", unknown
        )
    elif limited:
        found = Answer(OK, "set", plan.reason)
    elif wrapped:
        found = Answer(OK, "wrapped", f"eplb-launch stands before it ({plan.reason})")
    elif own_rule:
        does = f"the workers of vLLM {plan.vllm_version} set {VARIABLE} themselves"
        found = Answer(OK, "vllm-sets-it", f"{does} ({plan.reason})")
    elif verdict.holds is None:
        found = Answer(NOT_KNOWN, "settings-not-known", plan.reason, unknown)
    elif UNKNOWN in (plan.current or "") and _is_set(task):
        reason = f"{plan.reason}; the value of {VARIABLE} is not known"
        found = Answer(NOT_KNOWN, "value-not-known", reason, (VARIABLE,))
    elif task.unread and not from_secrets_only(task.unread):
        reason = f"{plan.reason}; {VARIABLE} may be set in what could not be read"
        found = Answer(NOT_KNOWN, "environment-not-read", reason)
    else:
        found = Answer(EXPOSED, "no-limit", plan.reason)
    return found


def _void(
    task: Task, plan: Plan, *, limited: bool, wrapped: bool, own_rule: bool
) -> PlanWarning | None:
    """Return what makes a cap void that is there; None where it holds, or there is none."""
    for warning in plan.warnings:
        if warning.code == "variable-dropped":
            counts = wrapped or limited
        elif warning.code == "ray-workers":
            # The environment of a container is that of its Ray, but of no other container's.
            counts = task.workers_without if limited else wrapped
        else:
            counts = warning.code in _VOID and (limited or wrapped or own_rule)
        if counts:
            return warning
    return None


def _is_set(task: Task) -> bool:
    """Whether a file says that the variable is set, be it to a value that is not known.

    Behind `sudo` and the like it is not known either, but there nobody has set it.
    """
    return VARIABLE in task.environ or any(
        re.search(rf"\b{VARIABLE}=", word.text) for word in task.words
    )


def is_wrapped(prefixes: Sequence[Wrapper]) -> bool:
    """Whether the launcher is among what stands before a server."""
    return any(map(_is_launcher, prefixes))


def lacks_dashes(prefixes: Sequence[Wrapper]) -> bool:
    """Whether the launcher is there, and the "--" is not that it wants before its command."""
    return any(_is_launcher(prefix) and "--" not in prefix.words for prefix in prefixes)


def launcher_options(prefixes: Sequence[Wrapper]) -> dict[str, Any] | None:
    """Return the options that the launcher is given; None where it refuses them."""
    found: dict[str, Any] | None = {}
    for prefix in filter(_is_launcher, prefixes):
        names = [word.rpartition("/")[2] for word in prefix.words]
        start = next(i for i, name in enumerate(names) if name in _LAUNCHERS) + 1
        if not any(UNKNOWN in word for word in prefix.words[start:]):
            found = read([*prefix.words[start:], "command"])
    return found


def _is_launcher(prefix: Wrapper) -> bool:
    if prefix.name in ENGINES:
        return False  # what it starts in the container is a prefix of its own
    return prefix.name in _LAUNCHERS or any(
        word.rpartition("/")[2] in _LAUNCHERS for word in prefix.words[:4]
    )
