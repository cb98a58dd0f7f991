"""The Typer app: help, completion, usage errors, sub-commands. The only importer of Typer."""

from __future__ import annotations

import contextlib
import enum
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from eplb_launch import __version__, plan, terminal
from eplb_launch.assessment import assess
from eplb_launch.exec import LAUNCHER_FAILED, say
from eplb_launch.launch import fail, run
from eplb_launch.launch_options import NAMES, OPTIONS, cap_options
from eplb_launch.render.env import FORMATS
from eplb_launch.vllm.releases import minor_release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eplb_launch.plans import Plan

PROGRAM = NAMES[0]
STRICT = "Exit 125 where a launch of CMD would with --strict: where there is a warning."
RIGHT_FORM = "eplb-launch [OPTIONS] -- vllm serve MODEL [ARGUMENTS]..."

EPILOG = """
Exit status: that of CMD, which replaces this process; 127 if CMD is not found, 126 if it cannot be
executed, 125 if the launcher itself fails (only with --strict does its own trouble keep CMD from
starting), 2 for a usage error.
"""


Format = enum.Enum("Format", {name: name for name in FORMATS})  # type: ignore[misc]
SHELL = Format("shell")


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """End with 125 where Typer would end with 1, which means exposed, and Python with 120."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # at its end Python would do it, and end with 120
    except (EOFError, OSError) as error:
        fail(error)


class Group(typer.core.TyperGroup):
    """Says where the command belongs when somebody forgets the "--"."""

    def make_context(self, info_name: Any, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Return the context; complete nothing in the words of CMD, which are not ours."""
        if extra.get("resilient_parsing") and "--" in args:
            raise SystemExit(0)
        with _failing():
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command."""
        with _failing():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the sub-command that `args` name, or fail with the right form."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            ctx.fail(f'"--" is missing before the command. The form is: {RIGHT_FORM}')
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name=PROGRAM,
    cls=Group,
    invoke_without_command=True,
    options_metavar="[OPTIONS]",
    subcommand_metavar="-- CMD [ARGUMENTS]...",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help"]},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _release(value: str | None) -> str | None:
    if value is not None and minor_release(value) is None:
        raise typer.BadParameter(f"{value!r} is not a vLLM release such as 0.16.0")
    return value


def _option(name: str, callback: Any = None) -> Any:
    takes, text = OPTIONS[name]
    return typer.Option(name, metavar=takes or None, callback=callback, help=text)


VllmVersion = Annotated[str | None, _option("--vllm-version", _release)]
MaxCtas = Annotated[str | None, _option("--max-ctas")]
Sms = Annotated[str | None, _option("--sms")]


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

    Reads the arguments of CMD, sets NCCL_MAX_CTAS=8 where async EPLB and cooperative MoE kernels
    could wait for each other for ever, and becomes CMD: same process, nothing left behind.
    """
    cap = _cap(ctx, max_ctas, sms)
    if ctx.invoked_subcommand is not None:
        return
    if not ctx.obj:
        ctx.fail(f"There is no command to start. The form is: {RIGHT_FORM}")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # of what a launch says, a line may be lost
    run(ctx.obj, strict=strict, quiet=quiet, verbose=verbose, vllm_version=vllm_version, **cap)


def _cap(ctx: typer.Context, max_ctas: str | None, sms: str | None) -> dict[str, Any]:
    """Return the arguments of `plan` for the cap."""
    try:
        return cap_options(max_ctas, sms)
    except ValueError as error:
        ctx.fail(str(error))


def _plan(
    ctx: typer.Context, vllm_version: str | None, max_ctas: str | None, sms: str | None
) -> Plan:
    """Return the plan of the command after "--", for a sub-command."""
    if not ctx.obj:
        ctx.fail(f"There is no command after it. The form is: {ctx.command_path} [OPTIONS] -- CMD")
    options = ctx.parent.params if ctx.parent else {}
    version = vllm_version or options.get("vllm_version")
    cap = _cap(ctx, max_ctas or options.get("max_ctas"), sms or options.get("sms"))
    return plan(ctx.obj, os.environ, vllm_version=version, **cap)


def _strict(ctx: typer.Context, *, strict: bool) -> bool:
    """Whether --strict is given, to the sub-command or before its name."""
    return strict or bool(ctx.parent and ctx.parent.params.get("strict"))


@app.command(options_metavar="[OPTIONS] -- CMD [ARGUMENTS]...")
def explain(
    ctx: typer.Context,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; the README documents its keys.")
    ] = False,
    vllm_version: VllmVersion = None,
    max_ctas: MaxCtas = None,
    sms: Sms = None,
    strict: Annotated[bool, typer.Option("--strict", help=STRICT)] = False,
) -> None:
    """Show what would be set for CMD and why, with each setting and where it came from.

    Runs nothing, and exits 0 whatever the answer, unless --strict is given.
    """
    from eplb_launch.nccl import cap
    from eplb_launch.render import explain as report

    decided = cap.explain(_plan(ctx, vllm_version, max_ctas, sms))
    found = assess(decided)
    if as_json:
        typer.echo(terminal.json_text(report.as_dict(decided, found)))
    else:
        report.show(decided, found)
    if _strict(ctx, strict=strict) and found.warnings:
        raise typer.Exit(LAUNCHER_FAILED)


