"""Stdout: whether it is a terminal, and how to write to it."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def json_text(value: Any) -> str:
    """Return a value as JSON in ASCII, in which GitHub's runner finds no command."""
    import json

    return json.dumps(_unicode(value), indent=2).replace("##[", "#\\u0023[")


def _unicode(value: Any) -> Any:
    """Return a value with surrogates escaped. Python makes them from bytes that are not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_unicode(name): _unicode(item) for name, item in value.items()}
    return [_unicode(item) for item in value] if isinstance(value, (list, tuple)) else value


def print_text(text: str, end: str = "\n") -> None:
    """Print to stdout, unless it is closed; OSError if it cannot be written."""
    if sys.stdout is None:
        return
    print(text, end=end, flush=True)  # noqa: T201


def width() -> int | None:
    """Return the width of the terminal; None if stdout is not a terminal."""
    import shutil

    terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if terminal else None


def colour() -> bool:
    """Whether the output may have colour: see no-color.org."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout is not None and sys.stdout.isatty() and not plain
