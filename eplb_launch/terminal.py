"""What stdout is, and how text gets there."""

from __future__ import annotations

import os
import shutil
import sys


def print_text(text: str, end: str = "\n") -> None:
    """Print to stdout; OSError where it cannot be written."""
    if sys.stdout is None:
        return  # closed
    print(text, end=end, flush=True)  # noqa: T201


def width() -> int | None:
    """Return the width of the terminal; None where stdout is none."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if terminal else None


def colour() -> bool:
    """Return whether the output may have colour: no-color.org."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout is not None and sys.stdout.isatty() and not plain
