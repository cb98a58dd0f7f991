"""From a Plan to an Assessment: can this server hang, or who keeps it from that? Pure.

Every sub-command renders an Assessment; none compares values or looks up a release's rule again.
"""

from __future__ import annotations

import os

from eplb_launch.files import DISK
from eplb_launch.model import ANYBODY, ENVIRONMENT, FILE, LAUNCHER, VLLM, Record, cut
from eplb_launch.model import UNKNOWN as UNREADABLE
from eplb_launch.nccl.variables import CONF_FILE, MIN_P2P, MINIMA, NAMES, channels, limit
from eplb_launch.plans import NO_SERVER, settings_of
from eplb_launch.vllm.arguments import RefusedError
from eplb_launch.vllm.releases import CAP, CHANGES, VARIABLE, judge, release_of, stays

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

# What may be another one now than the server found at its start: `changed` of `assess`.
PACKAGE = "vLLM"
CONFIG = "the --config file"

# The same in every release: they can say that no rule holds where the release is not known.
_ALWAYS = ("data_parallel_size", "enable_eplb")
# With a high value, they make a cap void.
_DEFEATS = (*MINIMA, MIN_P2P)
# What settles an assessment that is unknown, by its cause.
_SETTLES = {
    "release-not-known": "say which release it is with --vllm-version X.Y.Z",
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
    cause: str  # stable, for programs
    reason: str  # one sentence, for people
    value: str | None = None  # CAPPED: NCCL_MAX_CTAS
    by: str | None = None  # CAPPED: by whom, see `model.ANYBODY`
    unread: tuple[str, ...] = ()  # UNKNOWN: what is not known
    deciding: tuple[str, ...] = ()  # the names of the settings that it rests on
    warnings: tuple[PlanWarning, ...] = ()  # those of the plan that count here

    @property
    def settles(self) -> str:
        """What would settle it, if it is unknown; "" if nothing is known to."""
        remedies = {warning.code: warning.remedy for warning in self.warnings}
        known = _SETTLES.get(self.cause) or remedies.get(self.cause, "")
        return known if self.state == UNKNOWN else ""


def assess(
    plan: Plan,
    *,
    launched: bool = True,
    files: Files = DISK,
    environ: Mapping[str, str] | None = None,
    unread: bool = False,
    value_unread: bool = False,
    ray_capped: bool | None = None,
    changed: str = "",
) -> Assessment:
    """Return whether the server of a plan can hang.

    `launched`: the launcher starts it, and sets what the plan says; else nothing sets that.
    `environ`: the environment of a process that is not known to be a server. `unread`: a part of
    the environment could not be read. `value_unread`: NCCL_MAX_CTAS is set to a value that is not
    known. `ray_capped`: whether its Ray workers have NCCL_MAX_CTAS as the server has it, None: not
    known. `changed`: PACKAGE or CONFIG, if it is not any more as the server found it.
    """
    result = plan.decisive
    value, by = _cap(plan, environ or {}, launched=launched)
    if result is None and plan.settings:
        found = _not_needed(plan, changed)
    elif by and not (changed and by == VLLM):
        found = _capped(plan, value, by, files, ray_capped=ray_capped)
    else:
        found = _not_capped(plan, files, unread=unread, value_unread=value_unread, changed=changed)
    if result is not None:
        settings = (condition.setting for condition in result.conditions)
        found = found.replace(deciding=tuple(dict.fromkeys(settings)))
    warnings = (
        warning
        for warning in plan.warnings
        if launched or not warning.launch_only or by in warning.voids
    )
    return found.replace(warnings=tuple(warnings))


def _cap(plan: Plan, environ: Mapping[str, str], *, launched: bool) -> tuple[str, str]:
    """Return the cap that there is and who sets it, whether it holds or not; "" twice for none."""
    if launched and plan.variables:
        return plan.environment[VARIABLE], LAUNCHER
    if not plan.settings:
        return _by_environment(plan.server.environ if plan.server else environ)
    current, own_rule = plan.current or "", plan.release.own_rule
    # "0x8": vLLM's rule would replace it, but there is none.
    read_by_nccl = UNREADABLE not in current and limit(current) is not None
    if stays(current) or (read_by_nccl and not own_rule):
        return current, ENVIRONMENT
    if own_rule:
        return str(CAP), VLLM
    if not plan.variables:
        return str(plan.ctas), FILE
    return "", ""


def _by_environment(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the cap by the environment alone, of a server of which nothing else is known."""
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


def _capped(
    plan: Plan, value: str, by: str, files: Files, *, ray_capped: bool | None
) -> Assessment:
    """Return the assessment where there is a cap, which may not hold."""
    value = cut(value)
    sure = plan.decisive is not None and plan.decisive.holds
    for warning in plan.warnings:
        void = by in warning.voids or (by in warning.doubts and ray_capped is False)
        if void or (by in warning.doubts and ray_capped is None):
            does = "does" if void else "may"
            reason = f"{plan.reason}, and the cap {does} not hold: {warning.code}"
            return Assessment(EXPOSED if sure and void else UNKNOWN, warning.code, reason)
    doubtful = _doubtful(plan.server, files)
    if doubtful:
        reason = f"{plan.reason}; {doubtful} may make the cap void, and is not known"
        return Assessment(UNKNOWN, "limit-not-known", reason, unread=(doubtful,))
    if by == LAUNCHER:
        reason = f"eplb-launch sets {VARIABLE}={value}: {plan.reason}"
    elif by == VLLM:
        reason = f"the workers of vLLM {plan.vllm_version} set {VARIABLE}={value}: {plan.reason}"
    elif not plan.settings:
        reason = f"{VARIABLE}={value} is set, whatever its settings are"
    elif by == ENVIRONMENT and plan.variables:
        reason = f"{VARIABLE} is set already ({plan.reason})"
    else:
        reason = plan.reason
    return Assessment(CAPPED, by.lower().replace(" ", "-"), reason, value, by)


def _doubtful(server: Server | None, files: Files) -> str:
    """Return what could make a cap void and is not known; "" for nothing."""
    environ = server.environ if server else {}
    for name in _DEFEATS:
        if UNREADABLE in (environ.get(name) or ""):
            return name
    return _conf_file(server, files)


def _conf_file(server: Server | None, files: Files) -> str:
    """Return the conf file of NCCL's that is named and cannot be looked at; "" for none."""
    named = (server.environ.get(CONF_FILE) or "") if server else ""
    if not named or not server:
        return ""
    path = os.path.join(server.directory or "", named)
    known = UNREADABLE not in named and (files.all_there or files.exists(path))
    return "" if known else CONF_FILE


def _not_capped(  # noqa: PLR0911 - one reason after the other
    plan: Plan, files: Files, *, unread: bool, value_unread: bool, changed: str
) -> Assessment:
    """Return the assessment where a rule holds, or may hold, and there is no cap."""
    if plan.server is None:
        if any(warning.code == NO_SERVER.code for warning in plan.warnings):
            return Assessment(UNKNOWN, NO_SERVER.code, plan.reason)
        return Assessment(NOT_NEEDED, "no-engine", plan.reason)
    if changed:
        return _changed(changed)
    result = plan.decisive
    if result is None:
        if any(warning.code == "config-unreadable" for warning in plan.warnings):
            return Assessment(
                UNKNOWN, "config-not-read", plan.reason, unread=("the --config file",)
            )
        return Assessment(UNKNOWN, "command-not-understood", plan.reason)
    if plan.vllm_version is None:
        return _by_release(plan, plan.server, files)
    if result.holds is None:
        return _settings_not_known(plan)
    if value_unread:
        reason = f"{plan.reason}; the value of {VARIABLE} is not known"
        return Assessment(UNKNOWN, "value-not-known", reason, unread=(VARIABLE,))
    if unread or _conf_file(plan.server, files):
        reason = f"{plan.reason}; {VARIABLE} may be set in what could not be read"
        named = _conf_file(plan.server, files)
        return Assessment(UNKNOWN, "environment-not-read", reason, unread=(named,) if named else ())
    given = "is not set" if plan.current is None else "is no limit as it stands"
    reason = f"{plan.reason}: it can hang, and {VARIABLE} {given}"
    return Assessment(EXPOSED, "no-limit", reason)


def _by_release(plan: Plan, server: Server, files: Files) -> Assessment:
    """Return the assessment where it is not known which release runs, and nothing is set."""
    found = dict(_hangs_in(plan, server, files))
    if not found:
        reason = (
            "no known release of vLLM can hang with these settings: a condition does not hold, "
            "or its workers limit NCCL themselves"
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
    """Yield the releases 0.N that hang with a server, or that may (None), if nothing is set."""
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
        holds = [result.holds for result in judge(release, settings)]
        if any(holds):
            yield since, True
        elif None in holds:
            yield since, None


def _ranges(wanted: Collection[int]) -> str:
    """Return the releases of some rows of CHANGES: "0.12 to 0.15, 0.33 and later"."""
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
    reason = f"{what} was changed after the server had started: what it has read is not known"
    return Assessment(UNKNOWN, "changed-since-start", reason)
