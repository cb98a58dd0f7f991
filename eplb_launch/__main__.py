"""The entry point. It runs `eplb-launch [OPTIONS] -- CMD` itself, and gives the rest to `cli`."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum
import sys

from eplb_launch.launch import fail, run
from eplb_launch.launch_options import read


def main() -> None:
    """Run the command line of this process; does not return."""
    # For `python -m eplb_launch`; bin/eplb-launch has done it already.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    argv = sys.argv[1:]
    try:
        options = read(argv)
        if options is None:
            from eplb_launch.cli import main as cli_main

            cli_main(argv)
    except Exception as error:  # noqa: BLE001 - a traceback could show a secret
        fail(error)
    if options is not None:
        run(argv[argv.index("--") + 1 :], **options)


if __name__ == "__main__":
    main()
