"""What an image starts, by its Dockerfile. docs.docker.com/reference/dockerfile."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence

from eplb_launch.check import images
from eplb_launch.check.kind import Kind
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import File, Place, Task, TooMuch, Variables, Word, words_at
from eplb_launch.check.templating import DOCKERFILE, expand, joined
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
_MAX_UP = 5  # folders that may be the context of a build
_MAX_WORDS = 100  # that may name a file in a folder
# Files with these names are no programs: scripts and settings.
_NO_PROGRAMS = (".sh", ".yaml", ".yml", ".json", ".conf", ".txt", ".jinja")
_INSTALLS = re.compile(r"(?<![\w/.-])vllm(?:\[[\w,-]+\])?==\s*v?([^\s\"';&|\\]+)")
_HEREDOC = re.compile(r"<<(-?)([\"']?)([A-Za-z_]\w*)\2")
_PAIR = re.compile(
    r"(?:^|(?<=\s))([A-Za-z_][\w.]*)(?:=((?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|\\.|[^\s\"'])*))?"
)
_QUOTES = re.compile(r"\"|'|\\(?=[\" ])")
_ESCAPE = re.compile(r"#\s*escape\s*=\s*(\S)", re.IGNORECASE)
_NEXT_LINE = "\\\n"


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
        """Whether it begins with an instruction FROM or ARG."""
        return first.split(" ", maxsplit=1)[0].upper() in ("FROM", "ARG")

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take a file; return whether it builds an image."""
        super().take(source, text, document)
        return not source.named or final(source) is not None

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        for source in self.sources:
            yield source, tasks(source)


