"""Servers that YAML starts from fields of its own, whatever it is for.

Nothing here is a list of tools. Jobs of SkyPilot, workflows of GitHub, values of charts and objects
of operators differ in what they call their fields, not in what stands in them: a script, a command,
options of vLLM, or no more than that vLLM is the engine. What a container starts is not looked at
here: `kubernetes` and `compose` know more of it.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from eplb_launch.check import images, shell_files
from eplb_launch.check import yaml_tree as nodes
from eplb_launch.check.kind import ENTRY_POINT, HINTS, Kind
from eplb_launch.check.sources import OF_A_COMMAND, OF_A_WORD, TOO_MUCH, YAML, Source
from eplb_launch.check.tasks import VALUES, Place, Task, Variables, Word, word, words_at
from eplb_launch.check.yaml_tree import LIST, MAP, TEXT, Node
from eplb_launch.command.shell.state import ANY_WORDS
from eplb_launch.command.wrappers import SHELLS, WRAPPERS
from eplb_launch.entrypoints import MARKS
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.render.env import FORMATS
from eplb_launch.vllm.arguments import OPTIONS
from eplb_launch.vllm.releases import CAP

# The nodes that are somebody else's, by their id: whether they start something.
Others: TypeAlias = Mapping[int, bool]


# Most take variables as a container does. What they start cannot be wrapped from there.
OPERATOR = Place("for what it starts", FORMATS["kubernetes"](VALUES).rstrip("\n"), wraps=False)
COMMAND = Place("for this command", FORMATS["plain"](VALUES).rstrip("\n"))

# Names of fields, in lower case and without "_" and "-".
_ENVIRONMENTS = frozenset(
    ("env", "envs", "envvars", "environment", "environmentvariables", "extraenv", "variables")
)
_SCRIPTS = frozenset(
    (
        *("afterscript", "bash", "beforescript", "cmd", "command", "commands", "customcommand"),
        *("entrypoint", "inline", "inlinescript", "run", "script", "scripts", "setup", "shell"),
        *("source", "startcommand", "startupscript", "userdata"),
    )
)
# Texts for people, probes, and schemas.
_NOT_LOOKED_AT = re.compile(
    r"^(?:annotations|comments?|description|doc|documentation|examples?|help|message|name|notes"
    r"|prompt|readme|summary|title|healthcheck|prestop|openapiv3schema|(?:pattern)?properties)$"
    r"|probe$"
)
_ENGINES = frozenset(
    (
        *("backend", "backendframework", "engine", "enginetype", "framework", "inferenceengine"),
        *("runtime", "runtimeengine", "servingengine", "type"),
    )
)
# These have options of the same names.
_OTHER_ENGINES = ("sglang", "trtllm", "tensorrt")
# Groups of objects that start no server from fields of their own: they route, watch or scale one.
_NO_OPERATORS = ("k8s.io", "istio.io", "coreos.com", "keda.sh", "openshift.io")
_IMAGES = (
    *(("image",), ("image_id",), ("resources", "image_id"), ("container",), ("docker_image",)),
    *(("container", "image"), ("deploymentConfig", "image"), ("model", "container")),
)
_MAX_NODES = 200_000
_MAX_WORDS = 2_000
_OF_A_DOCUMENT = 300  # in a text: what it takes to begin one
_DEEP = 3  # texts of YAML inside texts of YAML
_SHOWN = 5  # keys of a path
# A line that begins with an option goes on with the command: who reads the field splits at blanks.
_OPTION_LINE = re.compile(r"(?<!\\)(?=\n[ \t]*--?[A-Za-z])")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OPTIONS = re.compile(r"(?:^|\s)--(?:enable-eplb|eplb-config|all2all-backend)\b")
_SELECTS = re.compile(r"[sS]elector$")
_ENV = re.compile(r"environment$|_env$")


class Fields(Kind):
    """A document of YAML that is of no other kind, and has fields that start a server."""

    title = "YAML that starts vLLM"
    form = YAML
    suffixes = (".yaml", ".yml", ".json")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Task] = []

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take a document, if a server may come of it."""
        if document is None or document.kind == TEXT or not any(hint in text for hint in HINTS):
            return False
        before = len(self.found)
        for task in tasks(source, document, {}):
            if not source.spend(OF_A_WORD * len(task.variables.known)):
                break
            self.found.append(task)
        return len(self.found) > before

    def leftover(self) -> Iterator[Task]:
        yield from self.found


