"""The ConfigMaps of all files, and which of them a container refers to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from eplb_launch.check.kubernetes.containers import Container
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import File
from eplb_launch.check.yaml_tree import TEXT, Node

_MAX_FILES = 100  # in one generator
_MAX_LITERALS = 2_000
_ANYWHERE = "anywhere"


class ConfigMaps:
    """The ConfigMaps. All files have to be read before one is looked up."""

    def __init__(self) -> None:
        # By name and place: the namespace ("": not given) and the data.
        self.found: dict[tuple[str, str], list[tuple[str, dict[str, File]]]] = {}
        self.known: dict[tuple[str, str, str], Mapping[str, File | None] | None] = {}

    def add(self, node: Node, source: Source) -> None:
        name, namespace = (node.string("metadata", key) for key in ("name", "namespace"))
        entries = self._new(name, source, namespace)
        data = node.at("data")
        for key, value in data.entries().items() if data is not None else ():
            if value.kind == TEXT:
                entries[key] = File(value.text, source, value.line)

    def generate(self, node: Node, source: Source) -> None:
        """Add the ConfigMaps that a Kustomization generates."""
        for generator in node.list("configMapGenerator"):
            variables = _env_files(generator, source)
            if variables is None:
                continue  # a file is missing: the ConfigMap is not known
            entries = self._new(generator.string("name"), source, generator.string("namespace"))
            entries.update(variables)
            for item in generator.list("literals")[:_MAX_LITERALS]:
                key, _, value = item.text.partition("=")
                entries[key] = File(value.strip("'\""), source, item.line)
            for item in generator.list("files")[:_MAX_FILES]:
                key, equals, name = item.text.partition("=")
                found = _beside(name if equals else key, source)
                if found is not None:
                    entries[key if equals else os.path.basename(key)] = File(found.text, found)

    def _new(self, name: str, source: Source, namespace: str) -> dict[str, File]:
        entries: dict[str, File] = {}
        for place in _places(source):
            self.found.setdefault((name, place), []).append((namespace, entries))
        return entries

    def of(self, name: str, user: Container) -> Mapping[str, File | None] | None:
        """Return the data of the ConfigMap that a container refers to; None if there is none.

        A ConfigMap of the same file wins, then one of the same folder, then any other one. Where
        several match, such as those of a test and a production overlay, an entry that differs
        between them is None.
        """
        for place in _places(user.source):
            key = (name, place, user.namespace)
            if key not in self.known:
                self.known[key] = _common(
                    _of_namespace(self.found.get((name, place), ()), *key[2:])
                )
            found = self.known[key]
            if found is not None:
                return found
        return None

    def files(self) -> Iterator[tuple[str, str, File]]:
        """Yield the name of a ConfigMap, the key and the file, for all data."""
        for (name, place), every in self.found.items():
            for _, entries in every if place == _ANYWHERE else ():
                for key, file in entries.items():
                    yield name, key, file


def _env_files(generator: Node, source: Source) -> dict[str, File] | None:
    """Return the variables in the `envs` files of a generator; None if a file is missing."""
    entries: dict[str, File] = {}
    names = [item.text for item in generator.list("envs")[:_MAX_FILES]]
    for name in filter(None, [*names, generator.string("env")]):  # `env`: the older form
        found = _beside(name, source)
        if found is None:
            return None
        for number, line in enumerate(found.text.split("\n"), 1):
            key, equals, value = line.strip().partition("=")
            if equals and not key.startswith("#"):
                entries[key.strip()] = File(value.strip(), found, number)
    return entries


def _beside(name: str, source: Source) -> Source | None:
    return source.near(os.path.normpath(os.path.join(source.directory, name)), "")


def _places(source: Source) -> tuple[str, str, str]:
    """Return the places where a ConfigMap is looked up, the nearest first."""
    return f"file {source.path}", f"folder {source.directory}", _ANYWHERE


def _of_namespace(
    every: Sequence[tuple[str, dict[str, File]]], wanted: str
) -> list[dict[str, File]]:
    """Return the data of those in a namespace, else of those that give none; all for ""."""
    same = [entries for namespace, entries in every if namespace == wanted]
    if wanted and same:
        return same
    return [entries for namespace, entries in every if not (namespace and wanted)]


def _common(every: Sequence[Mapping[str, File]]) -> Mapping[str, File | None] | None:
    """Return the entries that are equal in all; None for each other one, or if there is none."""
    texts: dict[str, list[str]] = {}
    for entries in every:
        for key, file in entries.items():
            texts.setdefault(key, []).append(file.text)
    return (
        {
            key: every[0].get(key) if len(found) == len(every) and len(set(found)) == 1 else None
            for key, found in texts.items()
        }
        if every
        else None
    )
