"""The Typer app: help, completion, usage errors and sub-commands. Only it imports Typer."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from eplb_launch import __version__, plan, terminal
from eplb_launch.assessment import assess
from eplb_launch.launch import LAUNCHER_FAILED, fail, run, say
from eplb_launch.launch_options import NAMES, OPTIONS, SUB_COMMANDS, with_numbers
from eplb_launch.model import printable
from eplb_launch.render.env import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from eplb_launch.plans import Plan

PROGRAM = NAMES[0]

EPILOG = """
Exit status: the status of CMD, because CMD replaces the launcher; 127 if CMD is not found; 126 if
CMD cannot be executed; 125 if --strict keeps CMD from starting, or if a sub-command fails; 2 for a
usage error.
"""


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Exit with 125 after an error. Typer would exit with 1 (exposed), and Python with 120."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # else Python does it later, and exits with 120
    except (EOFError, OSError) as error:
        fail(error)


class Group(typer.core.TyperGroup):
    """Shows the right command line if "--" is missing."""

    def make_context(self, info_name: Any, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Return the context; words of CMD are not completed."""
        if extra.get("resilient_parsing") and "--" in args:
            raise SystemExit(0)
        with _failing():
            return super().make_context(info_name, args, *rest, **extra)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Keep the words for `_dashes_missing`."""
        ctx.meta[__name__] = [*args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command."""
        with _failing():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the sub-command that `args` name, or fail and show the right command line."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            for name in difflib.get_close_matches(args[0], SUB_COMMANDS, 1):
                shown = _shown([*_words_before(ctx, args), name, *args[1:]], ctx.obj or [])
                ctx.fail(f"{args[0]!r} is not a sub-command. Did you mean: {shown}")
            _dashes_missing(ctx, args)
        return super().resolve_command(ctx, args)


def _words_before(ctx: typer.Context, args: list[str]) -> list[str]:
    """Return the words of the command line before `args`."""
    words: list[str] = ctx.meta[__name__]
    return words[: len(words) - len(args)]


def _shown(words: list[str], command: list[str]) -> str:
    """Return a command line to show: without the command's options, which may be secrets."""
    plain = [*itertools.takewhile(lambda word: word[:1] != "-" and "=" not in word, command)]
    shown = shlex.join([PROGRAM, *words, *(["--", *plain] if command else [])])
    return printable(shown) + " ..." * (plain != command)


def _dashes_missing(ctx: typer.Context, args: list[str]) -> NoReturn:
    """Fail because the words `args` belong to the command."""
    corrected = _shown(_words_before(ctx, args), [*args, *(["--", *ctx.obj] if ctx.obj else [])])
    ctx.fail(f'"--" is missing before the command. The right form is: {corrected}')


