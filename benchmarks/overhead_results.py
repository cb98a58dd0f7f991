"""What `make overhead` found: as a file, as the tables of the README and as what they rest on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGIN, END = "<!-- made by make overhead -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Row:
    """A launcher; without figures, if it was not found."""

    name: str
    version: str
    milliseconds: tuple[float, float, float] | None = None  # quartiles
    to_env: float = 0  # medians of the ratio within a round
    to_python: float = 0
    variable: str = ""  # as the server saw it
    stays: bool = False  # the server was a child of the launcher

    @property
    def ours(self) -> bool:
        """Tell whether it is eplb-launch."""
        return self.name.startswith("eplb-launch")


@dataclass(frozen=True)
class Other:
    """A command that is run for itself."""

    name: str
    what: str
    seconds: tuple[float, float, float] | None = None
    megabytes: int = 0


@dataclass(frozen=True)
class Results:
    """A run of the benchmark."""

    machine: str
    python: str
    pip: str
    child: str
    rounds: int
    rows: Sequence[Row]
    others: Sequence[Other]

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self), indent=1) + "\n"


def from_json(text: str) -> Results:
    """Read the text of the file."""
    read = json.loads(text)
    rows = [Row(**row) for row in read.pop("rows")]
    others = [Other(**other) for other in read.pop("others")]
    return Results(**read, rows=rows, others=others)


def fastest_first(results: Results) -> list[Row]:
    """Return the rows in the order in which they are shown; what is missing last."""

    def median(row: Row) -> float:
        return row.milliseconds[1] if row.milliseconds else float("inf")

    return sorted(results.rows, key=median)


def _cells(row: Row) -> list[Any]:
    name = f"**{row.name}**" if row.ours else row.name
    if row.milliseconds is None:
        return [name, "not found, not measured", "", "", "", "", ""]
    low, middle, high = row.milliseconds
    variable = "no" if row.variable == "unset" else f"`{row.variable}`"
    after = "stays, as its parent" if row.stays else "becomes the command"
    ratios = [f"{ratio:.2f}" for ratio in (row.to_env, row.to_python)]
    if row.name == "no launcher":
        after = ""
    return [
        name,
        row.version,
        f"{middle:.1f}",
        f"{low:.1f} to {high:.1f}",
        *ratios,
        variable,
        after,
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _other(other: Other) -> list[Any]:
    if other.seconds is None:
        return [f"`{other.name}`", other.what, "not found, not measured", "", ""]
    low, middle, high = other.seconds
    memory = f"{other.megabytes} MB" if other.megabytes else ""
    return [f"`{other.name}`", other.what, f"{middle:.2f}", f"{low:.2f} to {high:.2f}", memory]


def to_markdown(results: Results) -> str:
    """Return the tables."""
    head = [
        "",
        "version",
        "ms",
        "quartiles",
        "to `env`",
        "to bare Python",
        "the variable",
        "then it",
    ]
    rows = [_cells(row) for row in fastest_first(results)]
    others = [_other(other) for other in results.others]
    conditions = (
        f"{results.machine}; Python {results.python}; scripts by pip {results.pip}; the server is\n"
        f"{results.child}. Medians of {results.rounds} rounds in random order, all on one CPU, as\n"
        "whole processes; ratios within a round.\n"
    )
    second = _table(["", "", "s", "quartiles", "memory"], others)
    return f"{_table(head, rows)}\n{conditions}\n{second}"


def between(document: str, block: str) -> str:
    """Return the README with the tables in their place."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no place for the tables: {BEGIN!r} and {END!r}")
    return f"{before}{begin}{block}{end}{after}"