@app.command(options_metavar="[OPTIONS] -- CMD [ARGUMENTS]...")
def env(
    ctx: typer.Context,
    *,
    format_: Annotated[
        Format, typer.Option("--format", help="Who reads it.", show_default=True)
    ] = SHELL,
    vllm_version: VllmVersion = None,
    max_ctas: MaxCtas = None,
    sms: Sms = None,
    strict: Annotated[bool, typer.Option("--strict", help=STRICT)] = False,
) -> None:
    """Print the variables to set for CMD, for where the launcher cannot stand in front of it.

    Runs nothing. Prints nothing, or the empty value of the format, where nothing is needed.
    """
    decided = _plan(ctx, vllm_version, max_ctas, sms)
    refused = _strict(ctx, strict=strict) and decided.warnings
    for warning in assess(decided).warnings:
        kind = "not printed (--strict)" if refused else "warning"
        say(f"{kind}: {warning.message}; {warning.remedy}")
    if refused:
        raise typer.Exit(LAUNCHER_FAILED)
    typer.echo(FORMATS[format_.value](decided.environment), nl=False)


PS_EPILOG = """
Exit status: 0 if no server is exposed, 1 if one is (with --strict also if one is unknown), 2 for a
usage error, 125 if the launcher itself fails. --watch ends with 0.
"""


@app.command(epilog=PS_EPILOG)
def ps(
    ctx: typer.Context,
    pids: Annotated[
        list[int] | None,
        typer.Argument(metavar="PID", min=1, help="Only the servers that these are or belong to."),
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; the README documents its keys.")
    ] = False,
    processes: Annotated[
        bool, typer.Option("--all", help="Show also the processes of each server.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 also where a verdict is unknown.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How often --watch does.")
    ] = 2.0,
) -> None:
    """Show the vLLM servers that run here, and whether they can hang.

    Changes nothing. Servers of other users are unknown, unless you are root.
    """
    if ctx.obj:
        ctx.fail('ps takes no command: there is nothing to be given after "--"')
    if watch and as_json:
        ctx.fail("--watch shows a table: it cannot be given together with --json")
    from eplb_launch.ps.command import run as run_ps

    every = interval if watch else None
    strict = _strict(ctx, strict=strict)
    raise typer.Exit(
        run_ps(pids or (), as_json=as_json, processes=processes, strict=strict, interval=every)
    )


CHECK_EPILOG = """
Reads Kubernetes YAML of any kind, compose files, systemd and Quadlet units, Dockerfiles, shell
scripts, and all else that has an entry point of vLLM in it. Exit status: 0 if all is ok, 1 if a
server is exposed (with --strict also if one is unknown), else 125 if a file could not be read, 2
for a usage error.
"""


class CheckFormat(str, enum.Enum):
    """Who reads the review."""

    text = "text"
    json = "json"
    github = "github"
    sarif = "sarif"


@app.command(epilog=CHECK_EPILOG)
def check(
    ctx: typer.Context,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files, folders, - for stdin.")
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    format_: Annotated[
        CheckFormat | None, typer.Option("--format", help="Who reads it: text, if not given.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A server that is unknown counts as exposed.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="List the lines with an entry point and no server.")
    ] = False,
    vllm_version: VllmVersion = None,
) -> None:
    """Review the servers that deployment files start, before they hang.

    Starts nothing, and looks at nothing that is installed here: the tag of an image says which
    vLLM it is, or --vllm-version.
    """
    if ctx.obj:
        ctx.fail('check takes no command: there is nothing to be given after "--"')
    if as_json and format_ not in (None, CheckFormat.json):
        ctx.fail("--json and another --format cannot be given together")
    from eplb_launch.check.command import run as run_check

    options = ctx.parent.params if ctx.parent else {}
    style = "json" if as_json else (format_ or CheckFormat.text).value
    version = vllm_version or options.get("vllm_version")
    strict = strict or bool(options.get("strict"))
    verbose = verbose or bool(options.get("verbose"))
    raise typer.Exit(
        run_check(paths, style=style, strict=strict, vllm_version=version, verbose=verbose)
    )


def main(argv: list[str]) -> None:
    """Run the app on a command line; what follows the first "--" is the command."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it, as it ends other programs
    command: list[str] = []
    if "--" in argv:
        index = argv.index("--")
        argv, command = argv[:index], argv[index + 1 :]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no "→" is no reason to fail
    app(args=argv, prog_name=PROGRAM, obj=command)
