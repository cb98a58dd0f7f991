"""Variables in texts, and files of variables.

An expanded text has a largest size: `B=$A$A`, `C=$B$B` and so on would grow for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from eplb_launch.check.sources import Source
from eplb_launch.model import UNKNOWN

LONGEST = 256 * 1024  # twice what the kernel takes as one argument (MAX_ARG_STRLEN)


def replace(pattern: re.Pattern[str], value: Callable[[re.Match[str]], str], text: str) -> str:
    """Return a text with each match replaced; UNKNOWN where it gets too long."""
    pieces: list[str] = []
    size = end = 0
    for match in pattern.finditer(text):
        pieces += (text[end : match.start()], value(match))
        end = match.end()
        size += len(pieces[-1])
        if size > LONGEST:
            return UNKNOWN
    return "".join([*pieces, text[end:]])


_NAMES = r"\$[A-Za-z_]\w*|\$\{(?:[A-Za-z_]\w*(?::?[-+?]|(?=\})))?|\$|[{}]"
COMPOSE = re.compile(rf"\$(?P<literal>\$)|{_NAMES}")
DOCKERFILE = re.compile(rf"\\(?P<literal>.)|{_NAMES}", re.DOTALL)


def expand(
    text: str, known: Mapping[str, str], syntax: re.Pattern[str], *, assumed: bool = True
) -> str:
    """Return a text with `$NAME`, `${NAME}`, `${NAME:-default}` and the like replaced.

    A variable that is not known is UNKNOWN, because the user who starts the server may set it. If
    defaults are `assumed`, it has its default.
    """
    if "$" not in text:
        return text
    open_braces: list[tuple[str, list[str]]] = [("", [])]  # the text that opens it, then its pieces
    size = at = 0
    for match in syntax.finditer(text):
        found, pieces = match[0], open_braces[-1][1]
        pieces.append(text[at : match.start()])
        at = match.end()
        if match["literal"]:
            value = match["literal"]
        elif found.endswith("{") or found.startswith("${"):
            open_braces.append((found, []))
            continue
        elif found != "}":
            value = known.get(found[1:], UNKNOWN)
        elif len(open_braces) > 1:
            begin, inside = open_braces.pop()
            pieces = open_braces[-1][1]
            value = _chosen(begin, "".join(inside), known, assumed=assumed)
        else:
            value = found
        pieces.append(value)
        size += len(value)
        if size > LONGEST:
            return UNKNOWN
    open_braces[-1][1].append(text[at:])
    left = ((UNKNOWN if "$" in begin else begin, *inside) for begin, inside in open_braces)
    return "".join(piece for pieces in left for piece in pieces)


def _chosen(begin: str, operand: str, known: Mapping[str, str], *, assumed: bool) -> str:
    """Return the value of `${NAME:-operand}` with `${NAME:-` as `begin`. Plain braces stay."""
    if begin == "{":
        return f"{{{operand}}}"
    name = begin[2:].rstrip(":-+?")
    value, operator = known.get(name), begin[2 + len(name) :]
    if value is None:
        return operand if assumed and operator.endswith("-") else UNKNOWN
    if operator.endswith("+"):
        return operand if value or operator == "+" else ""
    return operand if operator == ":-" and not value else value


def joined(
    lines: Iterator[tuple[int, str]], skipped: Sequence[str], escape: str = "\\"
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the pieces of each line: after an `escape` the next line is a piece.

    Lines that begin with one of `skipped` are comments, also between pieces. "" in it: so are empty
    lines.
    """
    for number, line in lines:
        pieces = [line.strip()]
        if pieces[0][:1] in ("", *skipped):
            continue
        for _, following in lines if pieces[0].endswith(escape) else ():
            piece = following.strip()
            pieces.append(escape if piece[:1] in skipped else piece)
            if not pieces[-1].endswith(escape):
                break
        yield number, [piece.removesuffix(escape) for piece in pieces]


# The value has quoted parts, then a plain part, in which a quote is a character like others.
_LINE = re.compile(
    r"^[ \t]*(export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*=[ \t]*"
    r"((?:'[^']*'|\"(?:[^\"\\]|\\.)*\")*)((?:\\.|[^\n\\])*)",
    re.MULTILINE | re.DOTALL,
)
_QUOTED = re.compile(r"'([^']*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_ESCAPED = re.compile(r"\\(\n[ \t]*|.)", re.DOTALL)


def env_lines(source: Source | None, *, compose: bool = False) -> Iterator[tuple[str, str, int]]:
    """Yield the name, the value and the line of each variable in a file, as systemd reads it.

    `compose`: as docker compose reads it, which knows `export`, comments and variables in values.
    """
    text, line, at = source.text if source else "", 1, 0
    for match in _LINE.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        export, name, quoted, bare = match.groups()
        if export and not compose:  # systemd skips such a line
            continue
        if compose:
            bare = f" {bare}".partition(" #")[0]
        value = "".join(single or _unescaped(double) for single, double in _QUOTED.findall(quoted))
        value += _unescaped(bare.strip())
        yield name, UNKNOWN if compose and "$" in value else value, line


def _unescaped(text: str) -> str:
    """Return a text without backslashes, and without the ends of lines that follow one."""
    return _ESCAPED.sub(lambda match: match[1].strip("\n \t"), text)


_PLACEHOLDER = re.compile(r"\$(?:\{[A-Za-z_][^{}]*\}|\0)")  # of `${{NAME}}` see `templates`


def placeholders(text: str) -> str:
    """Return a text with UNKNOWN for each `${NAME}`.

    Kubernetes keeps them, but envsubst, OpenShift's templates and Flux replace them.
    """
    return _PLACEHOLDER.sub(UNKNOWN, text)


def templates(text: str) -> str:
    """Return a text with UNKNOWN for each `{{ … }}` of Helm, Jinja or Go."""
    pieces: list[str] = []
    at = 0
    while (start := text.find("{{", at)) >= 0 and (end := text.find("}}", start)) >= 0:
        pieces += (text[at:start], UNKNOWN)
        at = end + 2
    return "".join([*pieces, text[at:]])
