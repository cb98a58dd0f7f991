"""`eplb-launch check`: from paths to findings, and to an exit status."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from eplb_launch.launch import LAUNCHER_FAILED, say
from eplb_launch.manifests import (
    compose,
    config_maps,
    containers,
    dockerfiles,
    extends,
    kubernetes,
    nodes,
    reports,
    sources,
    systemd,
    units,
)
from eplb_launch.manifests.judging import judge
from eplb_launch.manifests.tasks import SCRIPT, Task, Word
from eplb_launch.manifests.verdicts import EXPOSED, NOT_KNOWN
from eplb_launch.record import Record
from eplb_launch.shell_state import GAP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eplb_launch.manifests.judging import Finding
    from eplb_launch.manifests.nodes import Node
    from eplb_launch.manifests.sources import Source
    from eplb_launch.manifests.tasks import File

# Without one of these, a document starts no server that could be judged.
_HINTS = ("vllm", "dynamo", "huggingface", "eplb", "data-parallel", "data_parallel", "${{", "$(")


# Of one document. An alias makes many of one.
_NAMED = 3  # of many files, in one line
_MAX_TASKS = 1_000
_MAX_WORDS = 100_000


class Trouble(Record):
    """A file, or a part of one, that could not be read."""

    file: str
    line: int  # 0: no particular one
    message: str


class Review(Record):
    """All that was found."""

    findings: tuple[Finding, ...]
    troubles: tuple[Trouble, ...]
    files: int  # how many were read
    idle: tuple[str, ...] = ()  # files that were asked for, with nothing in them that is known here

    def status(self, *, strict: bool = False) -> int:
        """Return the exit status: 1 where something is exposed, 125 where a file was not read."""
        if any(f.verdict == EXPOSED or (strict and f.verdict == NOT_KNOWN) for f in self.findings):
            return 1
        return LAUNCHER_FAILED if self.troubles else 0


def check(paths: Sequence[str], vllm_version: str | None = None) -> Review:
    """Return the review of the servers that files start.

    `vllm_version` is what runs in all of them, whatever the images say.
    """
    reader = _Reader()
    for source in sources.gather(paths):
        reader.take(source)
    findings: dict[tuple[str, int, str], Finding] = {}
    for task in reader.tasks():
        for finding in judge(task, vllm_version):
            findings.setdefault((finding.file, finding.line, finding.name), finding)
    covered = {(file, line) for file, line, _ in findings}
    for task in reader.leftover():
        for finding in judge(task, vllm_version):
            if (finding.file, finding.line) not in covered:
                findings[finding.file, finding.line, finding.name] = finding
    found = sorted(findings.values(), key=lambda finding: reader.order(finding.file, finding.line))
    return Review(tuple(found), tuple(reader.troubles), reader.files, tuple(reader.idle))


def run(
    paths: Sequence[str], *, style: str, strict: bool = False, vllm_version: str | None = None
) -> int:
    """Check, print the review in a style ("text", "json", "github", "sarif"), return the status."""
    review = check(paths, vllm_version)
    if review.idle:
        names = ", ".join(reports.printable(path) for path in review.idle[:_NAMED])
        more = f" and {len(review.idle) - _NAMED} more" if len(review.idle) > _NAMED else ""
        say(f"nothing that check reads is in {names}{more}")
    text = reports.STYLES[style](review, strict=strict)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
    return review.status(strict=strict)


class _Reader:
    """The files of a review, as far as they have been read."""

    def __init__(self) -> None:
        self.files = 0
        self.idle: list[str] = []
        self.troubles: list[Trouble] = []
        self.maps = config_maps.ConfigMaps()
        self.objects: list[tuple[Source, Node]] = []
        self.composed: list[extends.Layer] = []
        self.units: list[Source] = []
        self.images: list[Source] = []
        self.scripts: list[Source] = []
        self.numbers: dict[str, int] = {}

    def order(self, file: str, line: int) -> tuple[int, int]:
        """Return where a finding comes in the report."""
        return self.numbers.get(file, len(self.numbers)), line

    def take(self, source: Source) -> None:
        """Read a file."""
        self.files += 1
        self.numbers.setdefault(source.path, len(self.numbers))
        if source.problem:
            self.troubles.append(Trouble(source.path, 0, source.problem))
        elif source.kind == sources.YAML:
            known = [self.take_document(source, *part) for part in _documents(source)]
            if source.named and not any(known):
                self.idle.append(source.path)
        elif source.kind == sources.UNIT:
            self.units.append(source)
        elif source.kind == sources.DOCKERFILE:
            self.images.append(source)
            if source.named and dockerfiles.final(source) is None:
                self.idle.append(source.path)
        elif source.kind == sources.SCRIPT:
            self.scripts.append(source)
        else:
            message = "no kind of file that is known here: Kubernetes or compose YAML, a systemd "
            message += "unit, a Dockerfile or a shell script"
            self.troubles.append(Trouble(source.path, 0, message))

    def take_document(self, source: Source, part: str, document: Node | nodes.Problem) -> bool:
        """Take a document; whether it is of a kind that is known here."""
        if isinstance(document, nodes.Problem):
            self.troubles.append(Trouble(source.path, document.line, document.message))
            return True
        hinted = any(hint in part for hint in _HINTS)
        if compose.is_compose(document):
            elsewhere = any(word in part for word in ("build", "extends", "include"))
            if hinted or elsewhere or extends.override_of(source.path):
                self.composed.append(extends.Layer(source, document))
            return True
        known = False
        for item in containers.objects(document):
            if item.string("kind") == "ConfigMap":
                self.maps.add(item, source)
                known = True
            elif item.string("kind") == "Kustomization":
                self.maps.generate(item, source)
                known = True
            elif containers.is_object(item):
                known = True
                if hinted:
                    self.objects.append((source, item))
            elif hinted and any(containers.containers(item)):
                known = True
                self.objects.append((source, item))
        return known

    def tasks(self) -> Iterator[Task]:
        """Yield what the files start."""
        for source, node in self.objects:
            yield from self.bounded(source, kubernetes.tasks(source, node, self.maps))
        merged = {extends.override_of(file.source.path) for file in self.composed}
        for file in extends.included(self.composed):
            if isinstance(file, tuple):
                message = "it includes a file that is not here, or is no YAML"
                self.troubles.append(Trouble(file[0].source.path, file[1].line, message))
            elif os.path.normpath(file.source.path) not in merged:
                yield from self.bounded(file.source, compose.tasks(file.source, file.node))
        for unit in units.units(self.units):
            yield from self.bounded(unit[0], systemd.tasks(unit))
        for source in self.images:
            yield from self.bounded(source, dockerfiles.tasks(source))

    def bounded(self, source: Source, tasks: Iterator[Task]) -> Iterator[Task]:
        """Yield the tasks of a document, but not more than any real one has."""
        words = 0
        for number, task in enumerate(tasks):
            words += len(task.words) + len(task.environ)
            if number >= _MAX_TASKS or words > _MAX_WORDS:
                message = f"more than {_MAX_TASKS:,} commands, or {_MAX_WORDS:,} words in them: "
                self.troubles.append(Trouble(source.path, task.line, message + "not read on"))
                return
            yield task

    def leftover(self) -> Iterator[Task]:
        """Yield scripts, and those in ConfigMaps: for what no container was seen to run."""
        for source in self.scripts:
            yield _script(source, source.text, 1, "")
        read = {os.path.normpath(source.path) for source in self.scripts}
        for name, key, file in self.maps.files():
            if os.path.normpath(file.source.path) in read:
                continue
            if _looks_like_script(key, file) and any(hint in file.text for hint in _HINTS):
                yield _script(file.source, file.text, file.line, f"ConfigMap/{name} {key}")


def _documents(source: Source) -> Iterator[tuple[str, Node | nodes.Problem]]:
    text = source.text
    if source.path.endswith(".json"):
        text = text.replace("\t", " ")  # JSON may be indented with tabs, YAML not
    return nodes.documents(text)


def _looks_like_script(key: str, file: File) -> bool:
    return sources.kind_of(key) == sources.SCRIPT or (
        file.text.startswith("#!") and "sh" in file.text.partition("\n")[0]
    )


def _script(source: Source, text: str, line: int, name: str) -> Task:
    """Return the task of a script: its parameters are not known."""
    end = line + text.count("\n")
    first = text.partition("\n")[0]
    shell = "bash" if not first.startswith("#!") or "bash" in first else "sh"
    words = (
        Word(shell, source, line),
        Word("-c", source, line),
        Word(text, source, line, end, block=True),
        Word(source.path.rpartition("/")[2], source, line),
        Word(GAP, source, line),
    )
    return Task(SCRIPT, name, source, line, words)
