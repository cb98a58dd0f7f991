"""What stdout is, and how text gets there."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def json_text(value: Any) -> str:
    """Return a value as JSON: nothing but ASCII, and no half of a surrogate pair in it."""
    import json

    return json.dumps(_unicode(value), indent=2).replace("##[", "#\\u0023[")


def _unicode(value: Any) -> Any:
    """Return a value without the bytes that are no UTF-8, of which Python makes surrogates."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_unicode(name): _unicode(item) for name, item in value.items()}
    return [_unicode(item) for item in value] if isinstance(value, (list, tuple)) else value


def print_text(text: str, end: str = "\n") -> None:
    """Print to stdout; OSError where it cannot be written."""
    if sys.stdout is None:
        return  # closed
    print(text, end=end, flush=True)  # noqa: T201


def width() -> int | None:
    """Return the width of the terminal; None where stdout is none."""
    import shutil

    terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if terminal else None


def colour() -> bool:
    """Return whether the output may have colour: no-color.org."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout is not None and sys.stdout.isatty() and not plain