class _At(Record):
    """A node, and what is around it."""

    node: Node
    path: tuple[str, ...] = ()
    above: tuple[Node, ...] = ()  # all maps above, the innermost first

    @property
    def key(self) -> str:
        """The last key of the path, plain."""
        return _plain(self.path[-1]) if self.path else ""

    def below(self, node: Node, key: str = "") -> _At:
        path = (*self.path, key) if key else self.path
        return _At(node, path, (self.node, *self.above) if self.node.kind == MAP else self.above)

    def is_vllm(self) -> bool:
        """Whether vLLM is the engine here: the nearest map that names an engine counts."""
        for node, key in itertools.zip_longest(self.above, reversed(self.path), fillvalue=None):
            named = {_engine(key or ""), _engine_of(node) if node is not None else None}
            if named != {None}:
                return False not in named
        return False


def tasks(source: Source, document: Node, others: Others) -> Iterator[Task]:
    """Yield what the fields of a document start, as far as there may be room for it."""
    most = source.room // OF_A_COMMAND + 1
    for number, task in enumerate(_Reader(source, document, others).tasks()):
        if number == most:
            source.say(TOO_MUCH)
            return
        yield task


class _Reader:
    def __init__(self, source: Source, document: Node, others: Others) -> None:
        self.source = source
        self.document = document
        self.others = others
        self.started = 0  # by others
        self.seen: set[int] = set()
        self.inner: list[Node] = []  # kept, so that no other node gets the id of one
        kind, name = document.string("kind"), document.string("metadata", "name")
        group = document.string("apiVersion").rpartition("/")[0]
        self.title = f"{kind}/{name or '?'}" if kind and group else ""
        spec = document.get("spec")
        selects = spec is not None and any(_SELECTS.search(key) for key in spec.entries())
        # A route or a policy names the engine of pods that other objects start.
        self.operator = "." in group and not group.endswith(_NO_OPERATORS) and not selects

    @functools.cached_property
    def lines(self) -> list[str]:
        return self.source.text.split("\n")

    @functools.cached_property
    def adds(self) -> bool:
        return images.brings(self.source.text)

    def tasks(self) -> Iterator[Task]:
        at = _At(self.document)
        kind = self.document.string("kind").lower()
        if self.operator and "vllm" in kind and self.document.at("spec", "model") is not None:
            yield from self.or_engine(at, self.document.line, [at])
        else:
            yield from self.walk([at])

    def or_engine(self, at: _At, line: int, todo: list[_At], depth: int = 0) -> Iterator[Task]:
        """Yield what a node with vLLM as its engine starts: a server, also if no field says how.

        `line` is where the engine is named.
        """
        before, found = self.started, False
        for task in self.walk(todo, depth):
            found = True
            yield task
        if not found and self.started == before:
            why = "vLLM is its engine, and no field that is read here says how it is started"
            text = "\n".join(self.lines[at.node.line - 1 : at.node.end])
            yield self.task(at, OPERATOR, line, ()).replace(unreadable=why, about=text)

    def walk(self, todo: list[_At], depth: int = 0) -> Iterator[Task]:
        """Yield what is started below the nodes to do, the last of them first."""
        while todo and len(self.seen) < _MAX_NODES:
            at = todo.pop()
            if id(at.node) in self.seen or len(at.above) > nodes.DEPTH:
                continue
            self.seen.add(id(at.node))
            if id(at.node) in self.others:
                self.started += self.others[id(at.node)]
                continue
            if at.node.kind == TEXT:
                yield from self.text(at, depth)
            elif at.node.kind == LIST:
                task = self.command(at)
                if task is not None:
                    yield task
                else:
                    todo += [at.below(item) for item in reversed(at.node.items)]
            elif options := self.settings(at):
                yield self.options(at, options[0].line, options)
            else:
                inside = self.inside(at)
                line = self.engine(at.node)
                if line:
                    yield from self.or_engine(at, line, inside, depth)
                else:
                    todo += inside

    def inside(self, at: _At) -> list[_At]:
        """Return what is to be looked at in a map, the last first."""
        own = () if at.above or not self.title else ("metadata", "status")
        entries = reversed(at.node.entries().items())
        return [
            at.below(value, key)
            for key, value in entries
            if not _NOT_LOOKED_AT.search(_plain(key))
            and key not in own
            and not _is_environment(key)
        ]

    def engine(self, node: Node) -> int:
        """Return the line where a map says that vLLM is its engine; 0 if it does not."""
        for key, value in node.pairs:
            name = _plain(key.text)
            named = self.operator and name in _ENGINES and value.text.lower().startswith("vllm")
            if named or (name == "vllmconfig" and value.kind == MAP):
                return key.line
        return 0

    def text(self, at: _At, depth: int) -> Iterator[Task]:
        """Yield what a text starts: a script, options, or YAML that has such fields."""
        text = at.node.text
        if "```" in text:  # a document
            return
        if at.key in _SCRIPTS and "vllm" in text:
            yield self.script(at, word(at.node, self.source))
        elif "\n" in text and any(hint in text for hint in HINTS):
            found = list(self.yaml(at, depth))
            if not found and ENTRY_POINT.search(text):
                found = [self.script(at, word(at.node, self.source))]
            yield from found
        elif ENTRY_POINT.search(text):
            yield self.script(at, word(at.node, self.source))
        elif _OPTIONS.search(text) and at.is_vllm():
            yield self.option_text(at)

    def yaml(self, at: _At, depth: int) -> Iterator[Task]:
        """Yield what YAML in a text starts: values of a chart in an object of Argo CD or Flux."""
        if depth >= _DEEP or ":" not in at.node.text or not self.source.spend(_OF_A_DOCUMENT):
            return
        for _, document in nodes.documents(at.node.text, at.node.line):
            if not isinstance(document, nodes.Problem) and document.kind == MAP:
                self.inner.append(document)
                yield from self.walk([at.replace(node=document)], depth + 1)

    def command(self, at: _At) -> Task | None:
        """Return what a list starts that is a command, a script line by line, or options."""
        items = at.node.items[:_MAX_WORDS]
        if not items or any(item.kind != TEXT for item in items):
            return None
        texts = [item.text for item in items]
        words = [word(item, self.source) for item in items]
        if ENTRY_POINT.search(" ".join(texts)):
            first = texts[0].rpartition("/")[2]
            listed = not any(map(ENTRY_POINT.search, texts)) and "\n" not in "".join(texts)
            if listed or first in SHELLS or first in WRAPPERS:
                return self.task(at, COMMAND, words[0].line, tuple(words))
            return self.script(at, _lines(items, self.source))
        marked = [w for w in words if w.text.partition("=")[0].partition(".")[0] in MARKS]
        if (marked or at.key == "extraargs") and at.is_vllm():
            return self.options(at, (marked or words)[0].line, words)
        return None

    def script(self, at: _At, text: Word) -> Task:
        """Return the task of a script; what it gets as parameters is not known."""
        before = words_at(("bash", "-c"), self.source, text.line)
        text = text.replace(text=_OPTION_LINE.sub(r"\\", text.text))
        words = (*before, text, *words_at(("bash", ANY_WORDS), self.source, text.line))
        return self.task(at, shell_files.PLACE, text.line, words)

    def options(self, at: _At, line: int, given: Sequence[Word]) -> Task:
        """Return the server that gets these options, and others that are not known."""
        before = words_at(("vllm", "serve", "model", UNKNOWN), self.source, line)
        return self.task(at, OPERATOR, line, (*before, *given))

    def option_text(self, at: _At) -> Task:
        """Return the server that is given the options in a text."""
        given = word(at.node, self.source)
        return self.script(at, given.replace(text=f'vllm serve model "$@" {given.text}')).replace(
            place=OPERATOR
        )

    def settings(self, at: _At) -> list[Word]:
        """Return the words of the options that a map of vLLM's has: `enable-eplb: true`."""
        entries = at.node.entries()
        names = {key: f"--{_CAMEL.sub('-', key).lower().replace('_', '-')}" for key in entries}
        if not at.path or not any(name in MARKS for name in names.values()) or not at.is_vllm():
            return []
        found: list[Word] = []
        for key, value in entries.items():
            if names[key] in OPTIONS:
                found += _option(names[key], value, self.source)
        return found

    def task(self, at: _At, place: Place, line: int, words: tuple[Word, ...]) -> Task:
        """Return the task of a field, with the image and the environment that stand around it."""
        image = _image(at)
        variables = _environment(at, self.source)
        if place is not shell_files.PLACE:
            words = tuple(w.replace(text=_templated(w.text, variables)) for w in words)
        return Task(
            place,
            " ".join(part for part in (self.title, ".".join(at.path[-_SHOWN:])) if part),
            self.source,
            line,
            words,
            variables,
            image=image,
            adds=self.adds,
        )


