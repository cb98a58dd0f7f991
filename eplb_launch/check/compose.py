"""What the services of compose files start.

docs.docker.com/reference/compose-file, docs.docker.com/compose/how-tos/multiple-compose-files.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence

from eplb_launch.check import dockerfile as dockerfiles
from eplb_launch.check import images, yaml_tree
from eplb_launch.check.kind import HINTS, LEADS, Kind
from eplb_launch.check.model import Trouble
from eplb_launch.check.sources import YAML, Source
from eplb_launch.check.tasks import File, Style, Task, Variables, Word, misshapen, word, words_at
from eplb_launch.check.templating import COMPOSE, LONGEST, env_lines, expand
from eplb_launch.check.yaml_tree import LIST, MAP, TEXT, Node
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.vllm.releases import CAP, VARIABLE

STYLE = Style(
    "in the service",
    f'environment:\n  {VARIABLE}: "{CAP}"',
    begins="entrypoint: {}",
    own=("give the container a command that starts with eplb-launch", "entrypoint: {}"),
)
# A service with one of these may have its command or its variables in another file.
_LEADS = (*LEADS, "build", "configs", "env_file", "extends", "include", "volumes")
_MAX_EXTENDED = 49
_MAX_FILES = 50  # that one compose file may name
_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")


class Compose(Kind):
    title = "a compose file"
    form = YAML
    suffixes = (".yaml", ".yml", ".json")

    def __init__(self) -> None:
        super().__init__()
        self.files: list[Part] = []

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take a document with services; keep it if it may start vLLM."""
        services = document.get("services") if document else None
        if not document or not services or services.kind != MAP or document.string("apiVersion"):
            return False
        if any(word in text for word in (*HINTS, *_LEADS)) or _override_of(source.path):
            self.files.append(Part(source, document))
        return True

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]] | Trouble]:
        overrides = {_override_of(file.source.path) for file in self.files}
        for file in _included(self.files):
            if isinstance(file, Trouble):
                yield file
            elif os.path.normpath(file.source.path) not in overrides:
                yield file.source, tasks(file)


def tasks(file: Part) -> Iterator[Task]:
    files, services = _Files(file), file.node.get("services")
    for name in services.entries() if services else ():
        service = _Service(files, name)
        task = service.task()
        if task is not None and service.has_defaults:
            task = task.replace(without_defaults=_Service(files, name, assumed=False).task())
        if task is not None:
            yield task


