"""`vllm bench sweep`: the same server again and again, with other options from a file."""

from __future__ import annotations

from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.arguments import OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eplb_launch.model import Server


def swept(server: Server, text: str | None, position: int) -> Server:
    """Return a server with what a file of parameters may add to it or change, as options.

    `text` is None where the file is not read. vllm/benchmarks/sweep/param_sweep.py of 0.11.1 to
    0.33: a list of objects, or an object of them; an option that is there is replaced.
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
    """Yield the options of one run that are read, each as one word; their values are not known."""
    for key, value in record.items():
        name, dot, rest = key.partition(".")
        option = f"--{name.replace('_', '-')}"
        if option not in OPTIONS or value is False:
            continue  # what others set is worse, or what the command says itself
        yield option if value is True and not dot else f"{option}{dot}{rest}={UNKNOWN}"
