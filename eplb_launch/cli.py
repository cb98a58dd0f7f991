"""The Typer app: help, completion, usage errors, sub-commands. The only importer of Typer."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
import typer.core

from eplb_launch import __version__
from eplb_launch.front import run
from eplb_launch.releases import minor_release

PROGRAM = "eplb-launch"
RIGHT_FORM = "eplb-launch [OPTIONS] -- vllm serve MODEL [ARGUMENTS]..."

EPILOG = """
Exit status: that of CMD, which replaces this process; 127 if CMD is not found, 126 if it cannot be
executed, 125 if the launcher itself fails (only with --strict does its own trouble keep CMD from
starting), 2 for a usage error.
"""


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
    vllm_version: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y.Z",
            callback=_release,
            help="The vLLM release that CMD runs, instead of looking at what is installed.",
        ),
    ] = None,
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


def main(argv: list[str]) -> None:
    """Run the app on a command line; what follows the first "--" is the command."""
    command: list[str] = []
    if "--" in argv and "_EPLB_LAUNCH_COMPLETE" not in os.environ:
        index = argv.index("--")
        argv, command = argv[:index], argv[index + 1 :]
    app(args=argv, prog_name=PROGRAM, obj=command)
