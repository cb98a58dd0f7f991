"""Servers that fields of YAML start, whatever tool the file is for.

No tool is listed here. Jobs of SkyPilot, workflows of GitHub, values of charts and objects of
operators have different names for their fields, but the same content: a script, a command, options
of vLLM, or only the name of the engine. `kubernetes` and `compose` read the containers.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from eplb_launch.check import images, shell_files, yaml_tree
from eplb_launch.check.kind import ENTRY_POINT, HINTS, Kind
from eplb_launch.check.sources import COMMAND_COST, TOO_MUCH, WORD_COST, YAML, Source
from eplb_launch.check.tasks import (
    MAX_WORDS,
    VALUES,
    Style,
    Task,
    Variables,
    Word,
    lines_of,
    word,
    words_at,
    words_of,
)
from eplb_launch.check.yaml_tree import LIST, MAP, TEXT, Node
from eplb_launch.command.shell.state import ANY_WORDS
from eplb_launch.command.wrappers import SHELLS, WRAPPERS
from eplb_launch.entrypoints import MARKS, OF_EPLB
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.render.env import FORMATS
from eplb_launch.vllm.arguments import OPTIONS
from eplb_launch.vllm.releases import CAP

# Most operators take variables as a container does. The launcher cannot wrap their servers.
OPERATOR = Style("for what it starts", FORMATS["kubernetes"](VALUES).rstrip("\n"), wraps=False)
COMMAND = Style("for it, by these words before it", "env " + FORMATS["plain"](VALUES).rstrip("\n"))
# YAML joins the lines of a text that is not a block: a line before the command is part of it.
ON_ITS_LINE = shell_files.STYLE.replace(where=COMMAND.where, sets=COMMAND.sets)

# These match names of fields in lower case, without "_" and "-".
_ENVIRONMENTS = re.compile(r"envs?|envvars|environment|environmentvariables|extraenv|variables")
_SCRIPTS = re.compile(
    r"afterscript|bash|beforescript|cmd|commands?|customcommand|entrypoint|inline|inlinescript|run"
    r"|scripts?|setup|shell|source|startcommand|startupscript|userdata"
)
_ENGINES = re.compile(
    r"backend|backendframework|engine|enginetype|framework|inferenceengine|runtime|runtimeengine"
    r"|servingengine|type"
)
# These fields hold texts for people, probes or schemas.
_SKIPPED = re.compile(
    r"^(?:comments?|description|doc|documentation|examples?|help|message|name|notes"
    r"|prompt|readme|summary|title|healthcheck|prestop|openapiv3schema|(?:pattern)?properties)$"
    r"|probe$|/lastappliedconfiguration$"
)
# A field for arguments continues the command in the same map.
_COMMANDS = ("entrypoint", "command", "cmd")
_ARGUMENTS = re.compile(r"(?<!build)(?:args?|arguments|flags|options)$|^cmd$")
# The options of these engines have names that vLLM uses too.
_OTHER_ENGINES = ("sglang", "trtllm", "tensorrt")
# Objects of these groups start no server from their own fields: they route, watch or scale one.
_NO_OPERATORS = ("k8s.io", "istio.io", "coreos.com", "keda.sh", "openshift.io")
_IMAGES = (
    *(("image",), ("image_id",), ("resources", "image_id"), ("container",), ("docker_image",)),
    *(("container", "image"), ("deploymentConfig", "image"), ("model", "container")),
)
_MAX_NODES = 200_000
_DOCUMENT_COST = 300
_MAX_NESTED = 3  # texts of YAML inside texts of YAML
# The program that reads a script field splits it at blanks: an option on a new line is an argument.
_OPTION_LINE = re.compile(r"(?<!\\)(?=\n[ \t]*--?[A-Za-z])")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ENVIRONMENT_SUFFIX = re.compile(r"environment$|_env$")


class Fields(Kind):
    """A document of YAML that no other kind takes, with fields that start a server."""

    title = "YAML that starts vLLM"
    form = YAML
    suffixes = (".yaml", ".yml", ".json")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Task] = []

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take a document if its fields start something."""
        if document is None or document.kind == TEXT or not any(hint in text for hint in HINTS):
            return False
        self.found += (found := list(tasks(source, document, {})))
        return bool(found)

    def leftover(self) -> Iterator[Task]:
        yield from self.found


