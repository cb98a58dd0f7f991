"""From a command and an environment to a Plan: what to set, why, and what to warn about.

Pure: it prints and starts nothing, and looks at neither `os.environ` nor `sys.argv`. It reads files
(the --config file, the names of installed packages) only through `files`.
"""

from __future__ import annotations

import os

from eplb_launch.entrypoints import OWN_OPTIONS, find_by_name
from eplb_launch.files import DISK
from eplb_launch.launch_options import NAMES, check_command, check_options
from eplb_launch.model import DOES_NOT_FIT, UNKNOWN, PlanWarning, Record, cut
from eplb_launch.vllm.arguments import PLACEMENT, RefusedError, read
from eplb_launch.vllm.installed import Installed, look_up
from eplb_launch.vllm.releases import (
    CAP,
    UNKNOWN_RELEASE,
    VARIABLE,
    Release,
    evaluate,
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

    Settings = Mapping[str, Setting]

_GPUS = "/proc/driver/nvidia/gpus"
# Variables that `nccl.cases` reads, by how their names start.
_CHECKED = (
    *("NCCL_MAX_", "NCCL_MIN_", "NCCL_CONF_FILE", "NCCL_ENV_PLUGIN"),
    "VLLM_BATCH_INVARIANT",
)
NO_SERVER = PlanWarning(
    "no-server",
    "no vLLM server seen in the command; nothing set",
    "put eplb-launch in front of `vllm serve` itself",
)


def no_server(unread: Sequence[str]) -> PlanWarning:
    """Return the warning that the command has no server, with the scripts that were not read."""
    said = [text if text.isprintable() else ascii(text) for text in unread]
    return NO_SERVER.replace(message="; ".join((NO_SERVER.message, *map(cut, said))))


class Plan(Record):
    """What the launcher decides for one command. It starts nothing by itself."""

    command: tuple[str, ...]
    server: Server | None  # the vLLM server in the command; None: no server was found
    vllm_version: str | None  # of the release that will run; None: not known
    vllm_source: str  # where the version was found, or why it was not
    settings: Settings  # by name; empty without a server, or if vLLM refuses its arguments
    results: tuple[RuleResult, ...]  # of each rule of that release, with its conditions
    current: str | None  # NCCL_MAX_CTAS that the server gets without us; None: unset
    variables: tuple[tuple[str, str], ...]  # what to set, on top of the environment
    reason: str  # the decision in one sentence
    warnings: tuple[PlanWarning, ...] = ()
    notes: tuple[PlanWarning, ...] = ()  # for `explain`: they need no action
    given: Mapping[str, Given] = {}  # all options that were read, by setting
    ctas: int | None = None  # the most that NCCL takes, as far as is known; None: not looked at
    release: Release = UNKNOWN_RELEASE  # the row of `vllm_version`
    sms: int | None = None  # of the GPU, if they were given
    beside: tuple[Row, ...] = ()  # for `explain`: how NCCL and DeepEP share each GPU

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


class Request(Record):
    """What `plan` is asked, besides the command. See there."""

    environ: Mapping[str, str]
    vllm_version: str | None = None
    nixl: bool | None = None
    directory: str | None = None
    files: Files = DISK
    max_ctas: int | Literal["fit"] = CAP
    sms: int | None = None


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
    """Decide whether NCCL needs a limit for `command`, started with `environ`.

    `vllm_version` is the release that will run ("0.16.0"), and `nixl` says whether NIXL is
    installed for it; None looks at what is installed. The command runs in `directory`, or in the
    current one, and finds `files` there. `max_ctas` is the cap to set, 1 to 64, or "fit": the
    largest cap that fits beside DeepEP's kernels, on a GPU with `sms` SMs, or on the GPUs of this
    machine. If vLLM refuses the arguments, or the --config file cannot be read, the plan has a
    warning.
    """
    check_options(vllm_version, max_ctas, sms)
    words = check_command(command)
    found = find_by_name(words, environ)
    if found is None:
        from eplb_launch.command import look

        found = look(words, environ, files, directory)
    server, idle, unread = found
    if server is None:
        why = "the vLLM command starts no engine" if idle else "no vLLM server seen in the command"
        warnings = () if idle and not unread else (no_server(unread),)
        decided = Plan(words, None, vllm_version, "", {}, (), None, (), why, warnings)
        return decided.replace(release=release_of(vllm_version))
    request = Request(environ, vllm_version, nixl, directory, files, max_ctas, sms)
    decided = plan_for(server, words, request)
    # All servers of a script get the same environment: the cap is set if any of them needs it.
    for other in server.others:
        if decided.variables and not stays(other.environ.get(VARIABLE)):
            continue  # it gets the cap, too
        another = plan_for(other, words, request)
        if another.decisive is None:
            continue
        if another.variables or decided.decisive is None:
            decided, another = another, decided
        more = tuple(one for one in another.warnings if one not in decided.warnings)
        decided = decided.replace(warnings=decided.warnings + more)
    return decided


def plan_for(server: Server, words: tuple[str, ...], request: Request) -> Plan:
    """Decide as `plan` does, for one server of a command."""
    files, directory = request.files, request.directory
    if directory is not None:
        server = server.replace(
            directory=os.path.join(directory, server.directory or ""),
            written=tuple((os.path.join(directory, path), text) for path, text in server.written),
        )
    version, source, nixl = _installed(server, request)
    release = release_of(version)
    current = server.environ.get(VARIABLE)
    decided = Plan(words, server, version, source, {}, (), current, (), "")
    decided = decided.replace(release=release, sms=request.sms)
    # A file that a script has written may change unseen: it can only show that a server may hang.
    unread = server.replace(written=tuple((path, UNKNOWN) for path, _ in server.written))
    ways = (server, unread) if server.written else (server,)
    for way in ways:
        try:
            settings, given = settings_of(way, release, version, nixl, files)
        except RefusedError as error:
            if way is not ways[-1]:
                continue
            warning = PlanWarning(error.code, str(error), error.remedy)
            return decided.replace(reason=str(error), warnings=(warning,))
        results = evaluate(release, settings)
        if any(result.holds for result in results):
            break
    decided = decided.replace(settings=settings, results=results, given=given)
    result = decided.decisive
    if result is None:
        return decided.replace(reason=_why_not(decided))
    cap = request.max_ctas
    if cap == "fit":
        from eplb_launch.deepep.cap import fit

        cap, trouble = fit(decided, files)
        decided = decided.replace(warnings=trouble)
    reason = _why(result, decided, server)
    if stays(current):
        decided = decided.replace(reason=f"{VARIABLE} is set already ({reason})")
    else:
        decided = decided.replace(reason=reason, variables=((VARIABLE, str(cap)),))
    if _needs_checks(decided, server, cap, files):
        from eplb_launch.nccl.cases import advise

        decided = advise(decided, request.environ, cap=cap, files=files, directory=directory)
    else:
        decided = decided.replace(ctas=cap)
    if not request.sms and not files.exists(_GPUS):  # nothing says which GPU it is
        return decided
    from eplb_launch.deepep import cap as fitting

    return fitting.advise(decided, files)


def _needs_checks(decided: Plan, server: Server, cap: int, files: Files) -> bool:
    """Whether `nccl.cases` has something to read; importing it would slow down each start."""
    if cap & (cap - 1) or cap > CAP or not PLACEMENT.isdisjoint(decided.given):
        return True
    if server.remote or not server.hands_on:
        return True
    if any(one.drops or one.sets or one.user or one.name in NAMES for one in server.wrappers):
        return True
    if any(name.startswith(_CHECKED) for name in server.environ):
        return True
    homes = {server.environ.get("HOME"), files.home()}
    return any(
        files.exists(place + name)
        for place in ("/etc/", *(f"{home}/." for home in homes if home))
        for name in ("nccl.conf", "rccl.conf")
    )


def _installed(server: Server, request: Request) -> tuple[str | None, str, Setting]:
    """Return the release that will run, where that was found, and the setting "nixl"."""
    version, nixl = request.vllm_version, request.nixl
    if version is not None and nixl is not None:
        found = Installed(None, "", None)
    elif server.release:
        found = Installed(server.release, "the package that the command asks for", None)
    elif server.remote:
        found = Installed(None, f"the command runs elsewhere ({server.remote})", None)
    elif any(wrapper.python for wrapper in server.wrappers):
        from eplb_launch.command.python_env import look_up_behind_runner

        found = look_up_behind_runner(server, request.files)
    else:
        found = look_up(server.program, server.environ, server.directory, request.files)
    setting = Setting("nixl", nixl, "given")
    if nixl is None:
        source = found.nixl_source or found.source
        setting = Setting("nixl", found.nixl, source, known=found.nixl is not None)
    if version is not None:
        return version, "given", setting
    # The name of a folder says the version, and may be very long.
    return found.version and cut(found.version), found.source, setting


def settings_of(
    server: Server, release: Release, version: str | None, nixl: Setting, files: Files
) -> tuple[dict[str, Setting], Mapping[str, Given]]:
    """Return the settings of a server by name, and the options that were read; or RefusedError."""

    def load_config(name: str) -> Mapping[object, Any] | None:
        if UNKNOWN in name or server.remote:
            return None
        from eplb_launch.vllm.config_file import load

        path = os.path.join(server.directory or "", name)
        text = dict(server.written).get(os.path.normpath(path))
        if text is not None:
            from eplb_launch.files import InMemory

            return None if UNKNOWN in text else load("/written", InMemory({"/written": text}))
        in_a_script = server.script or any(one.name == "sh" for one in server.wrappers)
        if files.all_there and in_a_script and not files.exists(path):
            return None  # the script may write it first
        return load(path, files)

    reading = read(server, release, load_config, OWN_OPTIONS.get(server.entry, ()))
    default = f"default of vLLM {version}" if version else "default"
    settings = resolve(reading, release, server.environ, nixl=nixl, default=default)
    return settings, reading.given


def _why(result: RuleResult, decided: Plan, server: Server) -> str:
    size, version = decided.settings["data_parallel_size"], decided.vllm_version
    shown = f"={size.value}" if size.known else " not known"
    release = f"vLLM {version}" if version else "vLLM release not known"
    unknown = [condition.text for condition in result.conditions if condition.holds is None]
    doubt = f"; cannot be ruled out: {', '.join(unknown)}" if unknown else ""
    if not unknown and not server.args_known:
        words = ", ".join(server.unknown[:3]) or "some words"
        doubt = f"; {words} not known, and a later word could undo it"
    return f"{result.rule.hazard} (data_parallel_size{shown}, {release}){doubt}"


def _why_not(decided: Plan) -> str:
    if not decided.results:
        return f"vLLM {decided.vllm_version} has no async EPLB"
    hazards: dict[str, list[str]] = {}  # by the condition that does not hold
    for result in decided.results:
        missing = next(c for c in result.conditions if c.holds is False)
        setting = decided.settings[missing.setting]
        value = f"{setting.name}={setting.shown}, {cut(setting.source)}"
        why = f"{missing.text} does not hold ({value})"
        hazards.setdefault(why, []).append(result.rule.hazard)
    if len(hazards) == 1:
        return next(iter(hazards))
    return "; ".join(f"no {' or '.join(names)}: {why}" for why, names in hazards.items())
