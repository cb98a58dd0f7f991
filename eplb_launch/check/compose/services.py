"""Services of a compose file, with its interpolation. docs.docker.com/reference/compose-file."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from eplb_launch.check import dockerfile as dockerfiles
from eplb_launch.check import images, sources
from eplb_launch.check.compose import extends
from eplb_launch.check.kind import HINTS, LEADS, Kind
from eplb_launch.check.model import Trouble
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import File, Place, Task, Variables, Word, misshapen, word, words_at
from eplb_launch.check.templating import LONGEST, env_lines, interpolate
from eplb_launch.check.yaml_tree import LIST, MAP, TEXT, Node
from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.releases import CAP, VARIABLE

PLACE = Place(
    "in the service",
    f'environment:\n  {VARIABLE}: "{CAP}"',
    begins="entrypoint: {}",
    own=("give the container a command that starts with eplb-launch", "entrypoint: {}"),
)
# With one of these, what a file starts may be said in another, or its variables there.
_LEADS = (*LEADS, "build", "configs", "env_file", "extends", "include", "volumes")
_DEFAULT = re.compile(r"\$\{\w+:?[-+]")


class Compose(Kind):
    title = "a compose file"
    form = sources.YAML
    suffixes = (".yaml", ".yml", ".json")

    def __init__(self) -> None:
        super().__init__()
        self.files: list[extends.Layer] = []

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take it, if a server may come of it."""
        services = document.get("services") if document and document.kind == MAP else None
        if not document or not services or services.kind != MAP or document.string("apiVersion"):
            return False
        if any(word in text for word in (*HINTS, *_LEADS)) or extends.override_of(source.path):
            self.files.append(extends.Layer(source, document))
        return True

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]] | Trouble]:
        merged = {extends.override_of(file.source.path) for file in self.files}
        for file in extends.included(self.files):
            if isinstance(file, tuple):
                message = "it includes a file that is not here, or is no YAML"
                yield Trouble(file[0].source.path, file[1].line, message)
            elif os.path.normpath(file.source.path) not in merged:
                yield file.source, tasks(file.source, file.node)


def tasks(source: Source, node: Node) -> Iterator[Task]:
    """Yield what the services of a compose file start."""
    services = node.get("services")
    path = os.path.join(source.directory, ".env")
    env = source.near(path, "", guessed=not os.path.islink(path))
    defaults = {name: text for name, text, _ in env_lines(env)}
    files = extends.Files(source, node, lambda at: _text(at, defaults))
    for name, service in services.entries().items() if services is not None else ():
        if service.kind == MAP:
            layers = files.layers(name)
            reader = _Service(files.first, service, layers, defaults)
            task = reader.task(name)
            if task is not None and reader.has_defaults:
                other = _Service(files.first, service, layers, defaults, assumed=False)
                task = task.replace(without_defaults=other.task(name))
            if task is not None:
                yield task


def _text(node: Node | None, defaults: Mapping[str, str]) -> str:
    """Return a text with its variables replaced."""
    if node is None or node.kind != TEXT or node.null:
        return ""
    return interpolate(node.text, defaults)


