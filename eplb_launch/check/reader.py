"""Files of a review: they are found, and each is given to its kind. A bug in one stops no other.

Links to folders are not followed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from eplb_launch.check import sources, yaml_tree
from eplb_launch.check.compose import Compose
from eplb_launch.check.dockerfile import Dockerfile
from eplb_launch.check.fields import Fields
from eplb_launch.check.kind import HINTS, LEADS, Kind
from eplb_launch.check.kubernetes.manifests import Kubernetes
from eplb_launch.check.model import Mention, Trouble
from eplb_launch.check.others import OTHER, Other, entries, not_deployed, why_no_server, written
from eplb_launch.check.shell_files import Script
from eplb_launch.check.sources import COMMAND_COST, WORD_COST, YAML, Reach, Source
from eplb_launch.check.tasks import Task, TooMuch
from eplb_launch.check.units import Quadlet, Systemd
from eplb_launch.check.yaml_tree import Node

# The first kind that takes a file has it.
KINDS: tuple[type[Kind], ...] = (
    *(Dockerfile, Quadlet, Systemd, Script, Compose, Kubernetes, Fields, Other),
)
MAX_FILES = 100_000
MANY = 1 << 20  # characters: a larger List in JSON is read item by item
_SKIPPED = (".git", ".hg", ".svn", ".venv", "venv", ".tox", "node_modules", "__pycache__")
_LIST = re.compile(
    r'\{\s*(?:"(?:apiVersion|kind)":\s*"[^"]*",\s*|"metadata":\s*\{[^{}]*\},\s*)*"items":\s*\[\s*'
)
_NEXT_ITEM = re.compile(r"\s*,\s*(?=\{)")
_ITEM_HINTS = (*HINTS, *LEADS, '"ConfigMap"', "ServingRuntime")


def gather(paths: Sequence[str], reach: Reach) -> Iterator[Source]:
    """Yield the files that `paths` name. In folders, files are chosen by name."""
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
            form = source.kind
            if not form and not source.problem:
                form = _form_of_text(source.text) or OTHER * any(entries(source.text))
            yield source.replace(kind=form, named=True)


def form_of(path: str) -> str:
    """Return the form of a file by its name; "" if the name does not tell it."""
    return next((kind.form for kind in KINDS if kind.is_named(path)), "")


def _form_of_text(text: str) -> str:
    lines = (line.strip() for line in text.split("\n"))
    first = next((line for line in lines if line and line[0] not in "#;"), "")
    if text.startswith("#!"):
        first = text.partition("\n")[0]
    found = (kind.form for kind in KINDS if kind.looks(first, text))
    return next(found, "" if text.startswith("#!") else YAML)


def _below(folder: str, seen: set[tuple[int, int]], reach: Reach) -> Iterator[Source]:
    """Yield the files below a folder that have a kind by their names, or an entry point in them."""
    count = others = 0
    for path in _walk(folder):
        if isinstance(path, Source):
            yield path
            continue
        form = form_of(path)
        if os.path.islink(path) and (os.path.isdir(path) or not reach.allows(path)):
            if form not in ("", OTHER) and not os.path.isdir(path):
                yield Source(path, problem=f"it {sources.OUTSIDE}")
            continue
        if not form and "." not in os.path.basename(path):
            head = sources.head(path)
            form = _form_of_text(head) if head.startswith("#!") else ""
        if form not in ("", OTHER):
            count += 1
            source = sources.read(path, form, seen, reach=reach, only_hinted=True)
        else:
            others += 1
            source = sources.read(path, OTHER, seen, reach=reach) if others <= MAX_FILES else None
            if source is not None and (source.problem or not any(entries(source.text))):
                source = None
        if source is not None:
            yield source
        if count >= MAX_FILES:
            yield Source(
                folder, problem=f"more than {MAX_FILES:,} files in it: the rest is not read"
            )
            return
    if others > MAX_FILES:
        message = f"more than {MAX_FILES:,} files of no known kind in it: not all are searched"
        yield Source(folder, problem=message)


def _walk(folder: str) -> Iterator[str | Source]:
    """Yield the path of each file below a folder, and a Source for each unreadable folder.

    os.walk calls itself for each level before Python 3.12.
    """
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(parent) as listed:
                found = sorted(
                    (entry.name, entry.is_dir(follow_symlinks=False)) for entry in listed
                )
        except OSError as error:
            yield Source(parent, problem=str(error.strerror))
            continue
        yield from (os.path.join(parent, name) for name, is_folder in found if not is_folder)
        waiting += [
            os.path.join(parent, name)
            for name, is_folder in reversed(found)
            if is_folder and name not in _SKIPPED
        ]


class Reader:
    """The files of a review, each given to its kind."""

    def __init__(self) -> None:
        self.kinds = [kind() for kind in KINDS]
        self.first: dict[Kind, Source] = {}  # the first file of each kind
        self.files = 0
        self.names: dict[str, str] = {}  # of the files, by their absolute paths
        self.idle: list[str] = []  # files that were named, and start nothing that check reads
        self.troubles: list[Trouble] = []
        self.templates: dict[str, list[Trouble]] = {}  # by folder
        self.written: list[Task] = []  # scripts that a line writes to a file
        self.mentions: list[Mention] = []  # all lines with an entry point

    def name(self, file: str) -> str:
        """Return the one name of a file in the report: "./a.sh" and "a.sh" are the same."""
        return self.names.get(os.path.abspath(file), file)

    @contextmanager
    def guard(self, source: Source) -> Iterator[None]:
        """Report an error in the work on a file, and go on."""
        try:
            yield
        except TooMuch as error:
            self.troubles.append(Trouble(source.path, error.line, str(error)))
        except Exception as error:  # noqa: BLE001 - its text may hold a secret
            message = f"eplb-launch failed to read it, which is a bug ({type(error).__name__})"
            self.troubles.append(Trouble(source.path, 0, message))

    def take(self, source: Source) -> None:
        """Give a file, or each of its documents, to the kind that takes it."""
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
            message = f"not a file that check reads: {', '.join(titles)} or {last}"
            self.troubles.append(Trouble(source.path, 0, message))
        else:
            parts = _documents(source) if source.kind == YAML else [(source.text, None)]
            taken = [self._take_part(source, *part) for part in parts]
            if source.named and not any(taken):
                self.idle.append(source.path)

    def _take_part(
        self, source: Source, text: str, document: Node | yaml_tree.Problem | None
    ) -> bool:
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
        """Yield one trouble for the templates of each folder."""
        for troubles in self.templates.values():
            files = len({trouble.file for trouble in troubles})
            more = f", like {files - 1} more in its folder" if files > 1 else ""
            message = yaml_tree.TEMPLATE.replace(":", f"{more}:", 1)
            yield troubles[0].replace(message=message)

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks of all files. The budget of a file bounds its tasks."""
        for kind, first in self.first.items():
            with self.guard(first):
                for found in kind.tasks():
                    if isinstance(found, Trouble):
                        self.troubles.append(found)
                    else:
                        yield from self._within_budget(*found)

    def _within_budget(self, source: Source, tasks: Iterator[Task]) -> Iterator[Task]:
        with self.guard(source):
            for task in tasks:
                words = len(task.words) + len(task.variables.known) + len(task.files)
                if not source.spend(COMMAND_COST + WORD_COST * words):
                    return
                yield task

    def leftover(self) -> Iterator[Task]:
        """Yield the tasks that count only if no other task runs their lines, each text once."""
        seen = set()
        for tasks in (*(kind.leftover() for kind in self.kinds), iter(self.written)):
            for task in tasks:
                place = os.path.normpath(task.source.path), task.line, task.guess
                if place not in seen and task.source.spend(COMMAND_COST):
                    seen.add(place)
                    yield task


def _documents(source: Source) -> Iterator[tuple[str, Node | yaml_tree.Problem]]:
    text = source.text
    if source.path.endswith(".json"):
        text = text.replace("\t", " ")  # YAML does not allow tabs in front of a key
    parts = items_of(text) if len(text) > MANY and text.startswith("{") else None
    if parts is None:
        return yaml_tree.documents(text)
    return (document for part, line in parts for document in yaml_tree.documents(part, line))


def items_of(text: str) -> list[tuple[str, int]] | None:
    """Return the items of a List in JSON that may matter, with their lines; None if it is no List.

    All objects of a cluster are too many for one tree, and few of them have to do with vLLM.
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
        if any(hint in text[at:end] for hint in _ITEM_HINTS):
            found.append((text[at:end], line))
        following = _NEXT_ITEM.match(text, end)
        if following is None:
            return found if text[end:].lstrip().startswith("]") else None
        line += text.count("\n", at, following.end())
        at = following.end()
    return None