def tasks(source: Source) -> Iterator[Task]:
    """Yield what the stages of a Dockerfile start: each may be the target of a build.

    A stage without an ENTRYPOINT or a CMD is left out: the entry point of vLLM's image starts no
    server without arguments.
    """
    for number, stage in enumerate(_stages(source, {})):
        words = (*stage.entrypoint, *stage.command)
        if stage.has_command and words:
            yield Task(
                PLACE,
                f"stage {stage.name or number}",
                source,
                next((w.line for w in words if w.line), stage.line),
                words,
                stage.variables,
                stage.directory,
                stage.image,
                {**files_below(stage.folders, words, stage.directory, source), **stage.files},
                own_entry=bool(stage.entrypoint) and not stage.entrypoint[0].line,
                only_arguments=not stage.entrypoint,
                adds=stage.adds,
                installs=stage.installs,
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
        # What COPY names is below one of these: the folder of the Dockerfile, or one above it.
        folder = source.directory or "."
        self.contexts = [os.path.join(folder, *[".."] * up) for up in range(_MAX_UP)]


def _stages(source: Source, given: Mapping[str, str]) -> list[Stage]:
    stages: list[Stage] = []
    build = _Build(source, given)
    for line, name, rest in instructions(source.text):
        if name == "FROM":
            if len(stages) >= _MAX_STAGES:
                raise TooMuch(line, f"more than {_MAX_STAGES} stages")
            words = [w for w in rest.split() if not w.startswith("--")]
            image = expand(words[0], build.defaults, DOCKERFILE) if words else ""
            alias = words[2].lower() if len(words) > 2 and words[1].lower() == "as" else ""
            base = (stage for stage in reversed(stages) if image and stage.name == image.lower())
            stages.append(Stage(build, image, next(base, None), alias, line))
        elif stages:
            stages[-1].take(line, name, rest)
        elif name == "ARG":
            for key, default, _ in pairs(rest, build.defaults):
                build.defaults[key] = given.get(key, UNKNOWN if default is None else default)
    return stages


class Stage:
    """An image as a stage of a Dockerfile builds it."""

    def __init__(self, build: _Build, image: str, base: Stage | None, name: str, line: int) -> None:
        """Begin with an image, or with the stage that has its name."""
        entry = words_at(images.entry_point(image), build.source, 0)
        self.build = build
        self.name = name
        self.line = line
        self.image: str = base.image if base else image  # the image that is not a stage
        self.variables: Variables = Variables(base.variables if base else None)
        self.arguments: dict[str, str] = {}
        self.entrypoint: tuple[Word, ...] = base.entrypoint if base else entry
        self.command: tuple[Word, ...] = base.command if base else ()
        self.directory: str = base.directory if base else "/vllm-workspace" if entry else "/"
        self.files: dict[str, File] = dict(base.files) if base else {}
        self.folders: dict[str, Sequence[str]] = dict(base.folders) if base else {}
        self.shell: tuple[str, ...] = ("/bin/sh", "-c")
        self.has_command: bool = (
            base is not None and base.has_command
        )  # it has an ENTRYPOINT or a CMD
        self.adds: bool = base is not None and base.adds  # a step may bring programs
        self.installs: str = base.installs if base else ""  # the release of vLLM
        self.has_cmd = False  # a CMD of its own

    def take(self, line: int, name: str, rest: str) -> None:
        """Take an instruction."""
        known = ChainMap(self.variables.known, self.arguments)
        if name == "ENTRYPOINT":
            self.entrypoint = self.words(line, rest)
            self.has_command = True
            if not self.has_cmd:  # that of the base image is dropped
                self.command = ()
        elif name == "CMD":
            self.command = self.words(line, rest)
            self.has_command = self.has_cmd = True
        elif name == "SHELL":
            self.shell = tuple(exec_form(rest) or self.shell)
        elif name == "ENV":
            for key, value, offset in list(pairs(rest, known, old=True)):
                right = f"{key}={CAP}"
                self.variables.set(key, value or "", self.build.source, line + offset, right)
            if len(self.variables.known) > _MAX_VARIABLES:
                raise TooMuch(line, f"more than {_MAX_VARIABLES:,} variables in a stage")
        elif name == "ARG":
            for key, default, _ in pairs(rest, known):
                own = self.build.defaults.get(key, UNKNOWN) if default is None else default
                self.arguments[key] = self.build.given.get(key, own)
        elif name == "WORKDIR":
            path = expand(rest.strip("\"' "), known, DOCKERFILE)
            self.directory = posixpath.join(self.directory, path)
        elif name in ("COPY", "ADD"):
            self.copy(exec_form(rest) or rest.split(), known)
        elif name == "RUN":
            self.adds = self.adds or images.brings(rest)
            releases = _INSTALLS.findall(expand(rest, known, DOCKERFILE))
            self.installs = "".join(releases[-1:]) or self.installs

    def words(self, line: int, rest: str) -> tuple[Word, ...]:
        """Return the words of ENTRYPOINT or CMD."""
        words = exec_form(rest)
        if words is not None:
            return words_at(words, self.build.source, line)
        end = line + rest.count("\n")
        shell = (*self.shell, rest)
        return tuple(Word(text, self.build.source, line, end, block=True) for text in shell)

    def copy(self, words: Sequence[str], known: Mapping[str, str]) -> None:
        """Note the files and folders that are copied from the context of the build."""
        *names, to = [word for word in words if not word.startswith("--")] or [""]
        staged = any(word.startswith("--from") for word in words)
        self.adds = self.adds or staged or not all(name.endswith(_NO_PROGRAMS) for name in names)
        to = expand(to, known, DOCKERFILE)
        read = self.build.read
        for name in () if staged else (expand(name, known, DOCKERFILE) for name in names):
            if UNKNOWN in name:
                continue
            places = [os.path.normpath(f"{folder}/{name}") for folder in self.build.contexts]
            path = next(filter(os.path.exists, places), places[0])
            if path not in read and len(read) < _MAX_COPIES:
                read[path] = self.build.source.near(path, "", guessed=path != places[0])
            found = read.get(path)
            if found is None:
                self.folders[posixpath.normpath(posixpath.join(self.directory, to))] = places
            else:
                inside = to.endswith(("/", ".")) or len(names) > 1
                target = posixpath.join(to, os.path.basename(name)) if inside else to
                target = posixpath.normpath(posixpath.join(self.directory, target))
                self.files[target] = File(found.text, found)


def files_below(
    folders: Mapping[str, Sequence[str]], words: Sequence[Word], directory: str, source: Source
) -> dict[str, File]:
    """Return the files that words name below folders, by their paths there.

    `folders` has for each path there the paths that it may have here.
    """
    found: dict[str, File] = {}
    for word in words[:_MAX_WORDS]:
        path = posixpath.normpath(posixpath.join(directory, word.text))
        for there, places in folders.items():
            below = path.removeprefix(there.rstrip("/") + "/")
            for place in places if below != path else ():
                file = source.near(f"{place}/{below}", "", guessed=True)
                if file is not None:
                    found[path] = File(file.text, file)
                    break
    return found


def instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield each instruction: its line, its name, and the rest.

    A rest with several lines keeps them, each with a backslash at its end: a shell reads them the
    same way, and the lines can be counted.
    """
    lines = enumerate(text.split("\n"), 1)
    escape = _ESCAPE.match(text)
    for number, pieces in joined(lines, ("#", ""), escape[1] if escape else "\\"):
        name, _, rest = _NEXT_LINE.join(pieces).partition(" ")
        here = _HEREDOC.findall(rest) if name.upper() in ("RUN", "COPY", "ADD") else ()
        for tabs, _, end in here:
            next((line for _, line in lines if (line.lstrip("\t") if tabs else line) == end), None)
        yield number, name.upper(), rest.strip()


def exec_form(rest: str) -> list[str] | None:
    """Return the words of the exec form; None if it is the shell form."""
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest.replace(_NEXT_LINE, "\n"))
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(w, str) for w in words) else None


def pairs(
    rest: str, known: Mapping[str, str], *, old: bool = False
) -> Iterator[tuple[str, str | None, int]]:
    """Yield what ENV and ARG name: `A=1 B="x y"`, or the `old` form of ENV, `A the rest`.

    Each with its value, None if it has none, and its line, counted from 0.
    """
    name, _, value = rest.partition(" ")
    if old and value and "=" not in name:
        yield name, expand(value.replace(_NEXT_LINE, " ").strip(), known, DOCKERFILE), 0
        return
    line = at = 0
    for match in _PAIR.finditer(rest.replace(_NEXT_LINE, " \n")):
        if old and match[2] is None:
            continue
        line += match.string.count("\n", at, match.start())
        at = match.start()
        text = match[2] and _QUOTES.sub("", match[2]).replace("\n", "")
        literal = not text or match[2].startswith("'")
        yield match[1], text if literal else expand(text, known, DOCKERFILE), line
