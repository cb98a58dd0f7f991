"""Variables of compose: in its own texts, and in the files that set them.

docs.docker.com/reference/compose-file/interpolation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from eplb_launch.check.sources import Source
from eplb_launch.check.templating import LONGEST
from eplb_launch.model import UNKNOWN

_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z_]\w*)"
    r"|\{(?P<braced>[A-Za-z_]\w*)(?P<operator>:?[-+?])?|(?P<rest>\{?))"
)
_BRACE = re.compile("[{}]")
_DEPTH = 2  # of braces inside those of a variable


def interpolate(text: str, defaults: Mapping[str, str], *, assumed: bool = True) -> str:
    """Return a text with `$NAME`, `${NAME}`, `${NAME:-default}` and the like replaced.

    What is not in the .env file takes its default; without one it is UNKNOWN, because whoever
    starts compose may set it. Not `assumed`, it is UNKNOWN with one, too. UNKNOWN, too, is what is
    longer than any argument can be.
    """
    if "$" not in text:
        return text
    ends = _ends(text)
    pieces: list[str] = []
    size = at = 0
    while match := _VARIABLE.search(text, at):
        pieces.append(text[at : match.start()])
        at = match.end()
        end = ends.get(match.start() + 1, -1)
        operator = match["operator"] or ""
        if match["dollar"]:
            pieces.append("$")
        elif match["name"]:
            pieces.append(_value(match["name"], "", "", defaults, assumed=assumed))
        elif match["braced"] and (end == at if not operator else end >= at):
            operand = interpolate(text[at:end], defaults, assumed=assumed)
            pieces.append(_value(match["braced"], operator, operand, defaults, assumed=assumed))
            at = end + 1
        else:
            pieces.append(UNKNOWN)
            at = match.start() + (2 if text[match.start() + 1 : at] else 1)
        size += len(pieces[-1])
        if size > LONGEST:
            return UNKNOWN
    return "".join([*pieces, text[at:]])


def _ends(text: str) -> dict[int, int]:
    """Return where the braces end that are not too deep, by where they begin. In one pass."""
    found: dict[int, int] = {}
    begun: list[list[int]] = []  # where, and how deep it is inside
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            begun.append([match.start(), 0])
        elif begun:
            start, depth = begun.pop()
            if depth <= _DEPTH:
                found[start] = match.start()
            if begun:
                begun[-1][1] = max(begun[-1][1], depth + 1)
    return found


def _value(
    name: str, operator: str, operand: str, defaults: Mapping[str, str], *, assumed: bool
) -> str:
    """Return what stands for a variable."""
    known = defaults.get(name)
    if known is None and not assumed:
        return UNKNOWN
    if operator.endswith("-"):
        return operand if known is None or (not known and operator == ":-") else known
    if operator.endswith("+"):
        return operand if known else UNKNOWN
    return UNKNOWN if known is None else known


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