class _Service:
    def __init__(self, files: _Files, name: str, *, assumed: bool = True) -> None:
        self.files = files
        self.text = files.text
        self.source, whole = files.first.source, files.first.node
        self.configs = whole.get("configs")
        self.name = name
        self.node = whole.at("services", name) or whole
        self.parts, self.problem = files.parts(name)
        self.assumed = assumed  # a variable that is not known has its default
        self.has_defaults = False
        self.not_words = ""  # why a command could not be split
        self.folders: dict[str, Sequence[str]] = {}  # those that are mounted
        self.unread = [self.problem] if self.problem else []

    def task(self) -> Task | None:
        """Return the command of the service; None if it has none."""
        image = self.string("image")
        base = self.built() or dockerfiles.of_image(image, self.source)
        entrypoint, command = self.words("entrypoint"), self.words("command")
        own_entry = entrypoint is None and bool(base.entrypoint)
        if entrypoint is None:
            entrypoint = base.entrypoint
            command = base.command if command is None else command
        words = (*entrypoint, *(command or ()))
        unreadable = self.unreadable(image, words)
        if not words and not unreadable:
            return None
        variables = self.environment(base.variables)
        self.folders = dict(base.folders)
        mounts = dict(self.mounts())
        directory = self.string("working_dir") or "/"
        given = self.get("entrypoint" if entrypoint else "command")[1]
        return Task(
            STYLE,
            f"service {self.name}",
            self.source,
            self.node.place(
                next((w.line for w in words if w.line and w.source is self.source), 0),
                *("command", "entrypoint", "image", "build", "extends"),
            ),
            words,
            variables,
            directory,
            image,
            {
                **dockerfiles.files_below(self.folders, words, directory, self.source),
                **base.files,
                **{path: file for path, file in mounts.items() if file is not None},
            },
            unreadable=unreadable,
            own_entry=own_entry,
            base=base.image,
            as_text=not own_entry and given is not None and given.kind == TEXT,
            only_arguments=not entrypoint,
            adds=base.adds,
            installs=base.installs,
            mounts=tuple(mounts),
            entry=self.entry(),
        )

    def entry(self) -> str:
        """Return the line that adds the cap to `environment`; "" if there is no `environment`."""
        given = self.node.get("environment")
        if given is None or not (given.items or given.pairs):
            return ""
        return f'{VARIABLE}: "{CAP}"' if given.kind == MAP else f"- {VARIABLE}={CAP}"

    def unreadable(self, image: str, words: Sequence[Word]) -> str:
        """Return why the command could not be read; "" if it could, or is not vLLM's."""
        if self.problem and not words and (not image or images.is_vllm(image)):
            return self.problem
        given = {name: self.get(name)[1] for name in ("entrypoint", "command")}
        texts = (node.text for node in given.values() if node is not None)
        if self.not_words and (images.is_vllm(image) or any("vllm" in text for text in texts)):
            return self.not_words
        return misshapen(given, image)

    def merged(self, name: str) -> list[tuple[Source, Node]]:
        """Return the values of a key in all definitions, each with its file."""
        found: list[tuple[Source, Node]] = []
        for part in self.parts:
            value = part.node.get(name)
            if value is not None and value.tag in ("!reset", "!override"):
                found = []
            if value is not None and value.tag != "!reset":
                found.append((part.source, value))
        return found

    def get(self, name: str) -> tuple[Source, Node | None]:
        """Return the last value of a key and its file: it replaces the others."""
        given = [(source, value) for source, value in self.merged(name) if not value.null]
        return given[-1] if given else (self.source, None)

    def items(self, name: str) -> Iterator[tuple[Source, Node]]:
        """Yield the elements of a key in all definitions: they add up."""
        for source, value in self.merged(name):
            for item in value.items if value.kind == LIST else [value]:
                yield source, item

    def string(self, name: str) -> str:
        return self.text(self.get(name)[1])

    def built(self) -> dockerfiles.Stage | None:
        """Return the image that the service is built from."""
        parts = self.merged("build")
        if not parts:
            return None
        given: dict[str, Part] = {}
        arguments: dict[str, str] = {}
        for source, build in parts:
            entries = build.entries() if build.kind == MAP else {"context": build}
            given.update({key: Part(source, value) for key, value in entries.items()})
            for key, text, _ in _pairs(build.get("args")):
                arguments[key] = expand(text, self.files.defaults, COMPOSE)
        texts = {key: self.text(part.node) for key, part in given.items()}
        inline = given.get("dockerfile_inline")
        if inline is not None:
            # Empty lines before it give its lines the numbers that they have in this file.
            text = "\n" * (inline.node.line - 1) + texts["dockerfile_inline"]
            file: Source | None = inline.source.replace(kind=dockerfiles.Dockerfile.form, text=text)
        else:
            source = given["context"].source if "context" in given else self.source
            names = texts.get("context") or ".", texts.get("dockerfile") or "Dockerfile"
            file = self.source.near(_path(source, *names), dockerfiles.Dockerfile.form)
        if file is None or not self.source.spend(len(file.text)):
            self.unread.append("the Dockerfile that it is built from")
            return None
        return dockerfiles.final(file, texts.get("target", ""), arguments)

    def possible(self, name: str, text: str) -> str:
        """Return a word, or the value of the variable `name`, with its variables replaced.

        Whoever starts compose may set a value in place of a default. The cap's default is trusted.
        """
        found = expand(text, self.files.defaults, COMPOSE)
        sure = expand(text, self.files.defaults, COMPOSE, assumed=name == VARIABLE)
        self.has_defaults = self.has_defaults or found != sure
        return found if self.assumed else sure

    def words(self, name: str) -> tuple[Word, ...] | None:
        """Return the words of a command; None if it is not given. No shell splits a text."""
        source, node = self.get(name)
        if node is None:
            return None
        if node.kind == LIST:
            texts = (n for n in node.items if n.kind == TEXT)
            return tuple(word(n, source, self.possible("", n.text)) for n in texts)
        text = self.possible("", node.text)
        try:
            parts = shlex.split(text if len(text) <= LONGEST else "'")
        except ValueError:
            self.not_words = f"its {name} cannot be split into words"
            return ()
        return words_at(parts, source, node.line, node.end)

    def environment(self, base: Variables) -> Variables:
        """Return the variables of the image, of `env_file` and of `environment`."""
        variables = Variables(base)
        for source, item in self.items("env_file"):
            name = self.text(item.get("path") if item.kind == MAP else item)
            found = self.source.near(os.path.join(source.directory, name), "") if name else None
            if name and found is None:
                self.unread.append(f"{os.path.basename(name)} (env_file)")
            for key, text, line in env_lines(found, compose=True):
                variables.set(key, text, found or source, line, f"{key}={CAP}")
        for source, given in self.merged("environment"):
            form = '{}: "{}"' if given.kind == MAP else "{}={}"
            for key, text, line in _pairs(given):
                value = self.possible(key, text)
                variables.set(key, value, source, line, form.format(key, CAP))
        variables.unread = self.unread
        return variables

    def mounts(self) -> Iterator[tuple[str, File | None]]:
        """Yield the path of each mount in the container, and the file if it can be read here."""
        for source, volume in self.items("volumes"):
            if volume.kind == MAP:
                host, target = self.text(volume.get("source")), self.text(volume.get("target"))
            else:
                host, _, rest = self.text(volume).partition(":")
                target = rest.partition(":")[0] or host
            file = self.file(source, host) if host.startswith("./") else None
            if host.startswith(".") and file is None:
                self.folders[target] = [_path(source, host)]
            yield target, file
        for source, config in self.items("configs"):
            name = self.text(config if config.kind == TEXT else config.get("source"))
            target = self.text(config.get("target")) or f"/{name}"
            entry = self.configs.get(name) if self.configs is not None else None
            content = entry.get("content") if entry is not None else None
            if content is not None:
                yield target, File(self.text(content), self.source, content.line)
            else:
                path = self.text(entry.get("file")) if entry is not None else ""
                yield target, self.file(source, path)

    def file(self, source: Source, name: str) -> File | None:
        """Return a file that a compose file names by its relative path."""
        is_known = name and UNKNOWN not in name
        found = self.source.near(_path(source, name), "") if is_known else None
        return None if found is None else File(found.text, found)


