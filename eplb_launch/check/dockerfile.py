"""What a Dockerfile starts. docs.docker.com/reference/dockerfile."""

from __future__ import annotations

import copy
import json
import os
import posixpath
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence

from eplb_launch.check import images
from eplb_launch.check.kind import Kind
from eplb_launch.check.others import entries, why_no_server
from eplb_launch.check.shell_files import task as script
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import File, Style, Task, TooMuch, Variables, Word, words_at
from eplb_launch.check.templating import DOCKERFILE, expand, joined
from eplb_launch.check.yaml_tree import Node
from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.releases import CAP, VARIABLE

STYLE = Style(
    "in the image",
    f"ENV {VARIABLE}={CAP}",
    own=("start the server in the image with eplb-launch", "ENTRYPOINT {}"),
    image=True,
)
_MAX_STAGES = 200
_MAX_VARIABLES = 5_000  # each stage copies those of its base
_MAX_COPIES = 1_000
_MAX_UP = 5  # how many folders above the Dockerfile may be the build context
_MAX_WORDS = 100  # words that may name a file in a folder
_NO_PROGRAMS = (".sh", ".yaml", ".yml", ".json", ".conf", ".txt", ".jinja")
_INSTALLS = re.compile(r"(?<![\w/.-])vllm(?:\[[\w,-]+\])?==\s*v?([^\s\"';&|\\]+)")
_WRITES = re.compile(r"\b(?:cat\b[^|;&]*?>|tee)\s*([\w./${}\"'-]+)")
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
        """Whether the name is like `Dockerfile`, `Dockerfile.vllm` or `vllm.dockerfile`."""
        name = os.path.basename(path).lower()
        return name.startswith(("dockerfile", "containerfile")) or super().is_named(path)

    @classmethod
    def looks(cls, first: str, text: str) -> bool:  # noqa: ARG003
        """Whether the first instruction is FROM or ARG."""
        return first.split(" ", maxsplit=1)[0].upper() in ("FROM", "ARG")

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take a file; return whether it builds an image."""
        super().take(source, text, document)
        return not source.named or final(source) is not None

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        for source in self.sources:
            yield source, tasks(source)

    def leftover(self) -> Iterator[Task]:
        """Yield the scripts that steps write, for those that no stage starts."""
        why = "a step writes this script, and it is not known what starts the script"
        for source in self.sources:
            for file in _Build(source, {}).documents if "<<" in source.text else ():
                lines = file.text.split("\n")
                for number in entries(file.text):
                    if why_no_server(lines[number - 1]):
                        continue
                    text, line = "\n".join(lines[number - 1 :]), file.line + number - 1
                    yield script(source, text, line, "").replace(guess=why, about=file.text)


def tasks(source: Source) -> Iterator[Task]:
    """Yield the command of each stage: any stage may be the target of a build.

    A stage without ENTRYPOINT and CMD starts no server: the entry point of vLLM's image needs
    arguments. The words of an image have no line.
    """
    for number, stage in enumerate(_Build(source, {}).stages):
        words = (*stage.entrypoint, *stage.command)
        line = next((word.line for word in words if word.line), 0)
        if line:
            yield Task(
                STYLE,
                f"stage {stage.name or number}",
                source,
                line,
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
    """Return the target stage of a build, else the last one. `given`: the build's ARG values."""
    stages = _Build(source, given or {}).stages
    if target.isdecimal() and int(target) < len(stages):
        return stages[int(target)]
    named = [stage for stage in stages if target and stage.name == target.lower()]
    return (named or stages)[-1] if stages else None


def of_image(image: str, source: Source) -> Stage:
    """Return a stage that adds nothing to an image."""
    return Stage(_Build(source.replace(text=""), {}), image, "")


class _Build:
    """A build of a Dockerfile."""

    def __init__(self, source: Source, given: Mapping[str, str]) -> None:
        self.source = source
        self.given = given
        self.defaults: dict[str, str] = {}  # of the ARGs before the first FROM
        self.copied: dict[str, Source | None] = {}
        folder = source.directory or "."
        self.contexts = [os.path.join(folder, *[".."] * up) for up in range(_MAX_UP)]
        self.stages: list[Stage] = []
        self.documents: list[File] = []  # those that are written to files
        for line, name, rest, documents in instructions(source.text):
            files = [File("\n".join(lines), source, first) for first, lines in documents]
            if name == "FROM":
                self.begin(line, [word for word in rest.split() if not word.startswith("--")])
            elif self.stages:
                self.stages[-1].take(line, name, rest)
                self.stages[-1].write(name, rest, files)
            elif name == "ARG":
                for key, default, _ in pairs(rest, self.defaults):
                    self.defaults[key] = given.get(key, UNKNOWN if default is None else default)

    def begin(self, line: int, words: Sequence[str]) -> None:
        if len(self.stages) >= _MAX_STAGES:
            raise TooMuch(line, f"more than {_MAX_STAGES} stages")
        image = expand(words[0], self.defaults, DOCKERFILE) if words else ""
        alias = words[2].lower() if len(words) > 2 and words[1].lower() == "as" else ""
        named = (one for one in reversed(self.stages) if image and one.name == image.lower())
        base = next(named, None)
        self.stages.append(base.derived(alias) if base else Stage(self, image, alias))


