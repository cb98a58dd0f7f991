"""Variables of compose: in its own texts, and in the files that set them.

docs.docker.com/reference/compose-file/interpolation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eplb_launch.check.templating import replace
from eplb_launch.model import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.check.sources import Source

_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z_]\w*)"
    r"|\{(?P<braced>[A-Za-z_]\w*)"
    r"(?:(?P<operator>:?[-+?])(?P<operand>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*))?\}"
    r"|(?P<rest>\{?))"
)


def interpolate(text: str, defaults: Mapping[str, str], *, assumed: bool = True) -> str:
    """Return a text with `$NAME`, `${NAME}`, `${NAME:-default}` and the like replaced.

    What is not in the .env file takes its default; without one it is UNKNOWN, because whoever
    starts compose may set it. Not `assumed`, it is UNKNOWN with one, too.
    """
    if "$" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name = match["name"] or match["braced"]
        if not name:
            return UNKNOWN
        operator = match["operator"] or ""
        operand = interpolate(match["operand"] or "", defaults, assumed=assumed)
        known = defaults.get(name)
        if known is None and not assumed:
            return UNKNOWN
        if operator.endswith("-"):
            return operand if known is None or (not known and operator == ":-") else known
        if operator.endswith("+"):
            return operand if known else UNKNOWN
        return UNKNOWN if known is None else known

    return replace(_VARIABLE, value, text)


def env_lines(source: Source | None) -> Iterator[tuple[str, str, int]]:
    """Yield the variables of an env file, each with its line."""
    lines = source.text.split("\n") if source is not None and not source.problem else ()
    for number, line in enumerate(lines, 1):
        name, equals, text = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        text = text.strip()
        if text[:1] in ("'", '"') and text.endswith(text[:1]) and len(text) > 1:
            text = text[1:-1]
        else:
            text = text.partition(" #")[0].rstrip()
        yield name.strip(), UNKNOWN if "$" in text else text, number
