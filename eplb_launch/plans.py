"""From a command and an environment to a Plan: what to set, why, and what to warn about.

Pure: nothing is printed or executed, `os.environ` and `sys.argv` are not looked at. What is read
-- the file that --config names, which packages are installed -- is read through `files`.
"""

from __future__ import annotations

import os

from eplb_launch.entrypoints import OWN_OPTIONS, find_by_name
from eplb_launch.files import DISK
from eplb_launch.launch_options import NAMES, check_cap, check_version
from eplb_launch.model import DOES_NOT_FIT, UNKNOWN, PlanWarning, Record, cut
from eplb_launch.vllm.arguments import PLACEMENT, RefusedError, read
from eplb_launch.vllm.installed import Installed, look_up
from eplb_launch.vllm.releases import (
    CAP,
    UNKNOWN_RELEASE,
    VARIABLE,
    Release,
    judge,
    release_of,
    stays,
)
from eplb_launch.vllm.settings import Setting, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from eplb_launch.deepep.cap import Row
    from eplb_launch.files import Files
    from eplb_launch.model import Server
    from eplb_launch.vllm.arguments import Given
    from eplb_launch.vllm.releases import RuleResult

_GPUS = "/proc/driver/nvidia/gpus"
# With none of them, and no conf file of NCCL's, nothing in `nccl` has to be asked.
_TELLING = (
    *("NCCL_MAX_", "NCCL_MIN_", "NCCL_CONF_FILE", "NCCL_ENV_PLUGIN"),
    "VLLM_BATCH_INVARIANT",
)


NO_SERVER = PlanWarning(
    "no-server",
    "no vLLM server seen in the command; nothing set",
    "put eplb-launch in front of `vllm serve` itself",
)


def no_server(unread: Sequence[str]) -> PlanWarning:
    """Return the warning that none was seen, with the scripts that were not read."""
    said = [text if text.isprintable() else ascii(text) for text in unread]
    message = "; ".join((NO_SERVER.message, *map(cut, said)))
    return NO_SERVER.replace(message=message)


class Plan(Record):
    """What the launcher decides for one command. It runs nothing by itself."""

    command: tuple[str, ...]
    server: Server | None  # the vLLM server in the command; None: there is none to be seen
    vllm_version: str | None  # of the release that will run; None: not known
    vllm_source: str  # how it was found, or why not
    settings: Mapping[str, Setting]  # by name; empty where there is no server or it is unreadable
    results: tuple[RuleResult, ...]  # of each rule of that release, with its conditions
    current: str | None  # NCCL_MAX_CTAS as the server would have it; None: unset
    variables: tuple[tuple[str, str], ...]  # what to set, on top of the environment
    reason: str  # the decision in one sentence
    warnings: tuple[PlanWarning, ...] = ()
    notes: tuple[PlanWarning, ...] = ()  # for `explain`: nothing to be done about them here
    given: Mapping[str, Given] = {}  # by setting, those that no rule looks at included
    ctas: int | None = None  # the most that NCCL may take, so far as is seen; None: not looked at
    release: Release = UNKNOWN_RELEASE  # the row of `vllm_version`
    sms: int | None = None  # of the GPU, as given; None: look which one it is
    beside: tuple[Row, ...] = ()  # how GPUs are shared with DeepEP; for `explain`

    @property
    def environment(self) -> dict[str, str]:
        """What to set on top of the environment: {"NCCL_MAX_CTAS": "8"} or {}."""
        return dict(self.variables)

    @property
    def unfit(self) -> tuple[PlanWarning, ...]:
        """The note that the cap may not fit, if there is one."""
        return tuple(note for note in self.notes if note.code == DOES_NOT_FIT)

    @property
    def decisive(self) -> RuleResult | None:
        """The rule that decides: one that holds, else one that may hold, else None."""
        for wanted in (True, None):
            for result in self.results:
                if result.holds is wanted:
                    return result
        return None


