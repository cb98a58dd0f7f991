"""The files of a review: their kinds, and what they start. A bug in one ends no other.

Links to folders are not followed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from eplb_launch.check import sources, yaml_tree
from eplb_launch.check.compose.services import Compose
from eplb_launch.check.dockerfile import Dockerfile
from eplb_launch.check.fields import Fields
from eplb_launch.check.kind import HINTS, LEADS, Kind
from eplb_launch.check.kubernetes.manifests import Kubernetes
from eplb_launch.check.model import Mention, Trouble
from eplb_launch.check.others import OTHER, Other, entries, not_deployed, why_no_server, written
from eplb_launch.check.quadlet import Quadlet
from eplb_launch.check.shell_files import Script
from eplb_launch.check.sources import COMMAND_COST, WORD_COST, YAML, Reach, Source
from eplb_launch.check.systemd import Unit
from eplb_launch.check.tasks import Task, TooMuch
from eplb_launch.check.yaml_tree import Node

# The first that takes a file has it.
KINDS: tuple[type[Kind], ...] = (
    Dockerfile,
    Quadlet,
    Unit,
    Script,
    Compose,
    Kubernetes,
    Fields,
    Other,
)

MAX_FILES = 100_000
_SKIPPED = frozenset(
    (".git", ".hg", ".svn", ".venv", "venv", ".tox", "node_modules", "__pycache__")
)
MANY = 1 << 20  # characters of JSON of which each item is read by itself
_LIST = re.compile(
    r'\{\s*(?:"(?:apiVersion|kind)":\s*"[^"]*",\s*|"metadata":\s*\{[^{}]*\},\s*)*"items":\s*\[\s*'
)
_NEXT = re.compile(r"\s*,\s*(?=\{)")
_ITEMS = (*HINTS, *LEADS, '"ConfigMap"', "ServingRuntime")


def gather(paths: Sequence[str], reach: Reach) -> Iterator[Source]:
    """Yield the files that `paths` name; in folders, files are chosen by name."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if os.path.isdir(path):
            yield from _below(path, seen, reach)
            continue
        if path == "-":
            source: Source | None = sources.standard_input(reach)
        else:
            source = sources.read(path, form_of(path), seen, reach=reach)
        if source is not None:
            if not source.kind and not source.problem:
                form = _looks_like(source.text)
                source = source.replace(
                    kind=form or (OTHER if next(entries(source.text), 0) else "")
                )
            yield source.replace(named=True)


def form_of(path: str) -> str:
    """Return the form of a file by its name; "" if that does not say it."""
    return next((kind.form for kind in KINDS if kind.is_named(path)), "")


def _looks_like(text: str) -> str:
    """Return the form of a text by what is in it."""
    lines = (line.strip() for line in text.split("\n"))
    first = next((line for line in lines if line and line[0] not in "#;"), "")
    if text.startswith("#!"):
        first = text.partition("\n")[0]
    found = (kind.form for kind in KINDS if kind.looks(first, text))
    return next(found, "" if text.startswith("#!") else YAML)


def _below(folder: str, seen: set[tuple[int, int]], reach: Reach) -> Iterator[Source]:
    failed: list[OSError] = []
    count = others = 0
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        folders, files = _names(parent, failed)
        waiting += [os.path.join(parent, name) for name in reversed(folders)]
        for name in files:
            path = os.path.join(parent, name)
            form = form_of(path)
            if os.path.islink(path) and not reach.allows(path):
                if form not in ("", OTHER):
                    yield Source(path, problem=f"it {sources.OUTSIDE}")
                continue
            if not form and "." not in name:
                head = sources.head(path)
                form = _looks_like(head) if head.startswith("#!") else ""
            if form in ("", OTHER):
                others += 1
                source = _other(path, seen, reach) if others <= MAX_FILES else None
            else:
                count += 1
                source = sources.read(path, form, seen, reach=reach, only_hinted=True)
            if source is not None:
                yield source
            if count >= MAX_FILES:
                message = f"more than {MAX_FILES:,} files in it: the rest is not read"
                yield Source(folder, problem=message)
                return
    if others > MAX_FILES:
        message = f"more than {MAX_FILES:,} files of no known kind in it: not all are looked at"
        yield Source(folder, problem=message)
    for error in failed:
        yield Source(str(error.filename), problem=f"unreadable: {error.strerror}")


def _other(path: str, seen: set[tuple[int, int]], reach: Reach) -> Source | None:
    """Return a file without a reader, if it is a text with an entry point in it."""
    try:
        if os.stat(path).st_size > sources.MAX_TEXT:  # data, a log, weights
            return None
    except OSError:
        return None
    source = sources.read(path, OTHER, seen, reach=reach)
    if source is None or source.problem:
        return None
    return source if next(entries(source.text), 0) else None


