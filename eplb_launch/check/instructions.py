"""The instructions of a Dockerfile, its quoting and its variables.

docs.docker.com/reference/dockerfile.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections.abc import Iterator, Mapping

from eplb_launch.check.templating import replace
from eplb_launch.model import UNKNOWN

_VARIABLE = re.compile(
    r"\\(?P<escaped>.)|\$(?P<name>[A-Za-z_]\w*)"
    r"|\$\{(?P<braced>[A-Za-z_]\w*)(?:(?P<operator>:[-+])(?P<operand>[^{}]*))?\}"
)
_HEREDOC = re.compile(r"<<(-?)([\"']?)([A-Za-z_]\w*)\2")
_PAIR = re.compile(
    r"(?:^|(?<=\s))([A-Za-z_][\w.]*)(?:=((?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|\\.|[^\s\"'])*))?"
)
_QUOTES = re.compile(r"\"|'|\\(?=[\" ])")
_ESCAPE = re.compile(r"^#\s*escape\s*=\s*(\S)", re.IGNORECASE)


def instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield each instruction: its line, its name, and the rest with its lines joined.

    The newlines stay where a line goes on, behind the escape: a shell reads them the same way, and
    the lines can be counted.
    """
    lines = text.split("\n")
    match = _ESCAPE.match(lines[0]) if lines else None
    escape = match[1] if match else "\\"
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        start = at + 1
        at += 1
        if not line or line.startswith("#"):
            continue
        pieces = [line]
        while pieces[-1].endswith(escape) and at < len(lines):
            pieces[-1] = pieces[-1][: -len(escape)] + "\\"
            following = lines[at].strip()
            at += 1
            # Comments and empty lines inside are dropped; the line goes on.
            pieces.append("\\" if not following or following.startswith("#") else following)
        name, _, rest = "\n".join(pieces).partition(" ")
        for tabs, _, word in (
            _HEREDOC.findall(rest) if name.upper() in ("RUN", "COPY", "ADD") else ()
        ):
            while at < len(lines) and (lines[at].lstrip("\t") if tabs else lines[at]) != word:
                at += 1
            at += 1
        yield start, name.upper(), rest.strip()


def exec_form(rest: str) -> list[str] | None:
    """Return the words of the exec form; None if it is the shell form."""
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest.replace("\\\n", "\n"))
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(w, str) for w in words) else None


def unquoted(text: str) -> str:
    """Return a text without the quotes around it."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0] else text


def pairs(rest: str, known: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Yield what ENV sets: `A=1 B="x y"`, or the old form `A the rest`.

    Each with its line, counted from 0. What is set is seen by the instructions that follow.
    """
    lines = rest.split("\\\n")
    ends = list(itertools.accumulate(len(line) + 1 for line in lines))
    rest = " ".join(lines)
    first, _, value = rest.partition(" ")
    if first and "=" not in first:
        yield first, expand(value.strip(), known), 0
        return
    for match in _PAIR.finditer(rest):
        if match[2] is not None:
            text = _QUOTES.sub("", match[2])
            value = text if match[2].startswith("'") else expand(text, known)
            yield match[1], value, bisect.bisect_right(ends, match.start())


def arguments(rest: str) -> Iterator[tuple[str, str | None]]:
    """Yield what ARG names, with its default; None if it has none."""
    for match in _PAIR.finditer(rest.replace("\\\n", " ")):
        yield match[1], None if match[2] is None else _QUOTES.sub("", match[2])


def expand(text: str, known: Mapping[str, str]) -> str:
    """Return a text with the variables of ARG and ENV replaced; UNKNOWN for any other."""
    if "$" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return match["escaped"]
        found = known.get(match["name"] or match["braced"])
        if match["operator"] == ":-":
            return found or match["operand"]
        if match["operator"] == ":+":
            return match["operand"] if found else ""
        return UNKNOWN if found is None else found

    return replace(_VARIABLE, value, text)
