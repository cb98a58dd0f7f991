"""Bring the table of `eplb_launch/vllm/options.py` up to date, and write it.

The table is its own memory: the options of each release are read from it, those of one release are
replaced by what its parser has, and the whole is written anew.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from eplb_launch.vllm.options import BOTH_WAYS, OPTIONS, newest, opposite, options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Span = tuple[int, int | None]

_START = "OPTIONS: Mapping[tuple[int, int | None], str] = {\n"
_END = "\n}\n"
_WIDTH = 100


def known() -> dict[int, frozenset[str]]:
    """Return the options by release 0.N, for all releases of the table."""
    return {
        minor: options(minor) for minor in range(min(since for since, _ in OPTIONS), newest() + 1)
    }


def folded(names: frozenset[str], minor: int) -> frozenset[str]:
    """Return the options of a release with each switch written once: `--[no-]x`."""
    found = set(names)
    for name in names:
        off = {f"--no-{name[2:]}", *(opposite(name) if minor >= BOTH_WAYS else ())}
        if off <= names:
            found -= {name, *off}
            found.add(f"--[no-]{name[2:]}")
    return frozenset(found)


def spans(releases: Mapping[int, frozenset[str]]) -> dict[Span, list[str]]:
    """Return from which to which release there are which options; one may come back."""
    last = max(releases)
    found: dict[Span, list[str]] = {}
    for name in sorted(
        frozenset().union(*releases.values()),
        key=lambda name: (name.replace("[no-]", "").lstrip("-"), name),
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
    switches = {minor: folded(names, minor) for minor, names in releases.items()}
    rows = ""
    for span, names in spans(switches).items():
        row = f'    {span}: "{" ".join(names)}",\n'
        if len(row) > _WIDTH + 1:
            filled = textwrap.fill(" ".join(names), _WIDTH - 8, break_on_hyphens=False)
            row = f'    {span}: """\n{textwrap.indent(filled, " " * 8)}\n    """,\n'
        rows += row
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