def _templated(text: str, variables: Variables) -> str:
    """Return a word with its variables as UNKNOWN: whoever reads the field puts in their values."""

    def value(match: re.Match[str]) -> str:
        variables.missing[f"${match[1]}"] = None
        return UNKNOWN

    return _VARIABLE.sub(value, text)


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _lines(items: Sequence[Node], source: Source) -> Word:
    """Return a script that is a list of lines, each on the line that it has in the file."""
    first = items[0].line
    text = items[0].text
    for item in items[1:]:
        text += "\n" * max(item.line - first - text.count("\n"), 1) + item.text
    return Word(text, source, first, items[-1].end, block=True)


def _option(name: str, value: Node, source: Source) -> Iterator[Word]:
    """Yield the words of an option as a map has it; an empty value is a switch."""
    flag = OPTIONS[name][1] is True
    text = json.dumps(_json(value)) if value.kind != TEXT else value.text
    if flag and text.lower() in ("false", "no", "off", "0"):
        name = f"--no-{name[2:]}"
    yield Word(name, source, value.line)
    if not flag:
        yield word(value, source, text)


def _json(node: Node) -> object:
    """Return what a node is as a value of JSON; none is as deep as a document may be."""
    if node.kind == MAP:
        return {key: _json(value) for key, value in node.entries().items()}
    if node.kind == LIST:
        return [_json(item) for item in node.items]
    if node.plain:
        try:
            return json.loads(node.text.lower())
        except ValueError:
            pass
    return node.text


