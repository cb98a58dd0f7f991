"""`eplb-launch ps --watch`: the table again and again, in place, until somebody ends it."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from eplb_launch.ps.table import table
from eplb_launch.terminal import print_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from eplb_launch.ps.rows import Row


class _TerminatedError(Exception):
    """SIGTERM came: the terminal is to be left as it was found."""


def watch(look: Callable[[], list[Row]], interval: float, *, processes: bool) -> int:
    """Show what `look` returns every `interval` seconds until Ctrl-C; return the exit status, 0.

    As of top(1) and watch(1), it says nothing of what was seen. Where stdout is no terminal, each
    table is printed below the last one.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in a background job of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    console = Console(highlight=False)
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            _refresh(look, interval, console, processes=processes)
        else:
            while True:
                print_text(f"{_now()}\n{table(look(), width=None, processes=processes)}\n")
                time.sleep(interval)
    except KeyboardInterrupt:
        return 0
    except _TerminatedError:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        raise


def _refresh(
    look: Callable[[], list[Row]], interval: float, console: Console, *, processes: bool
) -> NoReturn:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            shown = table(
                look(), width=console.width, colour=not console.no_color, processes=processes
            )
            end = f"{_now()}, every {interval:g} s; Ctrl-C ends it"
            text = Text.from_ansi(f"{shown}\n\n{end}")
            text.no_wrap, text.overflow = True, "crop"
            live.update(text, refresh=True)
            time.sleep(interval)


def _now() -> str:
    return dt.datetime.now().astimezone().isoformat(" ", "seconds")


def _terminate(*_signal: object) -> NoReturn:
    raise _TerminatedError
