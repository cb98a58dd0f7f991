"""The front door: `eplb-launch [OPTIONS] -- CMD` is decided and executed from here.

Everything else (help, sub-commands, usage errors) goes to the Typer app in `cli`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum
import sys

from eplb_launch.launch import fail, run
from eplb_launch.launch_options import read


def main() -> None:
    """Run the command line of this process; does not return."""
    # For `python -m eplb_launch`; the installed script did it already, a little earlier.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    argv = sys.argv[1:]
    try:
        options = read(argv)
        if options is None:
            from eplb_launch.cli import main as cli_main

            cli_main(argv)
    except Exception as error:  # noqa: BLE001 - a traceback could show what is secret
        fail(error)
    if options is not None:
        run(argv[argv.index("--") + 1 :], **options)


if __name__ == "__main__":
    main()
