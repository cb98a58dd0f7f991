"""What eplb-launch.pyz has in the place of the Typer app: it says what the single file leaves out.

Becomes eplb_launch/cli.py in that file; see single_file.py.
"""

from __future__ import annotations

import sys

from eplb_launch._version import __version__
from eplb_launch.launch import say
from eplb_launch.launch_options import OPTIONS, SUB_COMMANDS

_OPTIONS = "  ".join(f"{name} {takes}".rstrip() for name, (takes, _) in OPTIONS.items())
USAGE = f"""\
Usage: eplb-launch.pyz [OPTIONS] -- vllm serve MODEL [ARGUMENTS]...

Sets NCCL_MAX_CTAS=8 where async EPLB and cooperative MoE kernels could wait for each other for
ever, and becomes the command after "--".

Options: {_OPTIONS}
         --version  --help

This is the single file: it starts servers and needs nothing but Python. Left out are the
sub-commands ({", ".join(SUB_COMMANDS)}), shell completion and the long help: `pip install
eplb-launch` has them. A command with a --config file needs PyYAML, which every vLLM brings.
"""


def main(argv: list[str]) -> None:
    """Answer all that is not a launch, and exit."""
    before = argv[: argv.index("--")] if "--" in argv else argv
    if "--version" in before:
        sys.stdout.write(f"eplb-launch {__version__} (single file)\n")
        sys.exit(0)
    if "--help" in before or "-h" in before:
        sys.stdout.write(USAGE)
        sys.exit(0)
    if before and before[0] in SUB_COMMANDS:
        say(f"{before[0]!r} is left out of the single file: pip install eplb-launch has it")
        sys.exit(2)
    if "--" not in argv:
        say('usage error: "--" is missing before the command')
    elif argv[-1] == "--":
        say("usage error: there is no command to start")
    else:
        say("usage error: an option before -- is not known, or its value is wrong")
    sys.stderr.write(USAGE)
    sys.exit(2)