def _image(at: _At) -> str:
    """Return the image that the nearest map names; "" for none."""
    for node in at.above:
        for path in _IMAGES:
            found = node.at(*path)
            if found is not None and found.kind == TEXT and found.text:
                return found.text.removeprefix("docker:")
            if found is not None and found.kind == MAP:
                name = found.string("repository") or found.string("name")
                tag = found.string("tag")
                if name:
                    return f"{name}:{tag}" if tag else name
        if node.string("repository") and node.string("tag"):
            return f"{node.string('repository')}:{node.string('tag')}"
    return ""


def _is_environment(key: str) -> bool:
    return _plain(key) in _ENVIRONMENTS or bool(_ENV.search(key))


def _environment(at: _At, source: Source) -> Variables:
    """Return the variables that the maps around a field set; the innermost counts."""
    found = Variables()
    for node in reversed(at.above):
        for key, value in _environments(node):
            if _plain(key) in _ENVIRONMENTS or _ENV.sub("", key).rstrip("_") in at.path:
                _set(found, value, source)
    return found


@functools.lru_cache(maxsize=nodes.DEPTH)  # for each field below it
def _environments(node: Node) -> list[tuple[str, Node]]:
    """Return the keys of a map that stand for variables, with their values."""
    return [(key, value) for key, value in node.entries().items() if _is_environment(key)]


def _engine(text: str) -> bool | None:
    """Return whether a text names vLLM: False where it names another engine; None: neither."""
    text = text.lower()
    if any(other in text for other in _OTHER_ENGINES):
        return False
    return "vllm" in text or None


@functools.lru_cache(maxsize=nodes.DEPTH)  # for each field below it
def _engine_of(node: Node) -> bool | None:
    return _engine(" ".join(f"{key} {value.text}" for key, value in node.entries().items()))


def _set(found: Variables, node: Node, source: Source) -> None:
    """Set what is a map of variables, or a list of NAME=VALUE or of names and values."""
    for name, value in node.entries().items():
        text = value.text if value.kind == TEXT else UNKNOWN
        found.set(name, text, source, value.line, f'{name}: "{CAP}"')
    for item in node.items[:_MAX_WORDS]:
        name, equals, text = item.text.partition("=")
        given = item.get("value")
        if equals:
            found.set(name, text, source, item.line, f"{name}={CAP}")
        elif item.string("name"):
            known = given.text if given is not None and given.kind == TEXT else UNKNOWN
            line = given.line if given is not None else item.line
            found.set(item.string("name"), known, source, line, f"value: '{CAP}'")
