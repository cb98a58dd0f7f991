"""The Typer app: help, completion, usage errors, sub-commands. The only importer of Typer."""

from __future__ import annotations

import enum
import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from eplb_launch import __version__, plan
from eplb_launch.export import FORMATS
from eplb_launch.front import run
from eplb_launch.launch import say
from eplb_launch.releases import minor_release

if TYPE_CHECKING:
    from eplb_launch.plans import Plan

PROGRAM = "eplb-launch"
RIGHT_FORM = "eplb-launch [OPTIONS] -- vllm serve MODEL [ARGUMENTS]..."

EPILOG = """
Exit status: that of CMD, which replaces this process; 127 if CMD is not found, 126 if it cannot be
executed, 125 if the launcher itself fails (only with --strict does its own trouble keep CMD from
starting), 2 for a usage error.
"""


Format = enum.Enum("Format", {name: name for name in FORMATS})  # type: ignore[misc]
SHELL = Format("shell")


class Group(typer.core.TyperGroup):
    """Says where the command belongs when somebody forgets the "--"."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the sub-command that `args` name, or fail with the right form."""
        if self.get_command(ctx, args[0]) is None:
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


VllmVersion = Annotated[
    str | None,
    typer.Option(
        metavar="X.Y.Z",
        callback=_release,
        help="The vLLM release that CMD runs, instead of looking at what is installed.",
    ),
]


@app.callback(epilog=EPILOG)
def launch(
    ctx: typer.Context,
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="Do not start CMD, exit 125, where there is a warning.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Say nothing about what is set, and no warnings.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Say also why nothing was set.")
    ] = False,
    vllm_version: VllmVersion = None,
    version: Annotated[  # noqa: ARG001 - its callback exits
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Start vLLM without the hang of expert-parallel load balancing.

    Reads the arguments of CMD, sets NCCL_MAX_CTAS=8 where async EPLB and cooperative MoE kernels
    could wait for each other for ever, and becomes CMD: same process, nothing left behind.
    """
    if ctx.invoked_subcommand is not None:
        return
    if not ctx.obj:
        ctx.fail(f"There is no command to start. The form is: {RIGHT_FORM}")
    run(ctx.obj, strict=strict, quiet=quiet, verbose=verbose, vllm_version=vllm_version)


def _plan(ctx: typer.Context, vllm_version: str | None) -> Plan:
    """Return the plan of the command after "--", for a sub-command."""
    if not ctx.obj:
        ctx.fail(f"There is no command after it. The form is: {ctx.command_path} [OPTIONS] -- CMD")
    options = ctx.parent.params if ctx.parent else {}
    return plan(ctx.obj, os.environ, vllm_version=vllm_version or options.get("vllm_version"))


@app.command(options_metavar="[OPTIONS] -- CMD [ARGUMENTS]...")
def explain(
    ctx: typer.Context,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; the README documents its keys.")
    ] = False,
    vllm_version: VllmVersion = None,
) -> None:
    """Show what would be set for CMD and why, with each setting and where it came from.

    Runs nothing, and exits 0 whatever the answer.
    """
    from eplb_launch import report

    decided = _plan(ctx, vllm_version)
    if as_json:
        typer.echo(json.dumps(report.as_dict(decided), indent=2))
    else:
        report.show(decided)


@app.command(options_metavar="[OPTIONS] -- CMD [ARGUMENTS]...")
def env(
    ctx: typer.Context,
    *,
    format_: Annotated[
        Format, typer.Option("--format", help="Who reads it.", show_default=True)
    ] = SHELL,
    vllm_version: VllmVersion = None,
) -> None:
    """Print the variables to set for CMD, for where the launcher cannot stand in front of it.

    Runs nothing. Prints nothing, or the empty value of the format, where nothing is needed.
    """
    decided = _plan(ctx, vllm_version)
    for warning in decided.warnings:
        say(f"warning: {warning.message}; {warning.remedy}")
    typer.echo(FORMATS[format_.value](decided.environment), nl=False)


def main(argv: list[str]) -> None:
    """Run the app on a command line; what follows the first "--" is the command."""
    command: list[str] = []
    if "--" in argv and "_EPLB_LAUNCH_COMPLETE" not in os.environ:
        index = argv.index("--")
        argv, command = argv[:index], argv[index + 1 :]
    app(args=argv, prog_name=PROGRAM, obj=command)
