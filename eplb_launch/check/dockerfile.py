"""What an image starts, by its Dockerfile. docs.docker.com/reference/dockerfile."""

from __future__ import annotations

import bisect
import itertools
import json
import os
import posixpath
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping

from eplb_launch.check import images
from eplb_launch.check.kind import Kind
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import File, Place, Task, TooMuch, Variables, Word, words_at
from eplb_launch.check.templating import replace
from eplb_launch.check.yaml_tree import Node
from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.releases import CAP, VARIABLE

PLACE = Place(
    "in the image",
    f"ENV {VARIABLE}={CAP}",
    own=("let the image start it with eplb-launch", "ENTRYPOINT {}"),
    image=True,
)
# A stage begins with all variables of the one that it is made from.
_MAX_STAGES = 200
_MAX_VARIABLES = 5_000
_MAX_COPIES = 1_000
# What COPY names is a script or a file of settings, by its name.
_NO_PROGRAMS = (".sh", ".yaml", ".yml", ".json", ".conf", ".txt", ".jinja")
_VARIABLE = re.compile(
    r"\\(?P<escaped>.)|\$(?P<name>[A-Za-z_]\w*)"
    r"|\$\{(?P<braced>[A-Za-z_]\w*)(?:(?P<operator>:[-+])(?P<operand>[^{}]*))?\}"
)
_HEREDOC = re.compile(r"<<(-?)([\"']?)([A-Za-z_]\w*)\2")
_PAIR = re.compile(
    r"(?:^|(?<=\s))([A-Za-z_][\w.]*)(?:=((?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|\\.|[^\s\"'])*))?"
)
_QUOTES = re.compile(r"\"|'|\\(?=[\" ])")
_ESCAPE = re.compile(r"^#\s*escape\s*=\s*(\S)", re.IGNORECASE)


