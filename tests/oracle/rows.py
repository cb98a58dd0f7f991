"""Which rows become part of the tests, and how they are written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from oracle.compare import fires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Row = dict[str, Any]

# Of each kind, how many rows. All kinds can go wrong: to set it, not to set it, and to crash.
QUOTA = {"fires": 70, "does not fire": 100, "refused": 30}
# Longer rows say no more, and 200 of them should be a small file.
LONGEST = 600
LARGEST = 130_000
_MAX_DRAWN = 100_000


def kind(row: Row, version: str) -> str:
    """Return which kind of row it is."""
    if not row["vllm"]["accepted"]:
        return "refused"
    return "fires" if fires(row, version) else "does not fire"


def line(row: Row) -> str:
    """Return a row as a line of the data file: ASCII, as words may be no valid Unicode."""
    return json.dumps(row)


def balanced(draw: Callable[[], Row], answer: Callable[[Row], Any], version: str) -> list[Row]:
    """Draw rows until there are enough of each kind; they stay in the order drawn."""
    left = dict(QUOTA)
    picked: list[Row] = []
    seen = set()
    for _ in range(_MAX_DRAWN):
        drawn = draw()
        text = line(drawn)
        if text in seen or len(text) > LONGEST:
            continue
        seen.add(text)
        row = {**drawn, "vllm": answer(drawn)}
        found = kind(row, version)
        if left[found]:
            left[found] -= 1
            picked.append(row)
        if not any(left.values()):
            return picked
    raise SystemExit(f"{_MAX_DRAWN} rows drawn, and still wanted: {left}")


def write(path: Path, rows: list[Row]) -> None:
    """Write a data file."""
    path.write_text("".join(line(row) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> Iterator[Row]:
    """Return the rows of a data file."""
    for text in path.read_text(encoding="utf-8").rstrip("\n").split("\n"):
        yield json.loads(text)
