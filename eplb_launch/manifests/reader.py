"""The files of a review as they are read, and what they start: one that fails ends no other."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eplb_launch.manifests import (
    compose,
    config_maps,
    containers,
    dockerfiles,
    extends,
    kserve,
    kubernetes,
    nodes,
    sources,
    systemd,
    units,
)
from eplb_launch.manifests.model import Trouble
from eplb_launch.manifests.tasks import SCRIPT, Task, TooMuch, Word
from eplb_launch.shell_state import GAP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eplb_launch.manifests.nodes import Node
    from eplb_launch.manifests.sources import Source
    from eplb_launch.manifests.tasks import File

# Without one of these, a document starts no server that could be judged.
_HINTS = (*sources.HINTS, "dynamo", "huggingface", "data-parallel", "data_parallel", "${{", "$(")
# With one of these, what it starts may be said in another file, or its variables there.
_LEADS = ("VLLM_", "NCCL_", "configMap")
_LEADS_OF_COMPOSE = (*_LEADS, "build", "configs", "env_file", "extends", "include", "volumes")
_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")

# Of one document. An alias makes many of one.
_MAX_TASKS = 1_000
_MAX_WORDS = 100_000


class Reader:
    """The files of a review, as far as they have been read."""

    def __init__(self) -> None:
        """Begin with none."""
        self.files = 0
        self.idle: list[str] = []
        self.troubles: list[Trouble] = []
        self.maps = config_maps.ConfigMaps()
        self.runtimes = kserve.Runtimes()
        self.objects: list[tuple[Source, Node]] = []
        self.composed: list[extends.Layer] = []
        self.units: list[Source] = []
        self.images: list[Source] = []
        self.scripts: list[Source] = []
        self.names: dict[str, str] = {}  # of the files, each as it was found

    def name(self, file: str) -> str:
        """Return the one name of a file in the report: "./a.sh" and "a.sh" are the same."""
        return self.names.get(os.path.abspath(file), file)

    @contextmanager
    def guard(self, source: Source) -> Iterator[None]:
        """Let what goes wrong with a file be said of it, and end nothing else."""
        try:
            yield
        except TooMuch as error:
            self.troubles.append(Trouble(source.path, error.line, str(error)))
        except Exception as error:  # noqa: BLE001 - its text may hold what is secret
            message = f"eplb-launch failed to read it, a bug of its own ({type(error).__name__})"
            self.troubles.append(Trouble(source.path, 0, message))

    def take(self, source: Source) -> None:
        """Read a file."""
        self.files += 1
        self.names.setdefault(os.path.abspath(source.path), source.path)
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
            leads = any(word in part for word in _LEADS_OF_COMPOSE)
            if hinted or leads or extends.override_of(source.path):
                self.composed.append(extends.Layer(source, document))
            return True
        hinted = hinted or any(word in part for word in _LEADS)
        known = False
        is_kustomization = os.path.basename(source.path) in _KUSTOMIZATIONS
        for item in containers.objects(document):
            if item.string("kind") == "ConfigMap":
                self.maps.add(item, source)
                known = True
            elif item.string("kind") == "Kustomization" or is_kustomization:
                self.maps.generate(item, source)
                known = True
            elif containers.is_object(item):
                known = True
                if self.runtimes.add(item) or hinted:
                    self.objects.append((source, item))
            elif hinted and any(containers.containers(item)):
                known = True
                self.objects.append((source, item))
        return known

    def tasks(self) -> Iterator[Task]:
        """Yield what the files start."""
        for source, node in self.objects:
            yield from self.bounded(source, self.of_object(source, node))
        for first in self.composed[:1]:
            with self.guard(first.source):
                yield from self.of_compose()
        for first_unit in self.units[:1]:
            with self.guard(first_unit):
                for unit in units.units(self.units):
                    yield from self.bounded(unit[0], systemd.tasks(unit))
        for source in self.images:
            yield from self.bounded(source, dockerfiles.tasks(source))

    def of_object(self, source: Source, node: Node) -> Iterator[Task]:
        """Yield what an object of Kubernetes starts."""
        maps = self.maps.within(node.string("metadata", "namespace"))
        yield from kubernetes.tasks(source, node, maps, self.runtimes)

    def of_compose(self) -> Iterator[Task]:
        """Yield what the compose files start, and those that they include."""
        merged = {extends.override_of(file.source.path) for file in self.composed}
        for file in extends.included(self.composed):
            if isinstance(file, tuple):
                message = "it includes a file that is not here, or is no YAML"
                self.troubles.append(Trouble(file[0].source.path, file[1].line, message))
            elif os.path.normpath(file.source.path) not in merged:
                yield from self.bounded(file.source, compose.tasks(file.source, file.node))

    def bounded(self, source: Source, tasks: Iterator[Task]) -> Iterator[Task]:
        """Yield the tasks of a document, but not more than any real one has."""
        words = 0
        with self.guard(source):
            for number, task in enumerate(tasks):
                words += len(task.words) + len(task.environ) + len(task.files)
                if number >= _MAX_TASKS or words > _MAX_WORDS:
                    message = (
                        f"more than {_MAX_TASKS:,} commands, or {_MAX_WORDS:,} words in them: "
                    )
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
