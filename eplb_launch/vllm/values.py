"""Values as vLLM reads them: JSON, and numbers with a suffix.

This imports json, so it is imported only if a command has a value that needs it.
"""

from __future__ import annotations

import json

from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# vllm/utils/argparse_utils.py, human_readable_int: lower case is decimal, upper case is binary.
_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SUFFIXES |= {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def human_readable_int(text: str) -> int:
    """Return the integer of "16", "1k" (1000) or "1K" (1024), or raise ValueError."""
    text = text.strip()
    number, factor = text[:-1], _SUFFIXES.get(text[-1:], 0)
    whole, dot, fraction = number.partition(".")
    if factor and whole.isdecimal() and (fraction.isdecimal() if dot else True):
        if text[-1].islower():
            return int(float(number) * factor)
        return int(number) * factor
    return int(text)


def parse_dotted(text: str, *, human_readable: bool) -> Any:
    """Return the value of a dotted option: JSON, else a number with a suffix, else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if human_readable:
            try:
                return human_readable_int(text)
            except ValueError:
                pass
        return text


def json_object(text: str, *, human_readable: bool) -> dict[str, Any] | str | None:
    """Return the object that a JSON option gives, or None if it gives none.

    The result is UNKNOWN if it is not known; a part that is not known is a string with UNKNOWN.
    """
    for stand_in in ('"\\u0000"', "\\u0000"):  # UNKNOWN is a whole value, or inside a string
        try:
            expanded = _expanded(text) if human_readable else text
            value = json.loads(expanded.replace(UNKNOWN, stand_in))
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) or value == UNKNOWN else None
    return UNKNOWN if UNKNOWN in text else None


def _expanded(text: str) -> str:
    """Expand numbers with a suffix, except in strings (arg_utils.py, from 0.20)."""
    import re

    def number(match: re.Match[str]) -> str:
        return str(human_readable_int(match[0]))

    parts = re.split(r'("(?:[^"\\]|\\.)*")', text)
    parts[::2] = [re.sub(r"\b\d+(?:\.\d+)?[kKmMgGtT]\b", number, part) for part in parts[::2]]
    return "".join(parts)
