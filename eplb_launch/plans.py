"""From a command and an environment to a Plan: what to set, why, and what to warn about.

Pure: nothing is printed or executed, `os.environ` and `sys.argv` are not looked at. What is read
is the file that the command's --config names, and which packages are installed for it.
"""

from __future__ import annotations

import os

from eplb_launch.arguments import RefusedError, read
from eplb_launch.command import UNKNOWN, find_server
from eplb_launch.installed import Installed, look_up
from eplb_launch.record import Record
from eplb_launch.releases import minor_release, release_of
from eplb_launch.rules import judge
from eplb_launch.settings import Setting, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from eplb_launch.command import Server
    from eplb_launch.releases import Release
    from eplb_launch.rules import Verdict

VARIABLE = "NCCL_MAX_CTAS"
# vLLM's value (override_envs_for_eplb): enough for the weight exchange, few enough for DeepEP.
MAX_CTAS = 8


class PlanWarning(Record):
    """Something that a person should know about a command."""

    code: str  # stable, for programs
    message: str
    remedy: str


class Plan(Record):
    """What the launcher decides for one command. It runs nothing by itself."""

    command: tuple[str, ...]
    server: Server | None  # the vLLM server in the command; None: there is none to be seen
    vllm_version: str | None  # of the release that will run; None: not known
    vllm_source: str  # how it was found, or why not
    settings: Mapping[str, Setting]  # by name; empty where there is no server or it is unreadable
    verdicts: tuple[Verdict, ...]  # the rules of that release, with their conditions
    current: str | None  # NCCL_MAX_CTAS as the server would have it; None: unset
    variables: tuple[tuple[str, str], ...]  # what to set, on top of the environment
    reason: str  # the decision in one sentence
    warnings: tuple[PlanWarning, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What to set on top of the environment: {"NCCL_MAX_CTAS": "8"} or {}."""
        return dict(self.variables)

    @property
    def verdict(self) -> Verdict | None:
        """The rule that decides: one that holds, else one that cannot be ruled out, else None."""
        for wanted in (True, None):
            for verdict in self.verdicts:
                if verdict.holds is wanted:
                    return verdict
        return None


def plan(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    vllm_version: str | None = None,
    nixl: bool | None = None,
) -> Plan:
    """Decide for `command`, started with `environ`, whether NCCL has to be limited.

    `vllm_version` is the release that will run ("0.16.0"), and `nixl` whether NIXL is installed for
    it; None: look at what is installed. Trouble with the command (a --config file that cannot be
    read, arguments that vLLM refuses) becomes a warning of the plan, not an error.
    """
    words = tuple(command)
    server = find_server(words, environ)
    if server is None:
        return Plan(
            words, None, vllm_version, "", {}, (), None, (), "no vLLM server in the command"
        )
    version, source, nixl_setting = _installed(server, vllm_version=vllm_version, nixl=nixl)
    release = release_of(version)
    current = server.environ.get(VARIABLE)
    decided = Plan(words, server, version, source, {}, (), current, (), "")
    try:
        found = _settings(server, release, version, nixl_setting)
    except RefusedError as error:
        warning = PlanWarning(error.code, str(error), error.remedy)
        return decided.replace(reason=str(error), warnings=(warning,))
    verdicts = judge(release, found)
    decided = decided.replace(settings=found, verdicts=verdicts)
    verdict = decided.verdict
    if verdict is None:
        return decided.replace(reason=_why_not(verdicts, found, version))
    reason = _why(verdict, found, version)
    if current and current.isdigit():
        return decided.replace(reason=f"{VARIABLE} is set already ({reason})")
    return decided.replace(variables=((VARIABLE, str(MAX_CTAS)),), reason=reason)


def _installed(
    server: Server, *, vllm_version: str | None, nixl: bool | None
) -> tuple[str | None, str, Setting]:
    """Return the release that will run, how it was found, and the setting "nixl"."""
    if vllm_version is not None and nixl is not None:
        found = Installed(None, "", None)
    elif server.elsewhere:
        found = Installed(None, f"the command runs elsewhere ({server.elsewhere})", None)
    else:
        found = look_up(server.program, server.environ, server.directory)
    setting = Setting("nixl", nixl, "given")
    if nixl is None:
        source = found.nixl_source or found.source
        setting = Setting("nixl", found.nixl, source, known=found.nixl is not None)
    if vllm_version is not None:
        return vllm_version, "given", setting
    return found.version, found.source, setting


def _settings(
    server: Server, release: Release, version: str | None, nixl: Setting
) -> dict[str, Setting]:
    def load_config(name: str) -> Mapping[object, Any] | None:
        if UNKNOWN in name or server.elsewhere:
            return None
        from eplb_launch.config_file import load

        return load(os.path.join(server.directory or "", name))

    reading = read(
        [argument.text for argument in server.arguments],
        [argument.position for argument in server.arguments],
        release,
        minor_release(version) if version else None,
        serve=server.entry == "vllm serve",
        load_config=load_config,
    )
    if not server.complete:
        reading = reading.replace(complete=False)
    default = f"default of vLLM {version}" if version else "default"
    return resolve(reading, release, server.environ, nixl=nixl, default=default)


def _why(verdict: Verdict, found: Mapping[str, Setting], version: str | None) -> str:
    size = found["data_parallel_size"]
    shown = f"={size.value}" if size.known else " not known"
    release = f"vLLM {version}" if version else "vLLM release not known"
    unknown = [condition.text for condition in verdict.conditions if condition.holds is None]
    doubt = f"; cannot be ruled out: {', '.join(unknown)}" if unknown else ""
    return f"{verdict.rule.hazard} (data_parallel_size{shown}, {release}){doubt}"


def _why_not(
    verdicts: tuple[Verdict, ...], found: Mapping[str, Setting], version: str | None
) -> str:
    if not verdicts:
        return f"vLLM {version} has no async EPLB"
    reasons = []
    for verdict in verdicts:
        missing = next(c for c in verdict.conditions if c.holds is False)
        setting = found[missing.setting]
        reasons.append(
            f"no {verdict.rule.hazard}: {missing.text} does not hold "
            f"({setting.name}={setting.value}, {setting.source})"
        )
    return "; ".join(reasons)