class _Field(Record):
    """A node of a document, and where it stands."""

    node: Node
    path: tuple[str, ...] = ()
    above: tuple[Node, ...] = ()  # the maps around it, the innermost first
    texts: int = 0  # texts around it that are YAML

    @property
    def key(self) -> str:
        """The last key of the path."""
        return _plain(self.path[-1]) if self.path else ""

    def child(self, node: Node, *key: str) -> _Field:
        above = (self.node, *self.above) if self.node.kind == MAP else self.above
        return _Field(node, (*self.path, *key), above, self.texts)

    def is_vllm(self) -> bool:
        """Whether vLLM is the engine here: the nearest map or key that names an engine decides."""
        for node, key in zip(self.above, reversed(self.path), strict=True):
            named = {_engine(key), _engine_of(node)}
            if named != {None}:
                return False not in named
        return False


def tasks(source: Source, document: Node, containers: Mapping[int, bool]) -> Iterator[Task]:
    """Yield the tasks of the fields of a document, within the budget of its file.

    `containers`, by the ids of their nodes, are skipped. The value says whether one has a command.
    """
    most = source.budget // COMMAND_COST
    for number, task in enumerate(_Search(source, document, containers).tasks()):
        if number > most:
            source.say(TOO_MUCH)
        if number > most or not source.spend(WORD_COST * len(task.variables.known)):
            return
        yield task


