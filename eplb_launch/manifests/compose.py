"""Services of a compose file, with its interpolation. docs.docker.com/reference/compose-file."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from eplb_launch.command import UNKNOWN
from eplb_launch.manifests import dockerfiles, images, sources
from eplb_launch.manifests.expansion import replace
from eplb_launch.manifests.nodes import LIST, MAP, TEXT
from eplb_launch.manifests.tasks import COMPOSE, File, Task, Word, word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.manifests.nodes import Node
    from eplb_launch.manifests.sources import Source

_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z_]\w*)"
    r"|\{(?P<braced>[A-Za-z_]\w*)(?:(?P<operator>:?[-+?])(?P<operand>[^{}]*))?\}|(?P<rest>\{?))"
)


def is_compose(node: Node) -> bool:
    """Whether a document is a compose file."""
    services = node.get("services") if node.kind == MAP else None
    return services is not None and services.kind == MAP and not node.string("apiVersion")


def tasks(source: Source, node: Node) -> Iterator[Task]:
    """Yield what the services of a compose file start."""
    services = node.get("services")
    defaults = dict(_env_lines(sources.read(os.path.join(source.directory, ".env"), "")))
    for name, service in services.entries().items() if services is not None else ():
        if service.kind == MAP:
            task = _Service(source, node, service, defaults).task(name)
            if task is not None:
                yield task


class _Service:
    """A service that is being read."""

    def __init__(
        self, source: Source, whole: Node, node: Node, defaults: Mapping[str, str]
    ) -> None:
        self.source = source
        self.whole = whole
        self.node = node
        self.defaults = defaults  # of the .env file
        self.unread: list[str] = []

    def task(self, name: str) -> Task | None:
        node = self.node
        image = self.text(node.get("image"))
        built = self.built()
        entrypoint = self.words(node.get("entrypoint"))
        command = self.words(node.get("command"))
        own_entry = entrypoint is None
        if entrypoint is None:
            by_image = built.entrypoint if built else self.by_image(image)
            if command is None and built:
                command = built.command
            entrypoint = by_image
        version, version_source = images.version(image)
        environ = dict(built.environ) if built else {}
        if built and version is None:
            version, version_source = images.version(built.image)
        environ.update(self.environment())
        words = (*entrypoint, *(command or ()))
        if node.get("extends") is not None:
            self.unread.append("the service that it extends")
        if not words:
            return None
        return Task(
            COMPOSE,
            f"service {name}",
            self.source,
            node.place(
                next((w.line for w in words if w.line and w.source is self.source), 0),
                *("command", "entrypoint", "image", "build"),
            ),
            words,
            environ,
            tuple(self.unread),
            self.text(node.get("working_dir")) or "/",
            image,
            version,
            version_source,
            {**(built.files if built else {}), **self.files()},
            own_entry=own_entry,
        )

    def by_image(self, image: str) -> tuple[Word, ...]:
        line = next(
            (n.line for n in (self.node.get("command"), self.node.get("image")) if n is not None),
            self.node.line,
        )
        return tuple(Word(text, self.source, line) for text in images.entry_point(image))

    def built(self) -> dockerfiles.Built | None:
        """Return what the Dockerfile that the service is built from starts."""
        build = self.node.get("build")
        if build is None:
            return None
        context = self.text(build) if build.kind == TEXT else self.text(build.get("context"))
        name = self.text(build.get("dockerfile")) if build.kind == MAP else ""
        path = os.path.normpath(
            os.path.join(self.source.directory, context or ".", name or "Dockerfile")
        )
        file = None if UNKNOWN in path else sources.read(path, sources.DOCKERFILE)
        if file is None or file.problem:
            self.unread.append("the Dockerfile that it is built from")
            return None
        target = self.text(build.get("target")) if build.kind == MAP else ""
        return dockerfiles.final(file, target)

    def text(self, node: Node | None) -> str:
        """Return a text with its variables replaced."""
        if node is None or node.kind != TEXT or node.null:
            return ""
        return interpolate(node.text, self.defaults)

    def words(self, node: Node | None) -> tuple[Word, ...] | None:
        """Return a command: a list of words, or a text that compose splits without a shell."""
        if node is None or node.null:
            return None
        if node.kind == LIST:
            return tuple(word(n, self.source, self.text(n)) for n in node.items if n.kind == TEXT)
        try:
            parts = shlex.split(self.text(node))
        except ValueError:
            return (Word(UNKNOWN, self.source, node.line),)
        return tuple(Word(part, self.source, node.line, node.end) for part in parts)

    def environment(self) -> dict[str, str]:
        environ: dict[str, str] = {}
        files = self.node.get("env_file")
        items = files.items if files is not None and files.kind == LIST else [files]
        for item in items:
            name = self.text(item.get("path") if item is not None and item.kind == MAP else item)
            if name:
                path = os.path.join(self.source.directory, name)
                found = None if UNKNOWN in path else sources.read(path, "")
                if found is None or found.problem:
                    self.unread.append(f"{os.path.basename(name)} (env_file)")
                else:
                    environ.update(_env_lines(found))
        given = self.node.get("environment")
        if given is not None and given.kind == MAP:
            for name, value in given.entries().items():
                # Without a value it is that of whoever starts compose.
                null = value.null
                environ[name] = self.defaults.get(name, UNKNOWN) if null else self.text(value)
        for item in given.items if given is not None and given.kind == LIST else ():
            name, equals, text = item.text.partition("=")
            environ[name] = (
                interpolate(text, self.defaults) if equals else self.defaults.get(name, UNKNOWN)
            )
        return environ

    def files(self) -> dict[str, File]:
        """Return the small files that are mounted from beside the compose file."""
        files: dict[str, File] = {}
        pairs: list[tuple[str, str]] = []
        for volume in self.node.list("volumes"):
            if volume.kind == MAP:
                pairs.append((self.text(volume.get("source")), self.text(volume.get("target"))))
            elif volume.kind == TEXT:
                host, _, rest = self.text(volume).partition(":")
                pairs.append((host, rest.partition(":")[0]))
        for config in self.node.list("configs"):
            name = self.text(config if config.kind == TEXT else config.get("source"))
            target = "" if config.kind == TEXT else self.text(config.get("target"))
            target = target or f"/{name}"
            entry = self.whole.at("configs", name)
            content = entry.get("content") if entry is not None else None
            if content is not None and content.kind == TEXT:
                files[target] = File(self.text(content), self.source, content.line)
            elif entry is not None:
                pairs.append((self.text(entry.get("file")), target))
        for host, target in pairs:
            if host.startswith("./") and target and UNKNOWN not in host:
                path = os.path.normpath(os.path.join(self.source.directory, host))
                found = sources.read(path, "") if os.path.isfile(path) else None
                if found is not None and not found.problem:
                    files[target] = File(found.text, found)
        return files


def interpolate(text: str, defaults: Mapping[str, str]) -> str:
    """Return a text with `$NAME`, `${NAME}`, `${NAME:-default}` and the like replaced.

    What is not in the .env file takes its default; without one it is UNKNOWN, because whoever
    starts compose may set it.
    """
    if "$" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name = match["name"] or match["braced"]
        if not name:
            return UNKNOWN
        operator, operand = match["operator"] or "", match["operand"] or ""
        known = defaults.get(name)
        if operator.endswith("-"):
            return operand if known is None or (not known and operator == ":-") else known
        if operator.endswith("+"):
            return operand if known else UNKNOWN
        return UNKNOWN if known is None else known

    return replace(_VARIABLE, value, text)


def _env_lines(source: Source | None) -> Iterator[tuple[str, str]]:
    """Yield the variables of an env file."""
    for line in source.text.split("\n") if source is not None and not source.problem else ():
        name, equals, text = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        text = text.strip()
        if text[:1] in ("'", '"') and text.endswith(text[:1]) and len(text) > 1:
            text = text[1:-1]
        else:
            text = text.partition(" #")[0].rstrip()
        yield name.strip(), UNKNOWN if "$" in text else text