class _Service:
    def __init__(
        self,
        file: extends.Layer,
        node: Node,
        layers: extends.Layers,
        defaults: Mapping[str, str],
        *,
        assumed: bool = True,
    ) -> None:
        self.assumed = assumed  # variables have their defaults, also in what decides
        self.has_defaults = False
        self.source = file.source
        self.whole = file.node
        self.node = node
        self.layers = layers
        self.unsplit = ""  # why a command is none
        self.defaults = defaults  # of the .env file
        self.unread = [layers.problem] if layers.problem else []

    def task(self, name: str) -> Task | None:
        image = self.text(self.get("image")[1])
        built = self.built()
        given = self.words("entrypoint")
        command = self.words("command")
        entrypoint = given
        if entrypoint is None:
            entrypoint = built.entrypoint if built else self.by_image(image)
            command = built.command if built and command is None else command
        variables = self.environment(built.variables if built else None)
        words = (*entrypoint, *(command or ()))
        unreadable = self.unreadable(image, words)
        if not words and not unreadable:
            return None
        own_entry = given is None and bool(entrypoint)
        text = self.get("entrypoint" if entrypoint else "command")[1]
        return Task(
            PLACE,
            f"service {name}",
            self.source,
            self.node.place(
                next((w.line for w in words if w.line and w.source is self.source), 0),
                *("command", "entrypoint", "image", "build", "extends"),
            ),
            words,
            variables,
            self.text(self.get("working_dir")[1]) or "/",
            image,
            {**(built.files if built else {}), **self.files()},
            base=built.image if built else "",
            adds=built is not None and built.adds,
            unreadable=unreadable,
            own_entry=own_entry,
            as_text=not own_entry and text is not None and text.kind == TEXT,
            only_arguments=not entrypoint,
            mounts=self.targets(),
            entry=self.entry(),
        )

    def entry(self) -> str:
        """Return what sets the limit in the `environment` of the service; "" if it has none."""
        given = self.node.get("environment")
        if given is None or not (given.items or given.pairs):
            return ""
        return f'{VARIABLE}: "{CAP}"' if given.kind == MAP else f"- {VARIABLE}={CAP}"

    def unreadable(self, image: str, words: Sequence[Word]) -> str:
        """Return why the command is not known; "" if it is, or seems to be none of vLLM."""
        nothing = not words and (not image or images.is_vllm(image))
        if self.layers.broken or (self.layers.problem and nothing):
            return self.layers.problem
        texts = (node.text for _, node in map(self.get, ("entrypoint", "command")) if node)
        if self.unsplit and (images.is_vllm(image) or any("vllm" in text for text in texts)):
            return self.unsplit
        return misshapen({name: self.get(name)[1] for name in ("entrypoint", "command")}, image)

    def merged(self, name: str) -> list[tuple[Source, Node]]:
        """Return the values of a key, each with its file, the innermost first."""
        found: list[tuple[Source, Node]] = []
        for layer in reversed(self.layers.layers):
            value = layer.node.get(name)
            if value is not None and value.tag in ("!reset", "!override"):
                found = []
            if value is not None and value.tag != "!reset":
                found.append((layer.source, value))
        return found

    def get(self, name: str) -> tuple[Source, Node | None]:
        """Return the value of a key that replaces what is extended, and its file."""
        given = (found for found in reversed(self.merged(name)) if not found[1].null)
        return next(given, (self.source, None))

    def lists(self, name: str) -> Iterator[tuple[Source, Node]]:
        """Yield the elements of a key that adds to what is extended, the innermost last."""
        for source, value in self.merged(name):
            for item in value.items if value.kind == LIST else [value]:
                yield source, item

    def by_image(self, image: str) -> tuple[Word, ...]:
        found = (self.node.get(name) for name in ("command", "image"))
        line = next((node.line for node in found if node is not None), self.node.line)
        return words_at(images.entry_point(image), self.source, line)

    def built(self) -> dockerfiles.Stage | None:
        """Return what the Dockerfile that the service is built from starts."""
        parts = self.merged("build")
        if not parts:
            return None
        directory, context, name, target = self.source.directory, "", "", ""
        arguments: dict[str, str] = {}

        def read(_name: str, text: str) -> str:
            return interpolate(text, self.defaults)

        inline: tuple[Source, Node] | None = None
        for source, build in parts:
            given = build if build.kind == TEXT else build.get("context")
            if given is not None:
                directory, context = source.directory, self.text(given)
            name = self.text(build.get("dockerfile")) or name
            content = build.get("dockerfile_inline")
            inline = inline if content is None else (source, content)
            target = self.text(build.get("target")) or target
            arguments.update((key, value) for key, value, _ in self.pairs(build.get("args"), read))
        path = os.path.normpath(os.path.join(directory, context or ".", name or "Dockerfile"))
        if inline is not None:
            source, content = inline
            # Behind so many empty lines, its lines are those of the compose file.
            text = "\n" * (content.line - 1) + self.text(content)
            file: Source | None = source.replace(kind=dockerfiles.Dockerfile.form, text=text)
        else:
            file = self.source.near(path, dockerfiles.Dockerfile.form)
        if file is None or not self.source.spend(len(file.text)):
            self.unread.append("the Dockerfile that it is built from")
            return None
        return dockerfiles.final(file, target, arguments)

    def text(self, node: Node | None) -> str:
        return _text(node, self.defaults)

    def possible(self, name: str, text: str) -> str:
        """Return a text with its variables replaced: a word, or what the variable `name` is set to.

        A default is one value of many; but who writes one for the limit has thought of it.
        """
        self.has_defaults = self.has_defaults or _DEFAULT.search(text) is not None
        return interpolate(text, self.defaults, assumed=self.assumed or name == VARIABLE)

    def words(self, name: str) -> tuple[Word, ...] | None:
        """Return a command: a list of words, or a text that compose splits without a shell."""
        source, node = self.get(name)
        if node is None:
            return None
        if node.kind == LIST:
            texts = (n for n in node.items if n.kind == TEXT)
            return tuple(word(n, source, self.possible("", n.text)) for n in texts)
        text = self.possible("", node.text if node.kind == TEXT else "")
        try:
            if len(text) > LONGEST:
                raise ValueError  # noqa: TRY301 - no program takes so much
            parts = shlex.split(text)
        except ValueError:
            self.unsplit = f"its {name} cannot be split into words"
            return ()
        return words_at(parts, source, node.line, node.end)

    def environment(self, base: Variables | None) -> Variables:
        """Return the variables of the image, of the files of `env_file`, and of `environment`."""
        variables = Variables(base)
        for source, item in self.lists("env_file"):
            name = self.text(item.get("path") if item.kind == MAP else item)
            found = self.source.near(os.path.join(source.directory, name), "") if name else None
            if name and found is None:
                self.unread.append(f"{os.path.basename(name)} (env_file)")
            for key, text, line in env_lines(found):
                variables.set(key, text, found or source, line, f"{key}={CAP}")
        for source, given in self.merged("environment"):
            for key, text, at in self.pairs(given, self.possible):
                form = f'{key}: "{CAP}"' if given.kind == MAP else f"{key}={CAP}"
                variables.set(key, text, source, at.line, form)
        variables.unread = self.unread
        return variables

    def pairs(
        self, given: Node | None, read: Callable[[str, str], str]
    ) -> Iterator[tuple[str, str, Node]]:
        """Yield what a map, or a list of NAME=VALUE, sets; `read` takes a name and its text.

        Without a value it is that of whoever starts compose.
        """
        if given is not None and given.kind == MAP:
            for name, value in given.entries().items():
                known = self.defaults.get(name, UNKNOWN)
                yield name, known if value.null else read(name, value.text), value
        for item in given.items if given is not None and given.kind == LIST else ():
            name, equals, text = item.text.partition("=")
            known = self.defaults.get(name, UNKNOWN)
            yield name, read(name, text) if equals else known, item

    def volumes(self) -> Iterator[tuple[Source, str, str]]:
        """Yield what is mounted: who says it, from where, and the path in the container."""
        for source, volume in self.lists("volumes"):
            if volume.kind == MAP:
                host, target = self.text(volume.get("source")), self.text(volume.get("target"))
            else:
                host, _, rest = self.text(volume).partition(":")
                target = rest.partition(":")[0] or host
            yield source, host, target

    def configs(self) -> Iterator[tuple[Source, str, str]]:
        """Yield the configs that are mounted: who says it, the name, and the path there."""
        for source, config in self.lists("configs"):
            name = self.text(config if config.kind == TEXT else config.get("source"))
            yield source, name, self.text(config.get("target")) or name

    def targets(self) -> tuple[str, ...]:
        """Return the paths at which something is put into the container."""
        configs = (f"/{target.lstrip('/')}" for _, _, target in self.configs())
        return (*(target for _, _, target in self.volumes()), *configs)

    def files(self) -> dict[str, File]:
        """Return the small files that are mounted from beside the compose file."""
        files: dict[str, File] = {}
        pairs = list(self.volumes())
        for source, name, target in self.configs():
            place = target if target != name else f"/{name}"
            entry = self.whole.at("configs", name)
            content = entry.get("content") if entry is not None else None
            if content is not None and content.kind == TEXT:
                files[place] = File(self.text(content), self.source, content.line)
            elif entry is not None:
                pairs.append((source, self.text(entry.get("file")), place))
        for source, host, target in pairs:
            if host.startswith("./") and target and UNKNOWN not in host:
                path = os.path.normpath(os.path.join(source.directory, host))
                found = self.source.near(path, "")
                if found is not None:
                    files[target] = File(found.text, found)
        return files
