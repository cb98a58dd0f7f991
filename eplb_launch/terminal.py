"""What stdout is, and how text gets there: nothing of others reaches a terminal as it is.

Imports nothing that the interpreter has not loaded already: a launch that says something comes by.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def printable(text: str) -> str:
    """Return a line with everything escaped that who shows it would act on, line ends included.

    That is a terminal, or the log of a workflow of GitHub, which reads commands in what is printed:
    https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs.
    """
    if "##[" in text:
        text = text.replace("##[", "#\\x23[")
    if text.lstrip()[:2] == "::":
        text = text.replace(":", "\\x3a", 1)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


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
