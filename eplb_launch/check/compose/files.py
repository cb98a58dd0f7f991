"""All that compose files say of a service: override files, extends, include.

docs.docker.com/compose/how-tos/multiple-compose-files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from eplb_launch.check import yaml_tree
from eplb_launch.check.model import Trouble
from eplb_launch.check.sources import YAML, Source
from eplb_launch.check.templating import COMPOSE, env_lines, expand
from eplb_launch.check.yaml_tree import LIST, MAP, TEXT, Node
from eplb_launch.model import UNKNOWN, Record

_MAX_PARTS = 50
_MAX_FILES = 50  # that one compose file may lead to
_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")


class Part(Record):
    """A compose file, or what one says of a service."""

    source: Source
    node: Node


class Files:
    """The compose files that one of them leads to, each read once, and its variables."""

    def __init__(self, first: Part) -> None:
        """Begin with the file that is checked."""
        path = os.path.join(first.source.directory, ".env")
        env = first.source.near(path, "", guessed=not os.path.islink(path))
        self.defaults = {name: text for name, text, _ in env_lines(env, compose=True)}
        self.first = first
        self.found: dict[str, Part | None] = {os.path.normpath(first.source.path): first}
        place = override_of(first.source.path)
        self.override = self.read(place) if place else None

    def text(self, node: Node | None) -> str:
        """Return a text with its variables replaced; "" if it is none."""
        return "" if node is None or node.null else expand(node.text, self.defaults, COMPOSE)

    def read(self, path: str) -> Part | None:
        """Return a file and its tree; None if it cannot be read."""
        if path not in self.found:
            room = len(self.found) < _MAX_FILES
            self.found[path] = _read(path, self.first.source) if room else None
        return self.found[path]

    def parts(self, name: str) -> tuple[list[Part], str]:
        """Return what all files say of a service, and why there may be more of it.

        A later part overrides an earlier one: what a service extends comes before it.
        """
        files = [file for file in (self.first, self.override) if file is not None]
        found = [self._extended(file, name) for file in files]
        problems = [problem for _, problem in found if problem]
        return [part for parts, _ in found for part in parts], "".join(problems[-1:])

    def _extended(self, file: Part, name: str) -> tuple[list[Part], str]:
        """Return a service of a file behind those that it extends, and why there may be more."""
        parts: list[Part] = []
        names: list[tuple[str, str]] = []
        while True:
            service = file.node.at("services", name)
            if service is None or service.kind != MAP:
                return parts, f"it extends {name}, which is not there" if parts else ""
            if (file.source.path, name) in names:
                circle = ", ".join([*(one for _, one in names), name])
                return parts, f"its extends goes in a circle: {circle}"
            if len(parts) >= _MAX_PARTS:
                return parts, f"it extends more than {_MAX_PARTS - 1} services in a row"
            names.append((file.source.path, name))
            parts.insert(0, Part(file.source, service))
            given = service.get("extends")
            if given is None or given.null:
                return parts, ""
            path = self.text(given.get("file"))
            name = self.text(given if given.kind == TEXT else given.get("service"))
            if path:
                place = os.path.normpath(os.path.join(file.source.directory, path))
                other = None if UNKNOWN in path else self.read(place)
                if other is None:
                    return parts, f"it extends a service of {path}, which is not here"
                file = other


def included(files: Sequence[Part]) -> Iterator[Part | Trouble]:
    """Yield compose files and those that they `include`, each once."""
    todo = list(files)
    seen = {os.path.normpath(file.source.path) for file in files}
    for file in todo:  # which gets longer meanwhile
        yield file
        for path in _paths(file.node):
            place = os.path.normpath(os.path.join(file.source.directory, path.text))
            if place in seen:
                continue
            seen.add(place)
            found = _read(place, file.source) if len(seen) < len(files) + _MAX_FILES else None
            if found is None:
                message = "it includes a file that is not here, or is no YAML"
                yield Trouble(file.source.path, path.line, message)
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


def _read(path: str, by: Source) -> Part | None:
    source = by.near(path, YAML)
    for _, document in yaml_tree.documents(source.text) if source is not None else ():
        if (
            source is not None
            and not isinstance(document, yaml_tree.Problem)
            and document.kind == MAP
        ):
            return Part(source, document)
    return None
