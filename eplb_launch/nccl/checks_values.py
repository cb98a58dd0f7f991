"""The cases in which the cap is void or in doubt: one function for each row of `hazards`.

Each yields, for every case that it finds, the fields of the row's message.
"""

from __future__ import annotations

from eplb_launch.model import UNKNOWN, Record
from eplb_launch.nccl.variables import (
    MIN_P2P,
    MINIMA,
    NEWEST,
    channels,
    limit,
    parameter,
    pow2up,
)
from eplb_launch.vllm.releases import CAP, VARIABLE, stays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.model import Server
    from eplb_launch.nccl.conf import Value
    from eplb_launch.plans import Plan

    Fields = dict[str, object]  # what stands in the braces of a message


class Case(Record):
    """What the rows look at."""

    plan: Plan
    server: Server
    environ: Mapping[str, str]  # what the command is started with
    cap: int  # the most CTAs that there may be
    readings: tuple[Mapping[str, Value], ...]  # what NCCL may find, what the plan sets included
    hidden: tuple[Value, ...]  # limits in conf files that it would find without the plan
    met: Server  # the server that there is with what the plan sets
    arrives: bool  # what the plan sets reaches it as it is

    @property
    def kept(self) -> str | None:
        """The value that vLLM's rule keeps."""
        current = self.plan.current
        return current if stays(current) and not self.plan.variables else None

    @property
    def replaced(self) -> str | None:
        """The value that the plan replaces, which may be empty."""
        return self.plan.current if self.plan.variables and self.arrives else None

    def given(self, name: str) -> str | None:
        """Return an argument of vLLM as given; "" where it cannot be known."""
        entry = self.plan.given.get(name)
        if entry is None:
            return None
        text = str(entry.value)
        return "" if UNKNOWN in text else text


def shown(text: str) -> str:
    """Return a value as it may stand in a line: quoted where that is needed, and not endless."""
    text = text[:40] + "..." if len(text) > 40 else text
    if UNKNOWN in text:
        return "(not known)"
    plain = text.isascii() and text.isprintable() and text and " " not in text
    return text if plain else repr(text)


def minima(case: Case, names: tuple[str, ...], default: int) -> Iterator[Fields]:
    """Yield minimums above the cap; `default` is what NCCL takes for one that is not set."""
    said = set()
    for reading in case.readings:
        for name in names:
            value = reading.get(name)
            number = parameter(value.text, default) if value else default
            if value is None or number == default:
                continue
            count = min(pow2up(number) if name == MIN_P2P else number, NEWEST.max_channels)
            if count > case.cap and (name, value) not in said:
                said.add((name, value))
                where = value.source
                yield {"name": name, "value": shown(value.text), "where": where, "count": count}
            break


def _without_minima(reading: Mapping[str, Value]) -> int:
    """Return how many CTAs NCCL may take by a reading, its minimums left out."""
    names = reading.keys() - {*MINIMA, MIN_P2P}
    return max(channels({name: reading[name].text for name in names}))


def _unlimited(case: Case) -> bool:
    return any(_without_minima(reading) > case.cap for reading in case.readings)


def kept_ignored(case: Case) -> Iterator[Fields]:
    """Yield a value that stays and is no limit for NCCL."""
    if case.kept and limit(case.kept) is None and _unlimited(case):
        yield {"value": shown(case.kept)}


def kept_too_high(case: Case) -> Iterator[Fields]:
    """Yield a value that stays and is a limit, but not low enough."""
    number = limit(case.kept)
    if case.kept and number is not None and _unlimited(case):
        yield {"value": shown(case.kept), "count": max(map(_without_minima, case.readings))}


def set_too_high(case: Case) -> Iterator[Fields]:
    """Yield a value that is set here, and higher than vLLM's."""
    value = case.plan.environment.get(VARIABLE)
    if value and int(value) > CAP:
        yield {"value": value, "most": CAP}


def replaced(case: Case) -> Iterator[Fields]:
    """Yield a value that is replaced, though NCCL would have read a limit that is low enough."""
    number = limit(case.replaced)
    if case.replaced and number is not None and 0 < number <= case.cap:
        yield {"value": shown(case.replaced), "number": number}


def empty(case: Case) -> Iterator[Fields]:
    """Yield a value that is set and empty."""
    if case.replaced == "":
        yield {}


def file_kept(case: Case) -> Iterator[Fields]:
    """Yield a limit in a conf file that stays."""
    if case.plan.variables or case.plan.current is not None or not case.hidden:
        return
    if not case.plan.release.own_rule:
        yield {"value": shown(case.hidden[0].text), "where": case.hidden[0].source}


def file_hidden_by_vllm(case: Case) -> Iterator[Fields]:
    """Yield the same, in a release whose workers set 8 where the environment has no limit."""
    if case.plan.variables or case.plan.current is not None or not case.hidden:
        return
    if case.plan.release.own_rule:
        yield {"value": shown(case.hidden[0].text), "where": case.hidden[0].source}


def file_hidden(case: Case) -> Iterator[Fields]:
    """Yield a limit in a conf file that NCCL may or may not read."""
    for value in case.hidden if case.plan.variables else ():
        yield {"value": shown(value.text), "where": value.source}


def env_plugin(case: Case) -> Iterator[Fields]:
    """Yield a plugin that answers for the environment."""
    if case.server.environ.get("NCCL_ENV_PLUGIN", "none") not in ("", "none"):
        yield {}


def rounded(case: Case) -> Iterator[Fields]:
    """Yield a cap that is no power of two."""
    value = case.plan.environment.get(VARIABLE)
    if value and pow2up(int(value)) != int(value):
        yield {"value": value, "count": pow2up(int(value))}
