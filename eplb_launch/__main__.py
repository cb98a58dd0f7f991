"""The front door: `eplb-launch [OPTIONS] -- CMD` is decided and executed from here.

Everything else (help, sub-commands, usage errors) goes to the Typer app in `cli`.
"""

from __future__ import annotations

import sys

from eplb_launch.launch import become


def main() -> None:
    """Run the command line of this process; does not return."""
    argv = sys.argv[1:]
    if argv[:1] == ["--"] and argv[1:]:
        become(argv[1:], {})
    sys.exit(2)


if __name__ == "__main__":
    main()