class Stage:
    """A stage of a Dockerfile: the image that it builds."""

    def __init__(self, build: _Build, image: str, name: str) -> None:
        self.build = build
        self.name = name
        self.image = image  # the first base image
        self.variables = Variables()
        self.arguments: dict[str, str] = {}
        self.entrypoint = words_at(images.entry_point(image), build.source, 0)
        self.command: tuple[Word, ...] = ()
        self.directory = "/vllm-workspace" if self.entrypoint else "/"
        self.files: dict[str, File] = {}
        self.folders: dict[str, Sequence[str]] = {}
        self.shell: tuple[str, ...] = ("/bin/sh", "-c")
        self.has_cmd = False  # this stage has a CMD
        self.adds = False  # a step may bring programs
        self.installs = ""  # the release of vLLM

    def derived(self, name: str) -> Stage:
        """Return a new stage with this one as its base."""
        stage = copy.copy(self)
        stage.name = name
        stage.variables = Variables(self.variables)
        stage.arguments = {}
        stage.files, stage.folders = dict(self.files), dict(self.folders)
        stage.has_cmd = False
        return stage

    def take(self, line: int, name: str, rest: str) -> None:
        known = ChainMap(self.variables.known, self.arguments)
        if name == "ENTRYPOINT":
            self.entrypoint = self.words(line, rest)
            if not self.has_cmd:  # ENTRYPOINT removes the CMD of the base
                self.command = ()
        elif name == "CMD":
            self.command = self.words(line, rest)
            self.has_cmd = True
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

    def write(self, name: str, rest: str, documents: Sequence[File]) -> None:
        """Note the files that an instruction makes of its here-documents."""
        if name in ("COPY", "ADD"):
            names = [match[2] for match in _HEREDOC.findall(rest)]
            to = rest.rsplit(maxsplit=1)[-1]
            for end, file in zip(names, documents, strict=False):
                self.place(posixpath.join(to, end) if to.endswith("/") else to, file)
        elif name == "RUN" and len(documents) == 1:
            for path in _WRITES.findall(rest)[:1]:
                self.place(path, documents[0])

    def place(self, path: str, file: File) -> None:
        known = ChainMap(self.variables.known, self.arguments)
        path = posixpath.join(self.directory, expand(path.strip("\"'"), known, DOCKERFILE))
        self.files[posixpath.normpath(path)] = file
        self.build.documents.append(file)

    def words(self, line: int, rest: str) -> tuple[Word, ...]:
        """Return the words of an ENTRYPOINT or a CMD."""
        words = exec_form(rest)
        if words is not None:
            return words_at(words, self.build.source, line)
        end = line + rest.count("\n")
        shell = (*self.shell, rest)
        return tuple(Word(text, self.build.source, line, end, block=True) for text in shell)

    def copy(self, words: Sequence[str], known: Mapping[str, str]) -> None:
        """Note the files and folders that COPY takes from the build context."""
        *names, to = [word for word in words if not word.startswith(("--", "<<"))] or [""]
        staged = any(word.startswith("--from") for word in words)
        self.adds = self.adds or staged or not all(name.endswith(_NO_PROGRAMS) for name in names)
        to = expand(to, known, DOCKERFILE)
        copied = self.build.copied
        for name in () if staged else (expand(name, known, DOCKERFILE) for name in names):
            if UNKNOWN in name:
                continue
            places = [os.path.normpath(f"{folder}/{name}") for folder in self.build.contexts]
            path = next(filter(os.path.exists, places), places[0])
            if path not in copied and len(copied) < _MAX_COPIES:
                copied[path] = self.build.source.near(path, "", guessed=path != places[0])
            found = copied.get(path)
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
    """Return the files in `folders` that words name, by their paths in the container.

    `folders` maps a path in the container to paths that it may have here.
    """
    found: dict[str, File] = {}
    for word in words[:_MAX_WORDS]:
        path = posixpath.normpath(posixpath.join(directory, word.text))
        for folder, places in folders.items():
            below = path.removeprefix(folder.rstrip("/") + "/")
            for place in places if below != path else ():
                file = source.near(f"{place}/{below}", "", guessed=True)
                if file is not None:
                    found[path] = File(file.text, file)
                    break
    return found


def instructions(text: str) -> Iterator[tuple[int, str, str, list[tuple[int, list[str]]]]]:
    """Yield the line, the name, the arguments and the here-documents of each instruction.

    Lines that are joined keep a backslash and a newline between them, as a shell expects it.
    """
    lines = enumerate(text.split("\n"), 1)
    escape = _ESCAPE.match(text)
    for number, pieces in joined(lines, ("#", ""), escape[1] if escape else "\\"):
        name, _, rest = _NEXT_LINE.join(pieces).partition(" ")
        here = _HEREDOC.findall(rest) if name.upper() in ("RUN", "COPY", "ADD") else ()
        documents: list[tuple[int, list[str]]] = []
        first = number + len(pieces)
        for tabs, _, end in here:
            found = [line.lstrip("\t") if tabs else line for line in _until(lines, end, tabs)]
            documents.append((first, found))
            first += len(found) + 1
        yield number, name.upper(), rest.strip(), documents


def _until(lines: Iterator[tuple[int, str]], end: str, tabs: str) -> Iterator[str]:
    for _, line in lines:
        if (line.lstrip("\t") if tabs else line) == end:
            return
        yield line


def exec_form(rest: str) -> list[str] | None:
    """Return the words of the exec form, `["a", "b"]`; None if it is the shell form."""
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
    """Yield the name, the value (or None) and the line (from 0) of each pair of ENV or ARG.

    `old`: it may have the old form of ENV, `NAME the rest`.
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
