"""Bring the table of `eplb_launch/vllm/options.py` up to date, and write it.

The table is its own memory: the options of each release are read from it, those of one release are
replaced by what its parser has, and the whole is written anew.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from eplb_launch.vllm.options import OPTIONS, newest, options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Span = tuple[int, int | None]

_START = "OPTIONS: Mapping[tuple[int, int | None], str] = {\n"
_END = "\n}\n"
_WIDTH = 96


def known() -> dict[int, frozenset[str]]:
    """Return the options by release 0.N, for all releases of the table."""
    return {
        minor: options(minor) for minor in range(min(since for since, _ in OPTIONS), newest() + 1)
    }


def spans(releases: Mapping[int, frozenset[str]]) -> dict[Span, list[str]]:
    """Return from which to which release there are which options; one may come back."""
    last = max(releases)
    found: dict[Span, list[str]] = {}
    for name in sorted(
        frozenset().union(*releases.values()), key=lambda name: (name.lstrip("-"), name)
    ):
        since = None
        for minor in range(min(releases), last + 2):
            there = name in releases.get(minor, ())
            if there and since is None:
                since = minor
            elif not there and since is not None:
                until = None if minor > last else minor - 1
                found.setdefault((since, until), []).append(name)
                since = None
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or last + 1)))


def render(releases: Mapping[int, frozenset[str]], text: str) -> str:
    """Return the module's text with its table, and the newest release that it names, replaced."""
    head, start, rest = text.partition(_START)
    _, end, tail = rest.partition(_END)
    rows = "".join(
        f'    ({since}, {until}): """\n'
        + textwrap.indent(
            textwrap.fill(" ".join(names), _WIDTH - 8, break_on_hyphens=False), " " * 8
        )
        + '\n    """,\n'
        for (since, until), names in spans(releases).items()
    )
    head = head.replace(f"to 0.{max(known())}, one", f"to 0.{max(releases)}, one")
    return head + start + rows.removesuffix("\n") + end + tail


def bring_up_to_date(path: Path, minor: int, strings: Iterable[str]) -> list[str]:
    """Write the table with the options of a release; return what changed for that release."""
    releases = known()
    # Releases that were passed over are taken to be as the one before them.
    releases |= {between: releases[newest()] for between in range(newest() + 1, minor)}
    before, now = releases.get(minor, options(minor)), frozenset(strings)
    path.write_text(render({**releases, minor: now}, path.read_text()))
    gone = [f"-{name}" for name in sorted(before - now)]
    return [f"+{name}" for name in sorted(now - before)] + gone
