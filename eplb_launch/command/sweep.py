"""`vllm bench sweep` starts one server several times, with further options from a file."""

from __future__ import annotations

from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.arguments import OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from eplb_launch.model import Server


def swept(server: Server, text: str | None, position: int) -> Server:
    """Return the server with the options that a parameter file may add or change.

    `text` is None if the file is not read. The file has a list of objects, or an object of objects;
    each replaces options of the command (vllm/benchmarks/sweep/param_sweep.py of 0.11.1 to 0.33).
    """
    import json

    try:
        records = json.loads(text or "")
    except (ValueError, RecursionError):
        return server.replace(args_known=False)
    if isinstance(records, dict):
        records = list(records.values())
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        return server.replace(args_known=False)
    words = dict.fromkeys(word for record in records for word in _options(record))
    positions = [*server.positions, *[position] * len(words)]
    return server.replace(words=(*server.words, *words), positions=positions)


def _options(record: dict[str, object]) -> Iterator[str]:
    """Yield the options of one run that are read. Their values count as not known."""
    for key, value in record.items():
        name, dot, rest = key.partition(".")
        option = f"--{name.replace('_', '-')}"
        if option not in OPTIONS or value is False:
            continue  # a switch that is off in one run may be on in another run
        yield option if value is True and not dot else f"{option}{dot}{rest}={UNKNOWN}"
