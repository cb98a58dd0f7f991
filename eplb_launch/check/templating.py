"""Replace variables in a text, within bounds: `B=$A$A`, `C=$B$B` and so on grows for ever."""

from __future__ import annotations

import re
from collections.abc import Callable

from eplb_launch.model import UNKNOWN

LONGEST = 256 * 1024  # twice what the kernel takes as one argument (MAX_ARG_STRLEN)


def replace(pattern: re.Pattern[str], value: Callable[[re.Match[str]], str], text: str) -> str:
    """Return a text with each match replaced; UNKNOWN for one that gets too long."""
    pieces: list[str] = []
    size = end = 0
    for match in pattern.finditer(text):
        pieces += (text[end : match.start()], value(match))
        end = match.end()
        size += len(pieces[-1])
        if size > LONGEST:
            return UNKNOWN
    return "".join([*pieces, text[end:]])


_PLACEHOLDER = re.compile(r"\$(?:\{[A-Za-z_][^{}]*\}|\0)")  # of `${{NAME}}` see `templates`


def placeholders(text: str) -> str:
    """Return a text with each `${NAME}` as UNKNOWN.

    Kubernetes leaves them alone: envsubst, OpenShift's templates and Flux put something in there.
    """
    return _PLACEHOLDER.sub(UNKNOWN, text)


def templates(text: str) -> str:
    """Return a text with what stands in `{{` and `}}` as UNKNOWN: Helm, Jinja, Go."""
    pieces: list[str] = []
    at = 0
    while (start := text.find("{{", at)) >= 0 and (end := text.find("}}", start)) >= 0:
        pieces += (text[at:start], UNKNOWN)
        at = end + 2
    return "".join([*pieces, text[at:]])
