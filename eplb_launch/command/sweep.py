"""`vllm bench sweep` starts one server several times, with further options from a file."""

from __future__ import annotations

from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.arguments import OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eplb_launch.model import Server


def swept(server: Server, text: str | None, position: int) -> Server:
    """Return the server with the options that a parameter file may add or change.

    `text` is None if the file is not read. The file has a list of objects, or an object of objects;
    each replaces options of the command (vllm/benchmarks/sweep/param_sweep.py of 0.11.1 to 0.33).
    """
    words = None if text is None else _words(text)
    if words is None:
        return server.replace(complete=False)
    return server.replace(
        words=(*server.words, *words), positions=[*server.positions, *[position] * len(words)]
    )


def _words(text: str) -> Sequence[str] | None:
    import json

    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    records = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        return None
    return list(dict.fromkeys(word for record in records for word in _of(record)))


def _of(record: dict[str, object]) -> Iterator[str]:
    """Yield the options of one run that are read. Their values count as not known."""
    for key, value in record.items():
        name, dot, rest = key.partition(".")
        option = f"--{name.replace('_', '-')}"
        if option not in OPTIONS or value is False:
            continue  # a switch that is off in one run may be on in another run
        yield option if value is True and not dot else f"{option}{dot}{rest}={UNKNOWN}"
