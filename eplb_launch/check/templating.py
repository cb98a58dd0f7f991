"""Variables in texts, and files of variables.

Replacing is bounded: `B=$A$A`, `C=$B$B` and so on grows for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from eplb_launch.check.sources import Source
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


_IN_BRACES = r"[^{}]*"
for _ in range(2):  # braces inside those of a variable, so deep
    _IN_BRACES = rf"[^{{}}]*(?:\{{{_IN_BRACES}\}}[^{{}}]*)*"
_COMPOSE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z_]\w*)"
    rf"|\{{(?P<braced>[A-Za-z_]\w*)(?:(?P<operator>:?[-+?])(?P<operand>{_IN_BRACES}))?\}}|\{{?)"
)


def interpolate(text: str, defaults: Mapping[str, str], *, assumed: bool = True) -> str:
    """Return a text of compose with `$NAME`, `${NAME}`, `${NAME:-default}` and the like replaced.

    docs.docker.com/reference/compose-file/interpolation. What is not in the .env file takes its
    default; without one it is UNKNOWN, because whoever starts compose may set it. Not `assumed`, it
    is UNKNOWN with one, too.
    """

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        known = defaults.get(match["name"] or match["braced"])
        operator = match["operator"] or ""
        if known is None and not assumed:
            return UNKNOWN
        if operator[-1:] in ("-", "+"):
            operand = interpolate(match["operand"], defaults, assumed=assumed)
            if operator[-1] == "+":
                return operand if known else UNKNOWN
            return operand if known is None or (not known and operator == ":-") else known
        return UNKNOWN if known is None else known

    return replace(_COMPOSE, value, text) if "$" in text else text


def env_lines(source: Source | None, *, quotes: bool = True) -> Iterator[tuple[str, str, int]]:
    """Yield the variables of an env file, each with its line; `quotes` are none of a value."""
    lines = source.text.split("\n") if source is not None and not source.problem else ()
    for number, line in enumerate(lines, 1):
        name, equals, text = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        text = text.strip()
        if not quotes:
            yield name.strip(), text, number
        elif text[:1] in ("'", '"') and text.endswith(text[:1]) and len(text) > 1:
            yield name.strip(), UNKNOWN if "$" in text else text[1:-1], number
        else:
            text = text.partition(" #")[0].rstrip()
            yield name.strip(), UNKNOWN if "$" in text else text, number


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
