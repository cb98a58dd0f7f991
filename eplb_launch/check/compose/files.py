"""The compose files that define a service together: override files, extends, include.

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

_MAX_EXTENDED = 49
_MAX_FILES = 50  # that one compose file may name
_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")


class Part(Record):
    """A compose file, or a node of one."""

    source: Source
    node: Node


class Files:
    """A compose file, the files that it names, and its variables."""

    def __init__(self, first: Part) -> None:
        path = os.path.join(first.source.directory, ".env")
        env = first.source.near(path, "", guessed=not os.path.islink(path))
        self.defaults = {name: text for name, text, _ in env_lines(env, compose=True)}
        self.first = first
        self.found: dict[str, Part | None] = {os.path.normpath(first.source.path): first}
        place = override_of(first.source.path)
        self.override = self.read(place) if place else None

    def text(self, node: Node | None) -> str:
        """Return the text of a node with its variables replaced; "" if there is none."""
        return "" if node is None or node.null else expand(node.text, self.defaults, COMPOSE)

    def read(self, path: str) -> Part | None:
        """Return a file; None if it cannot be read."""
        if path not in self.found:
            room = len(self.found) < _MAX_FILES
            self.found[path] = _read(path, self.first.source) if room else None
        return self.found[path]

    def parts(self, name: str) -> tuple[list[Part], str]:
        """Return all definitions of a service, and why some are missing ("": none is).

        A later definition overrides an earlier one: an extended service comes first.
        """
        files = [file for file in (self.first, self.override) if file is not None]
        found = [self._extended(file, name) for file in files]
        problems = [problem for _, problem in found if problem]
        return [part for parts, _ in found for part in parts], "".join(problems[-1:])

    def _extended(self, file: Part, name: str) -> tuple[list[Part], str]:
        """Return a service of a file after those that it extends, and why some are missing."""
        parts: list[Part] = []
        seen: list[tuple[str, str]] = []
        while True:
            service = file.node.at("services", name)
            if service is None or service.kind != MAP:
                return parts, f"it extends {name}, which does not exist" if parts else ""
            if (file.source.path, name) in seen:
                circle = ", ".join([*(one for _, one in seen), name])
                return parts, f"its `extends` is circular: {circle}"
            if len(parts) > _MAX_EXTENDED:
                return parts, f"it extends more than {_MAX_EXTENDED} services in a row"
            seen.append((file.source.path, name))
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
    """Yield compose files and the files that they include, each once."""
    todo = list(files)
    seen = {os.path.normpath(file.source.path) for file in files}
    for file in todo:  # the loop appends to it
        yield file
        for path in _paths(file.node):
            place = os.path.normpath(os.path.join(file.source.directory, path.text))
            if place in seen:
                continue
            seen.add(place)
            found = _read(place, file.source) if len(seen) < len(files) + _MAX_FILES else None
            if found is None:
                message = "it includes a file that is not here or is not YAML"
                yield Trouble(file.source.path, path.line, message)
            else:
                todo.append(found)


def _paths(node: Node) -> Iterator[Node]:
    """Yield the paths of the files that a compose file includes."""
    for item in node.list("include"):
        path = item.get("path") if item.kind == MAP else item
        for at in path.items if path is not None and path.kind == LIST else [path]:
            if at is not None and at.kind == TEXT:
                yield at


def override_of(path: str) -> str:
    """Return the path of the override file of a compose file; "" if it has none."""
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
