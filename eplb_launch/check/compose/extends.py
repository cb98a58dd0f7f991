"""The services that a service of a compose file is made of: it, and those that it extends.

docs.docker.com/reference/compose-file/services, extends. An override file is merged by docker
compose without being asked: docs.docker.com/compose/how-tos/multiple-compose-files/merge.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from eplb_launch.check import sources
from eplb_launch.check import yaml_tree as nodes
from eplb_launch.check.sources import Source
from eplb_launch.check.yaml_tree import LIST, MAP, TEXT, Node
from eplb_launch.model import UNKNOWN, Record

MAX_LAYERS = 50
MAX_FILES = 50  # that one compose file may lead to
_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")


class Layer(Record):
    """What one file says of a service."""

    source: Source
    node: Node


class Layers(Record):
    """What all files say of a service: the first that says something wins."""

    layers: tuple[Layer, ...]
    problem: str = ""  # why there may be more
    broken: bool = False  # docker compose itself refuses it


class Files:
    """The compose files that one of them leads to, each read once."""

    def __init__(self, source: Source, node: Node, text: Callable[[Node | None], str]) -> None:
        """Begin with the one that is checked; `text` reads a node of it."""
        self.text = text
        self.found: dict[str, Layer | None] = {os.path.normpath(source.path): Layer(source, node)}
        self.first = Layer(source, node)
        place = override_of(source.path)
        self.override = self.read(place) if place else None

    def read(self, path: str) -> Layer | None:
        """Return a file and its tree; None if it cannot be read."""
        if path not in self.found:
            self.found[path] = (
                _read(path, self.first.source) if len(self.found) < MAX_FILES else None
            )
        return self.found[path]

    def layers(self, name: str) -> Layers:
        """Return what a service is made of."""
        files = [file for file in (self.override, self.first) if file is not None]
        found = [
            self._extended(Layer(file.source, service), file, name)
            for file in files
            if (service := file.node.at("services", name)) is not None and service.kind == MAP
        ]
        return Layers(
            tuple(layer for one in found for layer in one.layers),
            next((one.problem for one in found if one.problem), ""),
            any(one.broken for one in found),
        )

    def _extended(self, layer: Layer, file: Layer, name: str) -> Layers:
        """Return a service, and what it extends, up to the one that extends nothing."""
        layers = [layer]
        names = [(file.source.path, name)]
        while (given := layers[-1].node.get("extends")) is not None and not given.null:
            path = self.text(given.get("file")) if given.kind == MAP else ""
            name = self.text(given if given.kind == TEXT else given.get("service"))
            if path:
                directory = layers[-1].source.directory
                place = os.path.normpath(os.path.join(directory, path))
                other = None if UNKNOWN in path else self.read(place)
                if other is None:
                    return Layers(
                        tuple(layers), f"it extends a service of {path}, which is not here"
                    )
                file = other
            base = file.node.at("services", name)
            if base is None or base.kind != MAP:
                return Layers(tuple(layers), f"it extends {name}, which is not there")
            if (file.source.path, name) in names:
                circle = ", ".join([*(one for _, one in names), name])
                return Layers(tuple(layers), f"its extends goes in a circle: {circle}", broken=True)
            if len(layers) >= MAX_LAYERS:
                return Layers(
                    tuple(layers), f"it extends more than {MAX_LAYERS - 1} services in a row"
                )
            names.append((file.source.path, name))
            layers.append(Layer(file.source, base))
        return Layers(tuple(layers))


def included(files: Sequence[Layer]) -> Iterator[Layer | tuple[Layer, Node]]:
    """Yield compose files and those that they `include`, each once.

    For one that cannot be read: the file that includes it, and where it says so.
    """
    todo = list(files)
    seen = {os.path.normpath(file.source.path) for file in files}
    for file in todo:  # which gets longer meanwhile
        yield file
        for path in _paths(file.node):
            place = os.path.normpath(os.path.join(file.source.directory, path.text))
            if place in seen:
                continue
            seen.add(place)
            found = _read(place, file.source) if len(seen) < len(files) + MAX_FILES else None
            if found is None:
                yield file, path
            else:
                todo.append(found)


def _paths(node: Node) -> Iterator[Node]:
    """Yield the paths that a compose file includes."""
    for item in node.list("include"):
        path = item.get("path") if item.kind == MAP else item
        for at in path.items if path is not None and path.kind == LIST else [path]:
            if at is not None and at.kind == TEXT:
                yield at


def override_of(path: str) -> str:
    """Return the override file that docker compose merges into a file; "" if there is none."""
    folder, name = os.path.split(path)
    if name not in _NAMES:
        return ""
    stem = name.rpartition(".")[0]
    places = [os.path.join(folder, f"{stem}.override.{suffix}") for suffix in ("yml", "yaml")]
    return next((os.path.normpath(place) for place in places if os.path.isfile(place)), "")


def _read(path: str, by: Source) -> Layer | None:
    source = by.near(path, sources.YAML)
    if source is None:
        return None
    for _, document in nodes.documents(source.text):
        if not isinstance(document, nodes.Problem) and document.kind == MAP:
            return Layer(source, document)
    return None