def plan(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    vllm_version: str | None = None,
    nixl: bool | None = None,
    directory: str | None = None,
    files: Files = DISK,
    max_ctas: int | Literal["fit"] = CAP,
    sms: int | None = None,
) -> Plan:
    """Decide for `command`, started with `environ`, whether NCCL has to be limited.

    `vllm_version` is the release that will run ("0.16.0"), and `nixl` whether NIXL is installed for
    it; None: look at what is installed. `directory` is where the command runs, if not here, and
    `files` are those that it finds there. `max_ctas` is what to set, 1 to 64, or "fit": the most
    that fits beside DeepEP's kernels, on a GPU with `sms` SMs or on those that are there. Trouble
    with the command (a --config file that cannot be read, arguments that vLLM refuses) becomes a
    warning of the plan, not an error.
    """
    check_cap(max_ctas, sms)
    check_version(vllm_version)
    if isinstance(command, (str, bytes)):
        raise TypeError("a command is a sequence of words, not one string")
    words = tuple(command)
    for number, word in enumerate(words, 1):
        if not isinstance(word, str):
            raise TypeError(f"word {number} of the command is no string: {type(word).__name__}")
    found = find_by_name(words, environ)
    if found is None:
        from eplb_launch.command import look

        found = look(words, environ, files, directory)
    server, idle, unread = found
    if server is None:
        reason = "no vLLM server seen in the command"
        if idle:
            reason = "the vLLM command starts no engine"
        decided = Plan(words, None, vllm_version, "", {}, (), None, (), reason)
        decided = decided.replace(release=release_of(vllm_version))
        return decided if idle and not unread else decided.replace(warnings=(no_server(unread),))

    def decide(server: Server) -> Plan:
        return plan_for(
            server,
            words,
            environ,
            vllm_version=vllm_version,
            nixl=nixl,
            directory=directory,
            files=files,
            max_ctas=max_ctas,
            sms=sms,
        )

    decided = decide(server)
    # A script may start several, or one of several: all of them get the same environment.
    for other in server.others if decided.decisive is None else ():
        another = decide(other)
        if another.decisive is not None:
            return another
    return decided


def plan_for(
    server: Server,
    words: tuple[str, ...],
    environ: Mapping[str, str],
    *,
    vllm_version: str | None = None,
    nixl: bool | None = None,
    directory: str | None = None,
    files: Files = DISK,
    max_ctas: int | Literal["fit"] = CAP,
    sms: int | None = None,
) -> Plan:
    """Decide as `plan` does, for one server of a command."""
    if directory is not None:
        server = server.replace(
            directory=os.path.join(directory, server.directory or ""),
            written=tuple((os.path.join(directory, path), text) for path, text in server.written),
        )
    version, source, nixl_setting = _installed(
        server, vllm_version=vllm_version, nixl=nixl, files=files
    )
    release = release_of(version)
    current = server.environ.get(VARIABLE)
    decided = Plan(
        words, server, version, source, {}, (), current, (), "", release=release, sms=sms
    )
    # What a script has written may be changed out of sight: it shows only that a server may hang.
    unread = server.replace(written=tuple((path, UNKNOWN) for path, _ in server.written))
    ways = (server, unread) if server.written else (server,)
    for way in ways:
        try:
            found, given = settings_of(way, release, version, nixl_setting, files)
        except RefusedError as error:
            if way is not ways[-1]:
                continue
            warning = PlanWarning(error.code, str(error), error.remedy)
            return decided.replace(reason=str(error), warnings=(warning,))
        results = judge(release, found)
        if any(result.holds for result in results):
            break
    decided = decided.replace(settings=found, results=results, given=given)
    result = decided.decisive
    if result is None:
        return decided.replace(reason=_why_not(results, found, version))
    reason = _why(result, found, version, server)
    cap, trouble = _cap(decided, max_ctas, files)
    decided = decided.replace(variables=((VARIABLE, str(cap)),), reason=reason, warnings=trouble)
    if stays(current):
        decided = decided.replace(variables=(), reason=f"{VARIABLE} is set already ({reason})")
    if _nothing_in_the_way(decided, server, cap, files):
        decided = decided.replace(ctas=cap)
    else:
        from eplb_launch.nccl.checks import advise

        decided = advise(decided, environ, cap=cap, files=files, directory=directory)
    if not sms and not files.exists(_GPUS):  # it would not be known which GPU it is
        return decided
    from eplb_launch.deepep import cap as fitting

    return fitting.advise(decided, files)


def _nothing_in_the_way(decided: Plan, server: Server, cap: int, files: Files) -> bool:
    """Whether there is nothing that `checks` would have to look at: it costs start-up time."""
    if cap & (cap - 1) or cap > CAP or not PLACEMENT.isdisjoint(decided.given):
        return False
    if not _harmless(server):
        return False
    if any(name.startswith(_TELLING) for name in server.environ):
        return False
    homes = {server.environ.get("HOME"), files.home()}
    return not any(
        files.exists(place + name)
        for place in ("/etc/", *(f"{home}/." for home in homes if home))
        for name in ("nccl.conf", "rccl.conf")
    )


