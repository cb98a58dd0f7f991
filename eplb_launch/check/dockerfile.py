"""What an image starts, by its Dockerfile. docs.docker.com/reference/dockerfile."""

from __future__ import annotations

import os
import posixpath
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from eplb_launch.check import images
from eplb_launch.check.instructions import (
    arguments,
    exec_form,
    expand,
    instructions,
    pairs,
    unquoted,
)
from eplb_launch.check.kind import Kind
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import (
    File,
    Limit,
    Place,
    Task,
    TooMuch,
    Variables,
    Word,
)
from eplb_launch.check.yaml_tree import Node
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.vllm.releases import CAP, VARIABLE

# From the name of an ARG and its own default to its value.
_Argument: TypeAlias = Callable[[str, str | None], str]


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


class Built(Record):
    """An image as a stage of a Dockerfile builds it."""

    image: str  # that it all began with
    entrypoint: tuple[Word, ...] = ()
    command: tuple[Word, ...] = ()
    environ: Mapping[str, str] = {}
    directory: str = "/"
    files: Mapping[str, File] = {}
    says: bool = False  # the Dockerfile has an ENTRYPOINT or a CMD for it
    name: str = ""
    line: int = 0
    limit: Limit | None = None
    adds: bool = False  # a step may bring programs

    @property
    def bare(self) -> bool:
        """Whether it is an image as it was published, with no program added."""
        return not self.adds and images.is_bare(self.image, ())


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
        if not stage.says or not words:
            continue
        yield Task(
            PLACE,
            f"stage {stage.name or number}",
            source,
            next((w.line for w in words if w.line), stage.line),
            words,
            stage.environ,
            (),
            stage.directory,
            stage.image,
            stage.files,
            own_entry=bool(stage.entrypoint) and not stage.entrypoint[0].line,
            only_arguments=not stage.entrypoint,
            limit=stage.limit,
            bare=stage.bare,
        )


def final(
    source: Source, target: str = "", arguments: Mapping[str, str] | None = None
) -> Built | None:
    """Return the stage that a build ends with, or the one named `target`.

    `arguments` are those that the build is given for ARG.
    """
    found = list(_stages(source, arguments or {}))
    if target.isdecimal() and int(target) < len(found):
        return found[int(target)]
    named = [stage for stage in found if target and stage.name == target.lower()]
    return (named or found)[-1] if found else None


def _stages(source: Source, given: Mapping[str, str]) -> list[Built]:
    stages: list[Built] = []
    names: dict[str, Built] = {}
    defaults: dict[str, str] = {}  # of ARG before the first FROM

    def argument(key: str, default: str | None) -> str:
        """Return the value of an ARG of a stage."""
        return given.get(key, defaults.get(key, UNKNOWN) if default is None else default)

    read: dict[str, Source | None] = {}  # what COPY names, each file once
    reader: _Stage | None = None
    for line, name, rest in instructions(source.text):
        if name == "FROM":
            if reader is not None:
                stages.append(reader.built())
                names[reader.name] = stages[-1]
            if len(stages) >= _MAX_STAGES:
                raise TooMuch(line, f"more than {_MAX_STAGES} stages")
            words = [w for w in rest.split() if not w.startswith("--")]
            image = expand(words[0], defaults) if words else ""
            alias = words[2].lower() if len(words) > 2 and words[1].lower() == "as" else ""
            base = names.get(image.lower()) or _base(image, source)
            reader = _Stage(base, alias, source, line, argument=argument, read=read)
        elif reader is None:
            if name == "ARG":
                for key, value in arguments(rest):
                    own = UNKNOWN if value is None else expand(value, defaults)
                    defaults[key] = given.get(key, own)
        else:
            reader.take(line, name, rest)
    return [*stages, reader.built()] if reader is not None else stages


def _no_program(name: str) -> bool:
    """Whether what COPY names is a script or a file of settings, by its name."""
    return name.endswith((".sh", ".yaml", ".yml", ".json", ".conf", ".txt", ".jinja"))


def _base(image: str, source: Source) -> Built:
    words = tuple(Word(text, source, 0) for text in images.entry_point(image))
    return Built(image, words, directory="/vllm-workspace" if words else "/")


class _Stage:
    def __init__(
        self,
        base: Built,
        name: str,
        source: Source,
        line: int,
        *,
        argument: _Argument,
        read: dict[str, Source | None],
    ) -> None:
        self.source = source
        self.base = base
        self.name = name
        self.line = line
        self.variables = Variables(base.environ, base.limit)
        self.arguments: dict[str, str] = {}
        self.argument = argument
        self.read = read
        self.entrypoint = base.entrypoint
        self.command = base.command
        self.directory = base.directory
        self.files = dict(base.files)
        self.shell: tuple[str, ...] = ("/bin/sh", "-c")
        self.says = base.says
        self.adds = base.adds
        self.said_command = False

    def built(self) -> Built:
        return Built(
            self.base.image,
            self.entrypoint,
            self.command,
            self.variables.known,
            self.directory,
            self.files,
            self.says,
            self.name,
            self.line,
            self.variables.limit,
            self.adds,
        )

    def take(self, line: int, name: str, rest: str) -> None:
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
                self.variables.set(key, value, self.source, line + offset, f"{key}={CAP}")
            if len(self.variables.known) > _MAX_VARIABLES:
                raise TooMuch(line, f"more than {_MAX_VARIABLES:,} variables in a stage")
        elif name == "ARG":
            for key, default in arguments(rest):
                own = None if default is None else expand(default, known)
                self.arguments[key] = self.argument(key, own)
        elif name == "WORKDIR":
            self.directory = posixpath.join(self.directory, expand(unquoted(rest), known))
        elif name in ("COPY", "ADD"):
            self.adds = self.adds or not all(map(_no_program, rest.split()[:-1]))
            self.copy(rest, known)
        elif name == "RUN":
            self.adds = self.adds or images.BRINGS.search(rest) is not None

    def words(self, line: int, rest: str) -> tuple[Word, ...]:
        words = exec_form(rest)
        if words is not None:
            return tuple(Word(text, self.source, line) for text in words)
        end = line + rest.count("\n")
        return tuple(Word(text, self.source, line, end, block=True) for text in (*self.shell, rest))

    def copy(self, rest: str, known: Mapping[str, str]) -> None:
        """Note a file that is copied from beside the Dockerfile."""
        words = exec_form(rest) or rest.split()
        if any(word.startswith("--from") for word in words):
            return
        words = [expand(word, known) for word in words if not word.startswith("--")]
        for name in words[:-1]:
            path = os.path.normpath(os.path.join(self.source.directory, name))
            if UNKNOWN in path:
                continue
            if path not in self.read and len(self.read) < _MAX_COPIES:
                self.read[path] = self.source.near(path, "")
            found = self.read.get(path)
            if found is None:
                continue
            target = posixpath.join(self.directory, words[-1])
            if words[-1].endswith(("/", ".")) or len(words) > 2:
                target = posixpath.join(target, os.path.basename(name))
            self.files[posixpath.normpath(target)] = File(found.text, found)
