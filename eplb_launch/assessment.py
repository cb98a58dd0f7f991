"""From a Plan to an Assessment: can this server hang, and what prevents it? Pure.

Every sub-command renders an Assessment. None compares values or looks up a release's rule again.
"""

from __future__ import annotations

import os

from eplb_launch.files import DISK
from eplb_launch.model import ANYBODY, ENVIRONMENT, FILE, LAUNCHER, VLLM, Record, cut
from eplb_launch.model import UNKNOWN as UNREADABLE
from eplb_launch.nccl.variables import CONF_FILE, MIN_P2P, MINIMA, NAMES, channels, limit
from eplb_launch.plans import NO_SERVER, settings_of
from eplb_launch.vllm.arguments import RefusedError
from eplb_launch.vllm.releases import CAP, CHANGES, VARIABLE, evaluate, release_of, stays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from eplb_launch.files import Files
    from eplb_launch.model import PlanWarning, Server
    from eplb_launch.plans import Plan

NOT_NEEDED = "not needed"
CAPPED = "capped"
EXPOSED = "exposed"
UNKNOWN = "unknown"

# What may have changed since the server started: `Seen.changed`.
PACKAGE = "vLLM"
CONFIG = "the --config file"

# These settings mean the same in every release. One of them can settle an unknown release.
_ALWAYS = ("data_parallel_size", "enable_eplb")
# A high value of one of these makes a cap void.
_DEFEATS = (*MINIMA, MIN_P2P)
# What settles an unknown assessment, by its cause.
_SETTLES = {
    "release-not-known": "give its release with --vllm-version X.Y.Z",
    "config-not-read": "give a --config file that can be read here",
    "command-not-understood": "give arguments that vLLM takes",
    "settings-not-known": "write these settings into the command",
    "value-not-known": f"write the value of {VARIABLE} into the command",
    "limit-not-known": "write its value into the command, or unset it",
    "environment-not-read": "give the file that it names, or unset it",
    "changed-since-start": "restart the server",
}
_HANGS = {True: "would hang", None: "might hang"}


class Assessment(Record):
    """Whether a server can hang, and why."""

    state: str  # NOT_NEEDED, CAPPED, EXPOSED or UNKNOWN
    cause: str  # for programs; it never changes
    reason: str  # one sentence, for people
    value: str | None = None  # if CAPPED: NCCL_MAX_CTAS
    by: str | None = None  # if CAPPED: who sets it, one of `model.ANYBODY`
    unread: tuple[str, ...] = ()  # if UNKNOWN: what is not known
    deciding: tuple[str, ...] = ()  # the names of the settings that decide
    warnings: tuple[PlanWarning, ...] = ()  # the warnings of the plan that count here

    @property
    def settles(self) -> str:
        """What would settle an unknown assessment; "" if it is known, or nothing would."""
        remedies = {warning.code: warning.remedy for warning in self.warnings}
        remedy = _SETTLES.get(self.cause) or remedies.get(self.cause, "")
        return remedy if self.state == UNKNOWN else ""


class Seen(Record):
    """What a sub-command knows about a server, besides its plan."""

    launched: bool = True  # the launcher starts the server, and sets what the plan says
    files: Files = DISK
    environ: Mapping[str, str] = {}  # of a process that may be no server
    unread: bool = False  # a part of the environment could not be read
    value_unread: bool = False  # NCCL_MAX_CTAS has a value that is not known
    ray_capped: bool | None = None  # Ray workers get NCCL_MAX_CTAS from the server; None: not known
    changed: str = ""  # PACKAGE or CONFIG, if that changed after the server had started


def assess(plan: Plan, seen: Seen = Seen()) -> Assessment:  # noqa: B008 - it never changes
    """Return whether the server of a plan can hang."""
    result = plan.decisive
    value, by = _cap(plan, seen)
    if result is None and plan.settings:
        found = _not_needed(plan, seen.changed)
    elif by and not (seen.changed and by == VLLM):
        found = _capped(plan, value, by, seen)
    else:
        found = _not_capped(plan, seen)
    if result is not None:
        settings = (condition.setting for condition in result.conditions)
        found = found.replace(deciding=tuple(dict.fromkeys(settings)))
    warnings = (
        warning
        for warning in plan.warnings
        if seen.launched or not warning.launch_only or by in warning.voids
    )
    return found.replace(warnings=tuple(warnings))