def _path(source: Source, *names: str) -> str:
    """Return a path that a file names, from its folder."""
    return os.path.normpath(os.path.join(source.directory, *names))


def _pairs(given: Node | None) -> Iterator[tuple[str, str, int]]:
    """Yield the name, the value and the line of each entry of a map or of a NAME=VALUE list.

    An entry without a value takes it from the environment of compose.
    """
    if given is None:
        return
    for name, value in given.entries().items() if given.kind == MAP else ():
        yield name, f"${{{name}}}" if value.null else value.text, value.line
    for item in given.items:
        name, equals, text = item.text.partition("=")
        yield name, text if equals else f"${{{name}}}", item.line


class Part(Record):
    """A compose file, or a node of one."""

    source: Source
    node: Node


class _Files:
    """A compose file, the files that it names, and its variables."""

    def __init__(self, first: Part) -> None:
        path = os.path.join(first.source.directory, ".env")
        env = first.source.near(path, "", guessed=not os.path.islink(path))
        self.defaults = {name: text for name, text, _ in env_lines(env, compose=True)}
        self.first = first
        self.found: dict[str, Part | None] = {os.path.normpath(first.source.path): first}
        place = _override_of(first.source.path)
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
        while True:
            service = file.node.at("services", name)
            if service is None or service.kind != MAP:
                return parts, f"it extends {name}, which does not exist" if parts else ""
            if len(parts) > _MAX_EXTENDED:
                return parts, f"it extends itself, or more than {_MAX_EXTENDED} services in a row"
            parts.insert(0, Part(file.source, service))
            given = service.get("extends")
            if given is None or given.null:
                return parts, ""
            path = self.text(given.get("file"))
            name = self.text(given if given.kind == TEXT else given.get("service"))
            if path:
                other = None if UNKNOWN in path else self.read(_path(file.source, path))
                if other is None:
                    return parts, f"it extends a service of {path}, which is not here"
                file = other


def _included(files: Sequence[Part]) -> Iterator[Part | Trouble]:
    """Yield compose files and the files that they include, each once."""
    todo = list(files)
    seen = {os.path.normpath(file.source.path) for file in files}
    for file in todo:  # the loop appends to it
        yield file
        for path in _paths(file.node):
            place = _path(file.source, path.text)
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


def _override_of(path: str) -> str:
    """Return the path of the override file of a compose file; "" if it has none."""
    folder, name = os.path.split(path)
    if name not in _NAMES:
        return ""
    stem = name.rpartition(".")[0]
    places = [os.path.join(folder, f"{stem}.override.{suffix}") for suffix in ("yml", "yaml")]
    return next((os.path.normpath(place) for place in places if os.path.isfile(place)), "")


def _read(path: str, by: Source) -> Part | None:
    source = by.near(path, YAML)
    documents = yaml_tree.documents(source.text) if source is not None else ()
    trees = (tree for _, tree in documents if isinstance(tree, Node) and tree.kind == MAP)
    tree = next(trees, None)
    return Part(source, tree) if source is not None and tree is not None else None
