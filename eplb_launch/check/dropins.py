"""Which files make a systemd unit: its own, and its drop-ins. systemd.unit(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from eplb_launch.check.sources import Source

# Folders of units on a system: above them is its root, which EnvironmentFile= is meant in.
UNIT_FOLDERS = re.compile(
    r"(?:^|/)(?:(?:etc|run|lib|usr/lib|usr/local/lib)/systemd/(?:system|user)"
    r"|(?:etc|run|usr/share)/containers/systemd)$"
)


def units(found: Sequence[Source], suffix: str) -> Iterator[list[Source]]:
    """Yield units of a type (".service"), each with its drop-ins.

    A drop-in that has no unit here is one by itself. Of a template, each instance that has drop-ins
    of its own is a further unit: systemd.unit(5).
    """
    drop_ins: dict[str, dict[str, list[Source]]] = {}  # by folder, by the unit that they name
    mains = []
    for source in found:
        if source.path.endswith(suffix):
            mains.append(source)
        else:
            unit = os.path.basename(source.directory).removesuffix(".d")
            drop_ins.setdefault(_folder(source, suffix), {}).setdefault(unit, []).append(source)
    used: set[str] = set()
    for main in mains:
        name = os.path.basename(main.path)
        near = drop_ins.get(_folder(main, suffix), {})
        general = [source for wanted in _names(name, suffix) for source in near.get(wanted, ())]
        variants = [general]
        for instance, own in near.items() if "@." in name else ():
            if instance != name and re.sub("@.*[.]", "@.", instance) == name:
                variants.append([*own, *general])
        for parts in variants:
            used.update(source.path for source in parts)
            yield [main, *_in_order(parts)]
    for source in found:
        if not source.path.endswith(suffix) and source.path not in used:
            yield [source]


def _folder(source: Source, suffix: str) -> str:
    """Return what the drop-ins of a unit have in common with it: the system that they are for.

    That is the root above the folders of units, else the folder that both are in.
    """
    folder = os.path.abspath(source.directory)
    if not source.path.endswith(suffix):
        folder = os.path.dirname(folder)
    match = UNIT_FOLDERS.search(folder)
    return folder[: match.start()] + "/" if match else folder


def _names(unit: str, suffix: str) -> Iterator[str]:
    """Yield the names that drop-ins for a unit may have: its own, up to each dash, its type."""
    yield unit
    stem = unit.removesuffix(suffix)
    for index, char in enumerate(stem):
        if char == "-" and index < len(stem) - 1:
            yield stem[: index + 1] + suffix
    yield suffix[1:]


def _in_order(parts: Sequence[Source]) -> list[Source]:
    """Return drop-ins in the order in which they count: by name, of which each is read once.

    /etc hides /run, and that what a package brings; then the more specific one, which stands first.
    """
    by_name: dict[str, Source] = {}
    for source in sorted(parts, key=_rank):
        by_name.setdefault(os.path.basename(source.path), source)
    return [by_name[name] for name in sorted(by_name)]


def _rank(source: Source) -> int:
    folder = os.path.abspath(source.directory)
    found = (rank for rank, part in enumerate(("/etc/", "/run/")) if part + "systemd/" in folder)
    return next(found, 2)
