"""Make a row small while something holds of it: delta debugging over words, files and variables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Row = dict[str, Any]


def shrink(row: Row, holds: Callable[[Row], bool]) -> Row:
    """Return the smallest row tried for which `holds` is still true."""
    row = {name: row[name] for name in ("argv", "env", "files", "nixl")}
    smaller: Row | None = row
    while smaller is not None:
        row = smaller
        smaller = next((tried for tried in candidates(row) if holds(tried)), None)
    return row


def size(row: Row) -> tuple[int, int]:
    """Return what is made smaller: the parts first, then the characters."""
    parts = len(row["argv"]) + len(row["env"]) + len(row["files"]) + row["nixl"]
    return parts, len(json.dumps(row))


def candidates(row: Row) -> Iterator[Row]:
    """Return smaller rows, the much smaller ones first."""
    for name in row["files"]:
        words = [word for word in row["argv"] if word not in ("--config", name)]
        yield {**row, "argv": words, "files": _without(row["files"], name)}
        yield {**row, "files": _without(row["files"], name)}
    for name in row["env"]:
        yield {**row, "env": _without(row["env"], name)}
    if row["nixl"]:
        yield {**row, "nixl": False}
    for words in _shorter(row["argv"][1:]):  # the first one is "serve"
        yield {**row, "argv": [*row["argv"][:1], *words]}
    for name, text in row["files"].items():
        for lines in _shorter(text.splitlines(keepends=True)):
            yield {**row, "files": {**row["files"], name: "".join(lines)}}
    for index, word in enumerate(row["argv"][1:], 1):
        for letters in _shorter_word(word):
            yield {**row, "argv": [*row["argv"][:index], letters, *row["argv"][index + 1 :]]}
    for kind in ("env", "files"):
        for name, text in row[kind].items():
            for letters in _shorter(text):
                yield {**row, kind: {**row[kind], name: letters}}


def _without(mapping: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in mapping.items() if key != name}


def _shorter_word(word: str) -> Iterator[str]:
    """Return a word without a part: of JSON, a key and its value first."""
    head, start, rest = word.partition("{")
    inner, end, tail = rest.rpartition("}")
    if start and inner:
        for parts in _shorter(inner.split(",")):
            yield head + start + ",".join(parts) + end + tail
    yield from _shorter(word)


def _shorter(whole: Any) -> Iterator[Any]:
    """Return a sequence without a part: without a half of it first, without one item last."""
    length = len(whole) // 2 if len(whole) > 1 else len(whole)
    while length:
        for start in range(0, len(whole), length):
            yield whole[:start] + whole[start + length :]
        # Two that stand side by side, as an option and its value, may begin at any place.
        if length == 2:
            for start in range(1, len(whole) - 1, 2):
                yield whole[:start] + whole[start + 2 :]
        length //= 2