class Dockerfile(Kind):
    title = "a Dockerfile"
    form = "Dockerfile"
    suffixes = (".dockerfile", ".containerfile")

    @classmethod
    def is_named(cls, path: str) -> bool:
        """Whether it is `Dockerfile`, `Dockerfile.vllm` or `vllm.dockerfile`."""
        name = os.path.basename(path).lower()
        return name.startswith(("dockerfile", "containerfile")) or super().is_named(path)

    @classmethod
    def looks(cls, first: str, text: str) -> bool:  # noqa: ARG003
        """Whether it begins with FROM or ARG, and these are no keys of YAML."""
        return first.split(" ", maxsplit=1)[0].upper() in ("FROM", "ARG")

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take it; whether an image is made of it."""
        super().take(source, text, document)
        return not source.named or final(source) is not None

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        for source in self.sources:
            yield source, tasks(source)


def tasks(source: Source) -> Iterator[Task]:
    """Yield what the stages of a Dockerfile start: each may be the target of a build.

    A stage that only passes on the entry point of vLLM's image is left out: it starts no server
    before it is given arguments.
    """
    for number, stage in enumerate(_stages(source, {})):
        words = (*stage.entrypoint, *stage.command)
        if stage.says and words:
            yield Task(
                PLACE,
                f"stage {stage.name or number}",
                source,
                next((w.line for w in words if w.line), stage.line),
                words,
                stage.variables,
                stage.directory,
                stage.image,
                stage.files,
                own_entry=bool(stage.entrypoint) and not stage.entrypoint[0].line,
                only_arguments=not stage.entrypoint,
                adds=stage.adds,
            )


def final(source: Source, target: str = "", given: Mapping[str, str] | None = None) -> Stage | None:
    """Return the stage that a build ends with, or the one named `target`.

    `given` are the values that the build has for ARG.
    """
    found = list(_stages(source, given or {}))
    if target.isdecimal() and int(target) < len(found):
        return found[int(target)]
    named = [stage for stage in found if target and stage.name == target.lower()]
    return (named or found)[-1] if found else None


class _Build:
    """What all stages of a build have in common."""

    def __init__(self, source: Source, given: Mapping[str, str]) -> None:
        self.source = source
        self.given = given
        self.defaults: dict[str, str] = {}  # of ARG before the first FROM
        self.read: dict[str, Source | None] = {}  # what COPY names, each file once


def _stages(source: Source, given: Mapping[str, str]) -> list[Stage]:
    stages: list[Stage] = []
    build = _Build(source, given)
    for line, name, rest in instructions(source.text):
        if name == "FROM":
            if len(stages) >= _MAX_STAGES:
                raise TooMuch(line, f"more than {_MAX_STAGES} stages")
            words = [w for w in rest.split() if not w.startswith("--")]
            image = expand(words[0], build.defaults) if words else ""
            alias = words[2].lower() if len(words) > 2 and words[1].lower() == "as" else ""
            base = (stage for stage in reversed(stages) if image and stage.name == image.lower())
            stages.append(Stage(build, image, next(base, None), alias, line))
        elif stages:
            stages[-1].take(line, name, rest)
        elif name == "ARG":
            for key, value in arguments(rest):
                own = UNKNOWN if value is None else expand(value, build.defaults)
                build.defaults[key] = given.get(key, own)
    return stages


class Stage:
    """An image as a stage of a Dockerfile builds it."""

    def __init__(self, build: _Build, image: str, base: Stage | None, name: str, line: int) -> None:
        """Begin with an image, or with the stage that has its name."""
        entry = words_at(images.entry_point(image), build.source, 0)
        self.build = build
        self.name = name
        self.line = line
        self.image: str = base.image if base else image  # that it all began with
        self.variables: Variables = Variables(base.variables if base else None)
        self.arguments: dict[str, str] = {}
        self.entrypoint: tuple[Word, ...] = base.entrypoint if base else entry
        self.command: tuple[Word, ...] = base.command if base else ()
        self.directory: str = base.directory if base else "/vllm-workspace" if entry else "/"
        self.files: dict[str, File] = dict(base.files) if base else {}
        self.shell: tuple[str, ...] = ("/bin/sh", "-c")
        self.says: bool = base is not None and base.says  # it has an ENTRYPOINT or a CMD
        self.adds: bool = base is not None and base.adds  # a step may bring programs
        self.said_command = False

    def take(self, line: int, name: str, rest: str) -> None:
        """Take an instruction."""
        known = ChainMap(self.variables.known, self.arguments)
        if name == "ENTRYPOINT":
            self.entrypoint = self.words(line, rest)
            self.says = True
            if not self.said_command:  # that of the base image is dropped
                self.command = ()
        elif name == "CMD":
            self.command = self.words(line, rest)
            self.says = self.said_command = True
        elif name == "SHELL":
            self.shell = tuple(exec_form(rest) or self.shell)
        elif name == "ENV":
            for key, value, offset in list(pairs(rest, known)):
                source = self.build.source
                self.variables.set(key, value, source, line + offset, f"{key}={CAP}")
            if len(self.variables.known) > _MAX_VARIABLES:
                raise TooMuch(line, f"more than {_MAX_VARIABLES:,} variables in a stage")
        elif name == "ARG":
            for key, default in arguments(rest):
                own = self.build.defaults.get(key, UNKNOWN)
                own = own if default is None else expand(default, known)
                self.arguments[key] = self.build.given.get(key, own)
        elif name == "WORKDIR":
            self.directory = posixpath.join(self.directory, expand(unquoted(rest), known))
        elif name in ("COPY", "ADD"):
            self.adds = self.adds or not all(n.endswith(_NO_PROGRAMS) for n in rest.split()[:-1])
            self.copy(rest, known)
        elif name == "RUN":
            self.adds = self.adds or images.brings(rest)

    def words(self, line: int, rest: str) -> tuple[Word, ...]:
        """Return the words of ENTRYPOINT or CMD."""
        words = exec_form(rest)
        if words is not None:
            return words_at(words, self.build.source, line)
        end = line + rest.count("\n")
        shell = (*self.shell, rest)
        return tuple(Word(text, self.build.source, line, end, block=True) for text in shell)

    def copy(self, rest: str, known: Mapping[str, str]) -> None:
        """Note the files that are copied from beside the Dockerfile."""
        words = exec_form(rest) or rest.split()
        if any(word.startswith("--from") for word in words):
            return
        *names, to = [expand(word, known) for word in words if not word.startswith("--")] or [""]
        for name in names:
            path = os.path.normpath(os.path.join(self.build.source.directory, name))
            read = self.build.read
            if UNKNOWN not in path and path not in read and len(read) < _MAX_COPIES:
                read[path] = self.build.source.near(path, "")
            found = read.get(path)
            if found is not None:
                inside = to.endswith(("/", ".")) or len(names) > 1
                target = posixpath.join(to, os.path.basename(name)) if inside else to
                target = posixpath.normpath(posixpath.join(self.directory, target))
                self.files[target] = File(found.text, found)


def instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield each instruction: its line, its name, and the rest with its lines joined.

    The newlines stay where a line goes on, behind the escape: a shell reads them the same way, and
    the lines can be counted.
    """
    lines = text.split("\n")
    match = _ESCAPE.match(lines[0]) if lines else None
    escape = match[1] if match else "\\"
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        start = at + 1
        at += 1
        if not line or line.startswith("#"):
            continue
        pieces = [line]
        while pieces[-1].endswith(escape) and at < len(lines):
            pieces[-1] = pieces[-1][: -len(escape)] + "\\"
            following = lines[at].strip()
            at += 1
            # Comments and empty lines inside are dropped; the line goes on.
            pieces.append("\\" if not following or following.startswith("#") else following)
        name, _, rest = "\n".join(pieces).partition(" ")
        for tabs, _, word in (
            _HEREDOC.findall(rest) if name.upper() in ("RUN", "COPY", "ADD") else ()
        ):
            while at < len(lines) and (lines[at].lstrip("\t") if tabs else lines[at]) != word:
                at += 1
            at += 1
        yield start, name.upper(), rest.strip()