class _Search:
    """The search of one document for fields that start a server."""

    def __init__(self, source: Source, document: Node, containers: Mapping[int, bool]) -> None:
        self.source = source
        self.document = document
        self.containers = containers
        self.commands = 0  # of containers
        self.seen: set[int] = set()
        self.inner: list[Node] = []  # documents inside texts: kept, so that no id is used twice
        kind, name = document.string("kind"), document.string("metadata", "name")
        group = document.string("apiVersion").rpartition("/")[0]
        self.title = f"{kind}/{name or '?'}" if kind and group else ""
        spec = document.get("spec")
        # An object with a selector, such as a route, names the engine of pods that others start.
        keys = spec.entries() if spec is not None else ()
        selects = any(key.lower().endswith("selector") for key in keys)
        self.operator = "." in group and not group.endswith(_NO_OPERATORS) and not selects

    @functools.cached_property
    def lines(self) -> list[str]:
        return self.source.text.split("\n")

    @functools.cached_property
    def adds(self) -> bool:
        return images.brings(self.source.text)

    def tasks(self) -> Iterator[Task]:
        field, kind = _Field(self.document), self.document.string("kind").lower()
        if self.operator and "vllm" in kind and self.document.at("spec", "model") is not None:
            return self.of_engine(field, self.document.line, [field])
        return self.walk([field])

    def of_engine(self, field: _Field, line: int, todo: list[_Field]) -> Iterator[Task]:
        """Yield the tasks of a map that names vLLM at `line`: at least one server."""
        before, found = self.commands, False
        for task in self.walk(todo):
            found = True
            yield task
        if not found and self.commands == before:
            why = "its engine is vLLM, but no field that check reads says how it starts"
            text = "\n".join(self.lines[field.node.line - 1 : field.node.end])
            yield self.task(field, OPERATOR, line, ()).replace(unreadable=why, about=text)

    def walk(self, todo: list[_Field]) -> Iterator[Task]:
        """Yield the tasks of some fields and of all fields below them, the last field first."""
        while todo and len(self.seen) < _MAX_NODES:
            field = todo.pop()
            node = field.node
            if id(node) in self.seen or len(field.above) > yaml_tree.DEPTH:
                continue
            self.seen.add(id(node))
            if id(node) in self.containers:
                self.commands += self.containers[id(node)]
            elif (task := self.continued(field)) is not None:
                yield task
            elif node.kind == TEXT:
                yield from self.text(field)
            elif node.kind == LIST:
                task = self.command(field)
                if task is not None:
                    yield task
                else:
                    todo += [field.child(item) for item in reversed(node.items)]
            elif options := self.settings(field):
                yield self.options(field, options[0].line, options)
            elif line := self.engine_line(node):
                yield from self.of_engine(field, line, self.children(field))
            else:
                todo += self.children(field)

    def children(self, field: _Field) -> list[_Field]:
        """Return the fields of a map that are searched, the last first."""
        skipped = [*_command(field.node)[1]]
        skipped += ["metadata", "status"] if self.title and not field.above else []
        return [
            field.child(value, key)
            for key, value in reversed(field.node.entries().items())
            if key not in skipped and not _SKIPPED.search(_plain(key)) and not _is_environment(key)
        ]

    def engine_line(self, node: Node) -> int:
        """Return the line where a map says that vLLM is its engine; 0 if it does not say so."""
        for key, value in node.pairs:
            name = _plain(key.text)
            named = _ENGINES.fullmatch(name) and value.text.lower().startswith("vllm")
            if (self.operator and named) or (name == "vllmconfig" and value.kind == MAP):
                return key.line
        return 0

    def text(self, field: _Field) -> Iterator[Task]:
        """Yield the tasks of a text: it may be a script, YAML with such fields, or options."""
        text = field.node.text
        in_annotation = "annotations" in field.path and "\n" not in text
        if "```" in text or in_annotation:  # Markdown, or a word about the object
            return
        is_script = bool(_SCRIPTS.fullmatch(field.key)) and "vllm" in text
        inner = iter(()) if is_script else self.yaml(field)
        first = next(inner, None)
        if first is not None:
            yield first
            yield from inner
            return
        given = word(field.node, self.source)
        if is_script or ENTRY_POINT.search(text):
            yield self.script(field, given)
        elif any(option in text for option in OF_EPLB) and field.is_vllm():
            command = given.replace(text=f'vllm serve model "$@" {text}')
            yield self.script(field, command).replace(fix_style=OPERATOR)

    def yaml(self, field: _Field) -> Iterator[Task]:
        """Yield the tasks of YAML in a text: Argo CD and Flux keep values of charts there."""
        text = field.node.text
        is_yaml = "\n" in text and ":" in text and any(hint in text for hint in HINTS)
        if not is_yaml or field.texts >= _MAX_NESTED or not self.source.spend(_DOCUMENT_COST):
            return
        for _, document in yaml_tree.documents(text, field.node.line):
            if not isinstance(document, yaml_tree.Problem) and document.kind == MAP:
                self.inner.append(document)
                yield from self.walk([field.replace(node=document, texts=field.texts + 1)])

    def command(self, field: _Field) -> Task | None:
        """Return the task of a list of texts: a command, the lines of a script, or options."""
        items = field.node.items[:MAX_WORDS]
        if not items or any(item.kind != TEXT for item in items):
            return None
        texts = [item.text for item in items]
        words = [word(item, self.source) for item in items]
        if ENTRY_POINT.search(" ".join(texts)):
            first = texts[0].rpartition("/")[2]
            listed = not any(map(ENTRY_POINT.search, texts)) and "\n" not in "".join(texts)
            if listed or first in SHELLS or first in WRAPPERS:
                return self.task(field, COMMAND, words[0].line, tuple(words))
            return self.script(field, lines_of(items, self.source))
        marked = [w for w in words if w.text.partition("=")[0].partition(".")[0] in MARKS]
        if (marked or field.key == "extraargs") and field.is_vllm():
            return self.options(field, (marked or words)[0].line, words)
        return None

    def continued(self, field: _Field) -> Task | None:
        """Return the task of a command that other fields continue, such as `args`."""
        around = field.above[0] if field.above else field.node
        command, arguments = _command(around) if field.key.endswith(_COMMANDS) else (None, {})
        if command is not field.node or not arguments or "\n" in field.node.text:
            return None
        given = words_of(field.node, self.source)
        if not given:
            return None
        for node in arguments.values():
            given += words_of(node, self.source) or words_at((UNKNOWN,), self.source, node.line)
        about = "\n".join(self.lines[around.line - 1 : around.end])
        return self.task(field, COMMAND, given[0].line, given).replace(about=about)

    def script(self, field: _Field, text: Word) -> Task:
        """Return the task of a script. Its parameters are not known."""
        text = text.replace(text=_OPTION_LINE.sub(r" \\", text.text))
        shell = words_at(("bash", "-c", "bash", ANY_WORDS), self.source, text.line)
        words = (*shell[:2], text, *shell[2:])
        task = self.task(field, shell_files.STYLE, text.line, words)
        return task if text.block else task.replace(fix_style=ON_ITS_LINE)

    def options(self, field: _Field, line: int, given: Sequence[Word]) -> Task:
        """Return the server that gets these options. It may get more, which are not known."""
        before = words_at(("vllm", "serve", "model", UNKNOWN), self.source, line)
        return self.task(field, OPERATOR, line, (*before, *given))

    def settings(self, field: _Field) -> list[Word]:
        """Return the options of vLLM that a map has as keys: `enable-eplb: true`."""
        entries = field.node.entries()
        names = {key: f"--{_CAMEL.sub('-', key).lower().replace('_', '-')}" for key in entries}
        is_marked = any(name in MARKS for name in names.values())
        options = [key for key in entries if names[key] in OPTIONS]
        if not field.path or not is_marked or not field.is_vllm():
            return []
        return [word for key in options for word in _option(names[key], entries[key], self.source)]

    def task(self, field: _Field, style: Style, line: int, words: tuple[Word, ...]) -> Task:
        """Return the task of a field, with the image and the variables around it."""
        variables = _variables(field, self.source)
        if style is not shell_files.STYLE:
            words = tuple(w.replace(text=_without_variables(w.text, variables)) for w in words)
        return Task(
            style,
            " ".join(filter(None, (self.title, ".".join(field.path[-5:])))),
            self.source,
            line,
            words,
            variables,
            image=_image(field),
            adds=self.adds,
        )