def _cap(plan: Plan, seen: Seen) -> tuple[str, str]:
    """Return the cap and who sets it, whether it holds or not; ("", "") without a cap."""
    if seen.launched and plan.variables:
        return plan.environment[VARIABLE], LAUNCHER
    if not plan.settings:
        return _by_environment(plan.server.environ if plan.server else seen.environ)
    current, own_rule = plan.current or "", plan.release.own_rule
    # NCCL reads "0x8" as a cap; vLLM's own rule would replace it.
    read_by_nccl = UNREADABLE not in current and limit(current) is not None
    if stays(current) or (read_by_nccl and not own_rule):
        return current, ENVIRONMENT
    if own_rule:
        return str(CAP), VLLM
    if not plan.variables:
        return str(plan.ctas), FILE
    return "", ""


def _by_environment(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the cap in the environment of a server with unknown settings."""
    values = {name: environ[name] for name in NAMES if name in environ}
    value = values.get(VARIABLE, "")
    holds = limit(value) is not None and max(channels(values)) <= CAP
    return (value, ENVIRONMENT) if holds and CONF_FILE not in environ else ("", "")


def _not_needed(plan: Plan, changed: str) -> Assessment:
    missing = (
        next(condition.setting for condition in result.conditions if condition.holds is False)
        for result in plan.results
    )
    deciding = tuple(dict.fromkeys(missing))
    in_every_release = deciding and all(name in _ALWAYS for name in deciding)
    if changed and (changed != PACKAGE or not in_every_release):
        return _changed(changed).replace(deciding=deciding)
    return Assessment(NOT_NEEDED, "not-needed", plan.reason, deciding=deciding)


def _capped(plan: Plan, value: str, by: str, seen: Seen) -> Assessment:
    """Return the assessment of a server with a cap, which may be void."""
    value = cut(value)
    holds = plan.decisive is not None and plan.decisive.holds
    for warning in plan.warnings:
        void = by in warning.voids or (by in warning.doubts and seen.ray_capped is False)
        if void or (by in warning.doubts and seen.ray_capped is None):
            does = "does" if void else "may"
            reason = f"{plan.reason}, and the cap {does} not hold: {warning.code}"
            return Assessment(EXPOSED if holds and void else UNKNOWN, warning.code, reason)
    doubtful = _doubtful(plan.server, seen.files)
    if doubtful:
        reason = f"{plan.reason}; {doubtful} may make the cap void, and is not known"
        return Assessment(UNKNOWN, "limit-not-known", reason, unread=(doubtful,))
    if by == LAUNCHER:
        reason = f"eplb-launch sets {VARIABLE}={value}: {plan.reason}"
    elif by == VLLM:
        reason = f"the workers of vLLM {plan.vllm_version} set {VARIABLE}={value}: {plan.reason}"
    elif not plan.settings:
        reason = f"{VARIABLE}={value} is set, and holds with any settings of the server"
    elif by == ENVIRONMENT and plan.variables:
        reason = f"{VARIABLE} is set already ({plan.reason})"
    else:
        reason = plan.reason
    return Assessment(CAPPED, by.lower().replace(" ", "-"), reason, value, by)


def _doubtful(server: Server | None, files: Files) -> str:
    """Return the variable that may make a cap void and has an unknown value; "" for none."""
    if server is None:
        return ""
    for name in _DEFEATS:
        if UNREADABLE in (server.environ.get(name) or ""):
            return name
    return CONF_FILE if _names_unread_conf(server, files) else ""


def _names_unread_conf(server: Server, files: Files) -> bool:
    """Whether NCCL_CONF_FILE names a file that cannot be read here."""
    named = server.environ.get(CONF_FILE) or ""
    if UNREADABLE in named or not named:
        return bool(named)
    path = os.path.join(server.directory or "", named)
    return not (files.all_there or files.exists(path))


def _not_capped(plan: Plan, seen: Seen) -> Assessment:  # noqa: PLR0911 - one reason after the other
    """Return the assessment of a server without a cap, if a rule holds or may hold."""
    server, result = plan.server, plan.decisive
    codes = {warning.code for warning in plan.warnings}
    if server is None:
        if NO_SERVER.code in codes:
            return Assessment(UNKNOWN, NO_SERVER.code, plan.reason)
        return Assessment(NOT_NEEDED, "no-engine", plan.reason)
    if seen.changed:
        return _changed(seen.changed)
    if result is None:
        if "config-unreadable" in codes:
            return Assessment(UNKNOWN, "config-not-read", plan.reason, unread=(CONFIG,))
        return Assessment(UNKNOWN, "command-not-understood", plan.reason)
    if plan.vllm_version is None:
        return _by_release(plan, server, seen.files)
    if result.holds is None:
        return _settings_not_known(plan)
    if seen.value_unread:
        reason = f"{plan.reason}; the value of {VARIABLE} is not known"
        return Assessment(UNKNOWN, "value-not-known", reason, unread=(VARIABLE,))
    conf = (CONF_FILE,) if _names_unread_conf(server, seen.files) else ()
    if seen.unread or conf:
        reason = f"{plan.reason}; {VARIABLE} may be set in what could not be read"
        return Assessment(UNKNOWN, "environment-not-read", reason, unread=conf)
    given = f"{VARIABLE} is not set"
    if plan.current is not None:
        given = f"the value of {VARIABLE} is not a valid limit"
    reason = f"{plan.reason}: it can hang, and {given}"
    return Assessment(EXPOSED, "no-limit", reason)


def _by_release(plan: Plan, server: Server, files: Files) -> Assessment:
    """Return the assessment of a server without a cap, if its release is not known."""
    found = dict(_hangs_in(plan, server, files))
    if not found:
        reason = (
            "no known release of vLLM can hang with these settings: a condition does not hold, "
            "or its workers set the cap themselves"
        )
        return Assessment(NOT_NEEDED, "not-needed", reason)
    if True not in found.values():
        return _settings_not_known(plan)
    hangs = " and ".join(
        f"{_ranges([since for since, state in found.items() if state is holds])} {does}"
        for holds, does in _HANGS.items()
        if holds in found.values()
    )
    return Assessment(
        UNKNOWN, "release-not-known", f"{plan.reason}; {hangs}", unread=("the vLLM release",)
    )


def _hangs_in(plan: Plan, server: Server, files: Files) -> Iterator[tuple[int, bool | None]]:
    """Yield each release 0.N in which a server without a cap hangs (True), or may hang (None)."""
    void = any(set(ANYBODY) == set(warning.voids) for warning in plan.warnings)
    for since in CHANGES:
        version = f"0.{since}"
        release = release_of(version)
        if not release.rules or (release.own_rule and not void):
            continue
        try:
            settings, _ = settings_of(server, release, version, plan.settings["nixl"], files)
        except RefusedError:
            continue
        holds = {result.holds for result in evaluate(release, settings)}
        if holds != {False}:
            yield since, True if True in holds else None


def _ranges(wanted: Collection[int]) -> str:
    """Return the releases of these rows of CHANGES: "0.12 to 0.15, 0.33 and later"."""
    ranges = []
    first = None
    for since in (*CHANGES, None):
        if first is not None and since not in wanted:
            last = since and since - 1
            until = "" if last == first else f" to 0.{last}" if last else " and later"
            ranges.append(f"0.{first}{until}")
            first = None
        elif first is None and since in wanted:
            first = since
    return ", ".join(ranges)


def _settings_not_known(plan: Plan) -> Assessment:
    conditions = plan.decisive.conditions if plan.decisive else ()
    unknown = tuple(condition.text for condition in conditions if condition.holds is None)
    return Assessment(UNKNOWN, "settings-not-known", plan.reason, unread=unknown)


def _changed(what: str) -> Assessment:
    reason = f"{what} was changed after the server had started: what the server read is not known"
    return Assessment(UNKNOWN, "changed-since-start", reason)