def _harmless(server: Server) -> bool:
    """Whether what stands before a server leaves the variable alone, and starts it here as us."""
    told = any(w.drops or w.sets or w.user or w.name in NAMES for w in server.wrappers)
    return bool(server.hands_on and not (told or server.elsewhere))


def _cap(
    decided: Plan, max_ctas: int | Literal["fit"], files: Files
) -> tuple[int, tuple[PlanWarning, ...]]:
    """Return the most CTAs that there may be, and what is wrong where it cannot be told."""
    if max_ctas != "fit":
        return max_ctas, ()
    from eplb_launch.deepep.cap import fit

    return fit(decided, files)


def _installed(
    server: Server, *, vllm_version: str | None, nixl: bool | None, files: Files
) -> tuple[str | None, str, Setting]:
    """Return the release that will run, how it was found, and the setting "nixl"."""
    if vllm_version is not None and nixl is not None:
        found = Installed(None, "", None)
    elif server.release:
        found = Installed(server.release, "the package that the command asks for", None)
    elif server.elsewhere:
        found = Installed(None, f"the command runs elsewhere ({server.elsewhere})", None)
    else:
        found = _look_up(server, files)
    setting = Setting("nixl", nixl, "given")
    if nixl is None:
        source = found.nixl_source or found.source
        setting = Setting("nixl", found.nixl, source, known=found.nixl is not None)
    if vllm_version is not None:
        return vllm_version, "given", setting
    # The name of a folder says it, and may say anything.
    return found.version and cut(found.version), found.source, setting


def _look_up(server: Server, files: Files) -> Installed:
    environ = server.environ
    if server.wrappers:
        from eplb_launch.command.python_env import NotKnownError, path_of

        try:
            path = path_of(server, files)
        except NotKnownError as runner:
            return Installed(None, f"the environment of {runner} is not known", None)
        if path != environ.get("PATH", ""):
            environ = {**environ, "PATH": path}
    return look_up(server.program, environ, server.directory, files)


def _in_a_script(server: Server) -> bool:
    return bool(server.script) or any(wrapper.name == "sh" for wrapper in server.wrappers)


def settings_of(
    server: Server, release: Release, version: str | None, nixl: Setting, files: Files
) -> tuple[dict[str, Setting], Mapping[str, Given]]:
    """Return the settings of a server by name, and all that it is given; or RefusedError."""

    def load_config(name: str) -> Mapping[object, Any] | None:
        if UNKNOWN in name or server.elsewhere:
            return None
        from eplb_launch.vllm.config_file import load

        path = os.path.join(server.directory or "", name)
        text = dict(server.written).get(os.path.normpath(path))
        if text is not None:
            from eplb_launch.files import InMemory

            return None if UNKNOWN in text else load("/written", InMemory({"/written": text}))
        if files.all_there and _in_a_script(server) and not files.exists(path):
            return None  # which may write it first
        return load(path, files)

    reading = read(server, release, load_config, OWN_OPTIONS.get(server.entry, ()))
    default = f"default of vLLM {version}" if version else "default"
    found = resolve(reading, release, server.environ, nixl=nixl, default=default)
    return found, reading.given


def _why(
    result: RuleResult, found: Mapping[str, Setting], version: str | None, server: Server
) -> str:
    size = found["data_parallel_size"]
    shown = f"={size.value}" if size.known else " not known"
    release = f"vLLM {version}" if version else "vLLM release not known"
    unknown = [condition.text for condition in result.conditions if condition.holds is None]
    doubt = f"; cannot be ruled out: {', '.join(unknown)}" if unknown else ""
    if not unknown and not server.complete:
        words = ", ".join(server.unknown[:3]) or "some words"
        doubt = f"; {words} not known, and a later word could undo it"
    return f"{result.rule.hazard} (data_parallel_size{shown}, {release}){doubt}"


def _why_not(
    results: tuple[RuleResult, ...], found: Mapping[str, Setting], version: str | None
) -> str:
    if not results:
        return f"vLLM {version} has no async EPLB"
    reasons: dict[str, list[str]] = {}  # the rules by what each lacks
    for result in results:
        missing = next(c for c in result.conditions if c.holds is False)
        setting = found[missing.setting]
        value = f"{setting.name}={setting.shown}, {cut(setting.source)}"
        why = f"{missing.text} does not hold ({value})"
        reasons.setdefault(why, []).append(result.rule.hazard)
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"no {' or '.join(rules)}: {why}" for why, rules in reasons.items())