def _without_variables(text: str, variables: Variables) -> str:
    """Return a word with UNKNOWN for each variable: the program that reads the field sets it."""
    variables.missing.update((f"${match[1]}", None) for match in _VARIABLE.finditer(text))
    return _VARIABLE.sub(UNKNOWN, text)


@functools.lru_cache(maxsize=yaml_tree.DEPTH)  # each field of the map asks again
def _command(node: Node) -> tuple[Node | None, dict[str, Node]]:
    """Return the command of a map, and the fields that continue it if they start a server."""
    entries = node.entries()
    named = [key for key in entries if _plain(key).endswith(_COMMANDS)]
    ordered = [key for end in _COMMANDS for key in named if _plain(key).endswith(end)]
    if not ordered or entries[ordered[0]].kind == MAP:
        return None, {}
    command = entries[ordered[0]]
    # As with Docker, the command of an image continues an entry point.
    more = ordered[1:] if ENTRY_POINT.search(command.line_of_text()) else []
    more += [key for key in entries if _ARGUMENTS.search(_plain(key)) and key not in ordered]
    values = {key: entries[key] for key in more}
    found = {key: value for key, value in values.items() if any(value.texts()) and not value.null}
    text = " ".join(value.line_of_text() for value in (command, *found.values()))
    return command, found if ENTRY_POINT.search(text) else {}


@functools.lru_cache(maxsize=1 << 17)
def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _option(name: str, value: Node, source: Source) -> Iterator[Word]:
    """Yield the words of an option that is a key of a map."""
    is_flag = OPTIONS[name][1] is True
    text = json.dumps(_json(value)) if value.kind != TEXT else value.text
    if is_flag and text.lower() in ("false", "no", "off", "0"):
        name = f"--no-{name[2:]}"
    yield Word(name, source, value.line)
    if not is_flag:
        yield word(value, source, text)


def _json(node: Node) -> object:
    if node.kind == MAP:
        return {key: _json(value) for key, value in node.entries().items()}
    if node.kind == LIST:
        return [_json(item) for item in node.items]
    try:
        return json.loads(node.text.lower()) if node.plain else node.text
    except ValueError:
        return node.text


def _image(field: _Field) -> str:
    """Return the image that the nearest map names; "" for none."""
    for node in field.above:
        for found in filter(None, (*(node.at(*path) for path in _IMAGES), node)):
            if found.text:
                return found.text.removeprefix("docker:")
            name, tag = found.string("repository"), found.string("tag")
            if found is not node:
                name = name or found.string("name")
            if name and (tag or found is not node):
                return f"{name}:{tag}" if tag else name
    return ""


def _is_environment(key: str) -> bool:
    return bool(_ENVIRONMENTS.fullmatch(_plain(key)) or _ENVIRONMENT_SUFFIX.search(key))


def _variables(field: _Field, source: Source) -> Variables:
    """Return the variables that the maps around a field set. The innermost map wins."""
    found = Variables()
    for node in reversed(field.above):
        for key, value in _environments(node):
            owner = _ENVIRONMENT_SUFFIX.sub("", key).rstrip("_")
            if _ENVIRONMENTS.fullmatch(_plain(key)) or owner in field.path:
                _set(found, value, source)
    return found


@functools.lru_cache(maxsize=yaml_tree.DEPTH)  # each field below the map asks again
def _environments(node: Node) -> list[tuple[str, Node]]:
    """Return the entries of a map that hold variables."""
    return [(key, value) for key, value in node.entries().items() if _is_environment(key)]


def _engine(text: str) -> bool | None:
    """Whether a text names vLLM; False where it names another engine, None where it names none."""
    text = text.lower()
    if any(other in text for other in _OTHER_ENGINES):
        return False
    return "vllm" in text or None


@functools.lru_cache(maxsize=yaml_tree.DEPTH)  # each field below the map asks again
def _engine_of(node: Node) -> bool | None:
    return _engine(" ".join(f"{key} {value.text}" for key, value in node.entries().items()))


def _set(found: Variables, node: Node, source: Source) -> None:
    """Set the variables of a map, or of a list of NAME=VALUE or of maps with `name` and `value`."""
    for name, value in node.entries().items():
        text = value.text if value.kind == TEXT else UNKNOWN
        found.set(name, text, source, value.line, f'{name}: "{CAP}"')
    for item in node.items[:MAX_WORDS]:
        name, equals, text = item.text.partition("=")
        if equals:
            found.set(name, text, source, item.line, f"{name}={CAP}")
        elif name := item.string("name"):
            given = item.get("value") or item
            known = given.text if given is not item and given.kind == TEXT else UNKNOWN
            found.set(name, known, source, given.line, f"value: '{CAP}'")