def exec_form(rest: str) -> list[str] | None:
    """Return the words of the exec form; None if it is the shell form."""
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest.replace("\\\n", "\n"))
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(w, str) for w in words) else None


def unquoted(text: str) -> str:
    """Return a text without the quotes around it."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0] else text


def pairs(rest: str, known: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Yield what ENV sets: `A=1 B="x y"`, or the old form `A the rest`.

    Each with its line, counted from 0. What is set is seen by the instructions that follow.
    """
    lines = rest.split("\\\n")
    ends = list(itertools.accumulate(len(line) + 1 for line in lines))
    rest = " ".join(lines)
    first, _, value = rest.partition(" ")
    if first and "=" not in first:
        yield first, expand(value.strip(), known), 0
        return
    for match in _PAIR.finditer(rest):
        if match[2] is not None:
            text = _QUOTES.sub("", match[2])
            value = text if match[2].startswith("'") else expand(text, known)
            yield match[1], value, bisect.bisect_right(ends, match.start())


def arguments(rest: str) -> Iterator[tuple[str, str | None]]:
    """Yield what ARG names, with its default; None if it has none."""
    for match in _PAIR.finditer(rest.replace("\\\n", " ")):
        yield match[1], None if match[2] is None else _QUOTES.sub("", match[2])


def expand(text: str, known: Mapping[str, str]) -> str:
    """Return a text with the variables of ARG and ENV replaced; UNKNOWN for any other."""
    if "$" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return match["escaped"]
        found = known.get(match["name"] or match["braced"])
        if match["operator"] == ":-":
            return found or match["operand"]
        if match["operator"] == ":+":
            return match["operand"] if found else ""
        return UNKNOWN if found is None else found

    return replace(_VARIABLE, value, text)