app = typer.Typer(
    name=PROGRAM,
    cls=Group,
    invoke_without_command=True,
    options_metavar="[OPTIONS]",
    subcommand_metavar="-- CMD [ARGUMENTS]...",
    rich_markup_mode=None,  # lines that can be copied, without boxes
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _option(name: str) -> Any:
    takes, text = OPTIONS[name]
    return typer.Option(name, metavar=takes or None, help=text)


def _format(names: Sequence[str], more: str = "") -> Any:
    """Return the option --format, which completes to these names."""

    def completed(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return typer.Option(
        "--format",
        metavar="FORMAT",
        autocompletion=completed,
        help=f"Print in this format: {_listed(names)}.{more}",
    )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


VllmVersion = Annotated[str | None, _option("--vllm-version")]
MaxCtas = Annotated[str | None, _option("--max-ctas")]
Sms = Annotated[str | None, _option("--sms")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: docs/json.md lists its keys.")]
NoWarning = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit with 125 if there is a warning, as a launch with --strict does."
    ),
]
NoUnknown = Annotated[
    bool, typer.Option("--strict", help="Exit with 1 also if a server is unknown.")
]


@app.callback(epilog=EPILOG)
def launch(
    ctx: typer.Context,
    *,
    strict: Annotated[bool, _option("--strict")] = False,
    quiet: Annotated[bool, _option("--quiet")] = False,
    verbose: Annotated[bool, _option("--verbose")] = False,
    vllm_version: VllmVersion = None,
    max_ctas: MaxCtas = None,
    sms: Sms = None,
    version: Annotated[  # noqa: ARG001 - its callback exits
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Start vLLM without the hang of expert-parallel load balancing.

    The launcher reads the arguments of CMD. It sets NCCL_MAX_CTAS=8 if async EPLB and cooperative
    MoE kernels could wait for each other. Then it becomes CMD: the process stays the same.
    """
    options = _values(ctx, vllm_version=vllm_version, max_ctas=max_ctas, sms=sms)
    if ctx.invoked_subcommand is not None:
        return
    if not ctx.obj:
        ctx.fail(f"There is no command to start. The right form is: {PROGRAM} -- vllm serve MODEL")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a launch may lose a line that it says
    run(ctx.obj, strict=strict, quiet=quiet, verbose=verbose, **options)


def _values(ctx: typer.Context, **given: str | None) -> dict[str, Any]:
    """Return options as `plan` takes them, or fail. They may stand before a sub-command's name."""
    before = ctx.parent.params if ctx.parent else {}
    values = {name: before.get(name) if value is None else value for name, value in given.items()}
    try:
        return with_numbers({name: value for name, value in values.items() if value is not None})
    except ValueError as error:
        ctx.fail(str(error))


def _plan(ctx: typer.Context, **given: str | None) -> Plan:
    """Return the plan for the command after "--" of a sub-command."""
    if ctx.args:
        _dashes_missing(ctx, ctx.args)
    if not ctx.obj:
        form = f"{ctx.command_path} -- vllm serve MODEL"
        ctx.fail(f"There is no command to look at. The right form is: {form}")
    return plan(ctx.obj, os.environ, **_values(ctx, **given))


def _before(ctx: typer.Context, name: str) -> bool:
    """Whether a flag stands before the name of the sub-command."""
    return bool(ctx.parent and ctx.parent.params.get(name))


# Typer does not read the options of a command without "--": the right form shows its words.
_TAKES_COMMAND: dict[str, Any] = {
    "options_metavar": "[OPTIONS] -- CMD [ARGUMENTS]...",
    "context_settings": {"allow_extra_args": True, "allow_interspersed_args": False},
}


@app.command(**_TAKES_COMMAND)
def explain(
    ctx: typer.Context,
    *,
    as_json: Json = False,
    vllm_version: VllmVersion = None,
    max_ctas: MaxCtas = None,
    sms: Sms = None,
    strict: NoWarning = False,
) -> None:
    """Show what would be set for CMD, and why.

    It lists each setting that counts, and where its value comes from. It starts nothing. It exits
    with 0 whatever the answer is, unless --strict is given.
    """
    from eplb_launch.deepep import cap
    from eplb_launch.render import explain as report

    decided = _plan(ctx, vllm_version=vllm_version, max_ctas=max_ctas, sms=sms)
    decided = cap.explain(decided)
    found = assess(decided)
    if as_json:
        typer.echo(terminal.json_text(report.as_dict(decided, found)))
    else:
        report.show(decided, found)
    if found.warnings and (strict or _before(ctx, "strict")):
        raise typer.Exit(LAUNCHER_FAILED)


@app.command(**_TAKES_COMMAND)
def env(
    ctx: typer.Context,
    *,
    format_: Annotated[str, _format([*FORMATS])] = "shell",
    vllm_version: VllmVersion = None,
    max_ctas: MaxCtas = None,
    sms: Sms = None,
    strict: NoWarning = False,
) -> None:
    """Print the variables to set for CMD.

    Use it where the launcher cannot stand in front of CMD. It starts nothing. If nothing is needed,
    it prints nothing, or the empty value of the format.
    """
    if format_ not in FORMATS:
        ctx.fail(f"--format must be one of {_listed([*FORMATS])}, not {format_!r}")
    decided = _plan(ctx, vllm_version=vllm_version, max_ctas=max_ctas, sms=sms)
    refused = decided.warnings and (strict or _before(ctx, "strict"))
    for warning in assess(decided).warnings:
        kind = "not printed (--strict)" if refused else "warning"
        say(f"{kind}: {warning.message}; {warning.remedy}")
    if refused:
        raise typer.Exit(LAUNCHER_FAILED)
    typer.echo(FORMATS[format_](decided.environment), nl=False)


PS_EPILOG = """
Exit status: 0 if no server is exposed; 1 if one is (with --strict, also if one is unknown); 2 for a
usage error; 125 if ps itself fails. With --watch it is 0.
"""


@app.command(epilog=PS_EPILOG)
def ps(
    ctx: typer.Context,
    pids: Annotated[list[str] | None, typer.Argument(metavar="PID", hidden=True)] = None,
    *,
    as_json: Json = False,
    processes: Annotated[
        bool, typer.Option("--all", help="Also show the processes of each server.")
    ] = False,
    strict: NoUnknown = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh the table until Ctrl-C.")] = False,
    interval: Annotated[
        str, typer.Option(metavar="SECONDS", help="The time between two tables of --watch.")
    ] = "2",
) -> None:
    """Show the vLLM servers that run here, and whether they can hang.

    With process ids, it shows only the servers that these processes are or belong to. It changes
    nothing. Servers of other users are unknown, unless you are root.
    """
    if ctx.obj:
        ctx.fail('ps takes no command: remove "--" and everything after it')
    if watch and as_json:
        ctx.fail("--watch shows a table: give it without --json")
    numbers = []
    for pid in pids or ():
        if not (pid.isascii() and pid.isdigit() and 0 < len(pid) < 10 and int(pid)):
            ctx.fail(f"{pid!r} is not a process id. To see all servers: {PROGRAM} ps")
        numbers.append(int(pid))
    every = _seconds(interval)
    if every is None:
        ctx.fail(f"--interval must be a number of seconds from 0.1 to 86400, not {interval!r}")
    from eplb_launch.ps.command import run as run_ps

    strict = strict or _before(ctx, "strict")
    pause = every if watch else None
    raise typer.Exit(
        run_ps(numbers, as_json=as_json, processes=processes, strict=strict, interval=pause)
    )


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0.1 <= seconds <= 86_400 else None


CHECK_EPILOG = """
It reads Kubernetes YAML of any kind, compose files, systemd and Quadlet units, Dockerfiles, shell
scripts, and every other file that has an entry point of vLLM in it.

Exit status: 0 if no server is exposed; 1 if one is (with --strict, also if one is unknown); else
125 if a file could not be read; 2 for a usage error.
"""
STYLES = ("text", "json", "github", "sarif")


@app.command(epilog=CHECK_EPILOG)
def check(
    ctx: typer.Context,
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH", hidden=True)] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    format_: Annotated[str | None, _format(STYLES, " The default is text.")] = None,
    strict: NoUnknown = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Also list the lines that have an entry point but start no server."
        ),
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Read the files that they name, even outside of PATH.")
    ] = False,
    vllm_version: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y.Z",
            help="Take this as the vLLM release of all servers, whatever their images say.",
        ),
    ] = None,
) -> None:
    """Review the servers that deployment files start.

    Each PATH is a file, a folder, or - for stdin. It starts nothing, and does not look at what is
    installed here. The vLLM release is what the tag of an image says, or --vllm-version.
    """
    if ctx.obj:
        ctx.fail('check takes no command: remove "--" and everything after it')
    if not paths:
        ctx.fail(
            f"There is nothing to check. Name files or folders: {PROGRAM} check deploy/; "
            f"or - for stdin: helm template CHART | {PROGRAM} check -"
        )
    if as_json and format_ not in (None, "json"):
        ctx.fail("--json means --format json: give only one of them")
    style = "json" if as_json else format_ or "text"
    if style not in STYLES:
        ctx.fail(f"--format must be one of {_listed(STYLES)}, not {style!r}")
    version = _values(ctx, vllm_version=vllm_version).get("vllm_version")
    strict, verbose = strict or _before(ctx, "strict"), verbose or _before(ctx, "verbose")
    from eplb_launch.check.command import run as run_check

    status = run_check(
        paths, style=style, strict=strict, vllm_version=version, verbose=verbose, follow=follow
    )
    raise typer.Exit(status)


def main(argv: list[str]) -> None:
    """Run the app on a command line. The command follows the first "--"."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it like other programs
    command: list[str] = []
    if "--" in argv:
        index = argv.index("--")
        argv, command = argv[:index], argv[index + 1 :]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the terminal may have no "→"
    app(args=argv, prog_name=PROGRAM, obj=command)