def _names(folder: str, failed: list[OSError]) -> tuple[list[str], list[str]]:
    """Return the names of the folders that are looked into, and of the files in a folder.

    os.walk calls itself for each level before Python 3.12.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    files.append(entry.name)
                elif not entry.is_symlink() and entry.name not in _SKIPPED:
                    folders.append(entry.name)
    except OSError as error:
        failed.append(error)
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


class Reader:
    """The files of a review, as far as they have been read."""

    def __init__(self) -> None:
        self.files = 0
        self.idle: list[str] = []
        self.troubles: list[Trouble] = []
        self.kinds = [kind() for kind in KINDS]
        self.first: dict[Kind, Source] = {}  # of each kind, what was taken first
        self.names: dict[str, str] = {}  # of the files, each as it was found
        self.written: list[Task] = []  # scripts that a line writes to a file
        self.templates: dict[str, list[Trouble]] = {}  # by folder: they are no YAML yet
        self.mentions: list[Mention] = []  # every line with an entry point

    def name(self, file: str) -> str:
        """Return the one name of a file in the report: "./a.sh" and "a.sh" are the same."""
        return self.names.get(os.path.abspath(file), file)

    @contextmanager
    def guard(self, source: Source) -> Iterator[None]:
        """Report what goes wrong with a file, and go on."""
        try:
            yield
        except TooMuch as error:
            self.troubles.append(Trouble(source.path, error.line, str(error)))
        except Exception as error:  # noqa: BLE001 - its text may hold what is secret
            message = f"eplb-launch failed to read it, a bug of its own ({type(error).__name__})"
            self.troubles.append(Trouble(source.path, 0, message))

    def take(self, source: Source) -> None:
        left_out = source.kind == OTHER and not source.named
        what = not_deployed(source.path, source.text) if left_out else ""
        self.files += not what
        self.names.setdefault(os.path.abspath(source.path), source.path)
        lines = source.text.split("\n")
        for line in entries(source.text):
            self.mentions.append(Mention(source.path, line, what or why_no_server(lines[line - 1])))
            if not what:
                self.written += written(source, line, lines[line - 1])
        if source.problem:
            self.troubles.append(Trouble(source.path, 0, source.problem))
        elif not source.kind:
            *titles, last = (kind.title for kind in KINDS if kind.title)
            message = f"no kind of file that is known here: {', '.join(titles)} or {last}"
            self.troubles.append(Trouble(source.path, 0, message))
        else:
            parts = _documents(source) if source.kind == YAML else [(source.text, None)]
            known = [self.take_part(source, *part) for part in parts]
            if source.named and not any(known):
                self.idle.append(source.path)

    def take_part(
        self, source: Source, text: str, document: Node | yaml_tree.Problem | None
    ) -> bool:
        """Take a file, or a document of one; whether it is of a kind that is known here."""
        if isinstance(document, yaml_tree.Problem):
            trouble = Trouble(source.path, document.line, document.message)
            if document.message == yaml_tree.TEMPLATE:
                self.templates.setdefault(source.directory, []).append(trouble)
            else:
                self.troubles.append(trouble)
            return True
        for kind in self.kinds:
            if kind.form == source.kind and kind.take(source, text, document):
                self.first.setdefault(kind, source)
                return True
        return False

    def unrendered(self) -> Iterator[Trouble]:
        """Yield the templates that are no YAML yet, once for each folder."""
        for troubles in self.templates.values():
            files = len({trouble.file for trouble in troubles})
            more = f", like {files - 1} more in its folder" if files > 1 else ""
            message = yaml_tree.TEMPLATE.replace(":", f"{more}:", 1)
            yield troubles[0].replace(message=message)

    def tasks(self) -> Iterator[Task]:
        for kind, first in self.first.items():
            with self.guard(first):
                for found in kind.tasks():
                    if isinstance(found, Trouble):
                        self.troubles.append(found)
                    else:
                        yield from self.bounded(*found)

    def bounded(self, source: Source, tasks: Iterator[Task]) -> Iterator[Task]:
        """Yield the tasks of a document, until the budget of its file is spent: see `Reach`."""
        with self.guard(source):
            for task in tasks:
                words = len(task.words) + len(task.variables.known) + len(task.files)
                if not source.spend(COMMAND_COST + WORD_COST * words):
                    return
                yield task

    def leftover(self) -> Iterator[Task]:
        """Yield what counts only if no other task runs it, each text once."""
        seen = set()
        for left in (*(kind.leftover() for kind in self.kinds), iter(self.written)):
            for task in left:
                place = os.path.normpath(task.source.path), task.line, task.guess
                if place not in seen and task.source.spend(COMMAND_COST):
                    seen.add(place)
                    yield task


def _documents(source: Source) -> Iterator[tuple[str, Node | yaml_tree.Problem]]:
    text = source.text
    if source.path.endswith(".json"):
        text = text.replace("\t", " ")  # JSON may be indented with tabs, YAML not
    parts = items_of(text) if len(text) > MANY and text.startswith("{") else None
    if parts is None:
        return yaml_tree.documents(text)
    return (document for part, line in parts for document in yaml_tree.documents(part, line))


def items_of(text: str) -> list[tuple[str, int]] | None:
    """Return the items of a List in JSON that are of interest, each with its line; None: no List.

    What a cluster has is too much for one tree, and most of it has nothing to do with vLLM.
    """
    start = _LIST.match(text)
    decoder = json.JSONDecoder()
    found: list[tuple[str, int]] = []
    at = start.end() if start else 0
    line = 1 + text.count("\n", 0, at)
    while at and text[at] == "{":
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        part = text[at:end]
        if any(hint in part for hint in _ITEMS):
            found.append((part, line))
        following = _NEXT.match(text, end)
        following_at = following.end() if following else end
        line += text.count("\n", at, following_at)
        if not following:
            return found if text[end:].lstrip().startswith("]") else None
        at = following_at
    return None
