"""The ConfigMaps of all files that are checked, and which of them an object means by a name."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence

from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import File
from eplb_launch.check.yaml_tree import TEXT, Node

MAX_FILES = 100  # of one generator
_MAX_LITERALS = 2_000
_ANYWHERE = "anywhere"


class ConfigMaps:
    """The ConfigMaps that have been read: all are to be, before one is asked for."""

    def __init__(self) -> None:
        # By name and place: each with its namespace, "" if that is said elsewhere.
        self.found: dict[tuple[str, str, str], list[tuple[str, dict[str, File]]]] = {}
        self.merged: dict[tuple[str, str, str, str], Mapping[str, File | None] | None] = {}
        self.namespace = ""  # of the object that asks

    def within(self, namespace: str) -> ConfigMaps:
        """Return the same ConfigMaps for an object in a namespace; "": one that does not say it."""
        maps = copy.copy(self)
        maps.namespace = namespace
        return maps

    def add(self, node: Node, source: Source) -> None:
        name, namespace = (node.string("metadata", key) for key in ("name", "namespace"))
        entries = self._new(name, source, namespace)
        data = node.at("data")
        for key, value in data.entries().items() if data is not None else ():
            if value.kind == TEXT:
                entries[key] = File(value.text, source, value.line)

    def generate(self, node: Node, source: Source) -> None:
        """Take what a Kustomization makes ConfigMaps of, by the names that others have for them."""
        for generator in node.list("configMapGenerator"):
            settings = _env_files(generator, source)
            if settings is None:
                continue  # one is not here: nothing is known of this ConfigMap
            entries = self._new(generator.string("name"), source, generator.string("namespace"))
            entries.update(settings)
            for item in generator.list("literals")[:_MAX_LITERALS]:
                key, _, value = item.text.partition("=")
                entries[key] = File(value.strip("'\""), source, item.line)
            for item in generator.list("files")[:MAX_FILES]:
                key, equals, name = item.text.partition("=")
                path = os.path.normpath(os.path.join(source.directory, name if equals else key))
                found = source.near(path, "")
                if found is not None:
                    entries[key if equals else os.path.basename(key)] = File(found.text, found)

    def _new(self, name: str, source: Source, namespace: str) -> dict[str, File]:
        entries: dict[str, File] = {}
        for place in _places(source):
            self.found.setdefault((name, *place), []).append((namespace, entries))
        return entries

    def of(self, name: str, source: Source) -> Mapping[str, File | None] | None:
        """Return the data of the ConfigMap that an object in a file means; None if there is none.

        One of that file is meant, or else of its folder, or else any, of its namespace or of one
        that is not said. Where several are, as those of the overlays for a test and for production,
        what differs in them is None.
        """
        for place in _places(source):
            key = (name, *place, self.namespace)
            if key not in self.merged:
                every = self._here(self.found.get((name, *place), ()))
                self.merged[key] = _common(every) if every else None
            found = self.merged[key]
            if found is not None:
                return found
        return None

    def _here(self, every: Sequence[tuple[str, dict[str, File]]]) -> list[dict[str, File]]:
        """Return those of the namespace, else those that say none; all if it is not known."""
        own = [entries for namespace, entries in every if namespace == self.namespace]
        if self.namespace and own:
            return own
        return [entries for namespace, entries in every if not (namespace and self.namespace)]

    def files(self) -> Iterator[tuple[str, str, File]]:
        """Yield all data: the name, the key, and what is there."""
        for (name, kind, _), every in self.found.items():
            for _namespace, entries in every if kind == _ANYWHERE else ():
                for key, file in entries.items():
                    yield name, key, file


def _env_files(generator: Node, source: Source) -> dict[str, File] | None:
    """Return the variables in the `envs` of a generator; None where a file is not here."""
    entries: dict[str, File] = {}
    names = [item.text for item in generator.list("envs")[:MAX_FILES]]
    for name in filter(None, [*names, generator.string("env")]):  # `env`: how it was written before
        found = source.near(os.path.normpath(os.path.join(source.directory, name)), "")
        if found is None:
            return None
        for number, line in enumerate(found.text.split("\n"), 1):
            key, equals, value = line.strip().partition("=")
            if equals and not key.startswith("#"):
                entries[key.strip()] = File(value.strip(), found, number)
    return entries


def _places(source: Source) -> tuple[tuple[str, str], ...]:
    """Return where a ConfigMap is looked for, the nearest first."""
    return (("file", source.path), ("folder", source.directory), (_ANYWHERE, ""))


def _common(every: Sequence[Mapping[str, File]]) -> Mapping[str, File | None]:
    """Return what all have alike; None for what only some have, or have otherwise."""
    texts: dict[str, list[str]] = {}
    for entries in every:
        for key, file in entries.items():
            texts.setdefault(key, []).append(file.text)
    return {
        key: every[0].get(key) if len(found) == len(every) and len(set(found)) == 1 else None
        for key, found in texts.items()
    }
