"""What the containers of Kubernetes objects start, with what ConfigMaps bring to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from eplb_launch.check import fields, images, shell_files
from eplb_launch.check.kind import HINTS, LEADS, Kind
from eplb_launch.check.kubernetes import kserve, ray
from eplb_launch.check.kubernetes.config_maps import ConfigMaps
from eplb_launch.check.kubernetes.containers import (
    LISTS,
    Container,
    containers,
    is_object,
    objects,
    script,
)
from eplb_launch.check.kubernetes.pods import MAX_ENTRIES, expand, files, gpus, variables
from eplb_launch.check.shell_files import Script
from eplb_launch.check.sources import WORD_COST, YAML, Source
from eplb_launch.check.tasks import VALUES, Place, Task, Variables, Word, misshapen, word, words_at
from eplb_launch.check.yaml_tree import LIST, TEXT, Node
from eplb_launch.command.wrappers import SHELLS
from eplb_launch.render.env import FORMATS
from eplb_launch.vllm.releases import CAP, VARIABLE

PLACE = Place(
    "in the container",
    FORMATS["kubernetes"](VALUES).rstrip("\n"),
    begins="command: {}",
    own=("give the container a command that starts with eplb-launch", "command: {}"),
    templated=True,
)
_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_COMMANDS = ("command", "args", "script", "source")
_BY_ITSELF = "no kind says what this is a part of: it is judged by itself"


class Kubernetes(Kind):
    """A document of Kubernetes, or one that has containers as its objects have them."""

    title = "Kubernetes YAML"
    form = YAML
    suffixes = (".yaml", ".yml", ".json")

    def __init__(self) -> None:
        super().__init__()
        self.maps = ConfigMaps()
        self.runtimes = kserve.Runtimes()
        self.objects: list[tuple[Source, Node]] = []

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take the objects of a document: those that may start a server, and what these name."""
        hinted = any(hint in text for hint in (*HINTS, *LEADS))
        known = False
        is_kustomization = os.path.basename(source.path) in _KUSTOMIZATIONS
        for item in objects(document) if document is not None else ():
            kind = item.string("kind")
            if kind == "ConfigMap":
                self.maps.add(item, source)
            elif kind == "Kustomization" or is_kustomization:
                self.maps.generate(item, source)
            elif is_object(item):
                if self.runtimes.add(item) or hinted:
                    self.objects.append((source, item))
            elif hinted and any(containers(item)):
                self.objects.append((source, item))
            else:
                continue
            known = True
        return known

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        owned = [bool(node.list("metadata", "ownerReferences")) for _, node in self.objects]
        said: set[object] = set()
        for one_of_another in (False, True):
            for is_owned, (source, node) in zip(owned, self.objects, strict=True):
                if is_owned == one_of_another:
                    repeated = set(self._repeated(source, node, said, is_owned=is_owned))
                    maps = self.maps.within(node.string("metadata", "namespace"))
                    yield source, tasks(source, node, maps, self.runtimes, repeated)

    def _repeated(
        self, source: Source, node: Node, said: set[object], *, is_owned: bool
    ) -> Iterator[int]:
        """Yield the containers that are those of an owner, by their ids: Pods, ReplicaSets.

        What a controller made is said once: by its template, or by the first of its pods. One of an
        older template is not the same, and is said too.
        """
        namespace = node.string("metadata", "namespace")
        for found in containers(node):
            if not source.spend(WORD_COST * len(found.node.list("env"))):
                return
            key = (namespace, *_as_said(found.node))
            if is_owned and key in said:
                yield id(found.node)
                lines = found.node.line, found.node.end
                self.repeated.append((source.path, *lines))
            said.add(key)

    def leftover(self) -> Iterator[Task]:
        """Yield what fields of their own start, and the scripts in ConfigMaps."""
        for source, node in self.objects:
            own = {
                id(found.node): any(map(found.node.get, _COMMANDS)) for found in containers(node)
            }
            yield from fields.tasks(source, node, own)
        for name, key, file in self.maps.files():
            first = file.text.partition("\n")[0]
            is_script = Script.is_named(key) or (first[:2] == "#!" and Script.looks(first, ""))
            if is_script and any(hint in file.text for hint in HINTS):
                yield shell_files.task(file.source, file.text, file.line, f"ConfigMap/{name} {key}")


def _as_said(container: Node) -> tuple[object, ...]:
    """Return what an object says of a container, without what a controller adds to it."""
    texts = [container.string(name) for name in ("name", "image")]
    for name in _COMMANDS:
        given = container.get(name)
        texts += [name, *(given.texts() if given is not None else ())]
    env = (
        (entry.string("name"), entry.string("value"))
        for entry in container.list("env")
        if not entry.string("name").startswith("LWS_")
    )
    return (*texts, frozenset(env))


def tasks(
    source: Source,
    node: Node,
    maps: ConfigMaps,
    runtimes: kserve.Runtimes,
    repeated: AbstractSet[int] = frozenset(),
) -> Iterator[Task]:
    """Yield what an object's containers start, without those that are `repeated`, by their ids."""
    clusters = ray.Clusters(node, source, maps)
    yield from ray.tasks(source, node, maps, clusters)
    for found in containers(node):
        if id(found.node) in repeated:
            continue
        runtime = runtimes.of(found.node.string("runtime")) if found.key == "model" else None
        whole = found
        if runtime is not None:
            whole = found.replace(node=kserve.with_runtime(found.node, runtime))
        for task in _tasks(source, whole, maps, kserve.elsewhere(found, runtime)):
            yield task.replace(uncapped_peers=clusters.others_without(found))


def _tasks(source: Source, found: Container, maps: ConfigMaps, missing: str) -> Iterator[Task]:
    """Yield what a container starts: its command, and what is run in it after that.

    `missing` is an object that says more of it, and is not here.
    """
    node = found.node
    environment = variables(found, source, maps)
    image = node.string("image")
    command = _words(node.get("command"), source, environment)
    args = _words(node.get("args"), source, environment)
    own_entry = False
    text = script(node)
    if text is not None:
        command, args = _of_script(text, command, source), ()
    elif not command:
        command = kserve.before(source, found, args, unread=bool(missing))
        command = command or _by_image(source, found, image, args, environment)
        own_entry = bool(command)
    words = (*command, *args)
    unreadable = misshapen({key: node.get(key) for key in ("command", "args")}, image)
    hook = _words(node.at("lifecycle", "postStart", "exec", "command"), source, environment)
    line = 0 if unreadable else next((w.line for w in words if w.line), 0)
    name = " ".join(p for p in (found.role, f"container {node.string('name') or found.key}") if p)
    if not image and found.key in LISTS and not found.kind.startswith(kserve.PRESET):
        environment.unread.append("the object that it is a patch of")
    if missing:
        environment.unread.append(missing)
    task = Task(
        PLACE,
        f"{found.kind}/{found.name or '?'} {name}" if found.kind else name,
        source,
        node.place(line, "command", "args", "script", "source"),
        words,
        environment,
        node.string("workingDir") or "/",
        image,
        {**files(found, source, maps), **gpus(found, source)},
        () if found.kind else (_BY_ITSELF,),
        unreadable=unreadable,
        own_entry=own_entry,
        only_arguments=not command,
        mounts=tuple(m.string("mountPath") for m in node.list("volumeMounts")[:MAX_ENTRIES]),
        entry=f"- name: {VARIABLE}\n  value: '{CAP}'" if node.list("env") else "",
    )
    if words or unreadable:
        yield task
    if hook:
        yield task.replace(
            name=f"{task.name} postStart",
            line=hook[0].line,
            words=hook,
            unreadable="",
            own_entry=False,
            only_arguments=False,
        )


def _of_script(text: Node, command: tuple[Word, ...], source: Source) -> tuple[Word, ...]:
    """Return the words that run a script, by `command` or its first line; () if that is no shell.

    tekton.dev/docs/pipelines/tasks (script); argo-workflows.readthedocs.io (script templates).
    """
    first = text.text.partition("\n")[0]
    said = first[2:].split() if first.startswith("#!") else ["sh"]
    program = (command[0].text if command else said[-1] if said else "").rpartition("/")[2]
    if program not in SHELLS:
        return ()
    return (*words_at((program, "-c"), source, text.line), word(text, source))


def _words(node: Node | None, source: Source, environment: Variables) -> tuple[Word, ...]:
    items = [] if node is None or node.null else node.items if node.kind == LIST else [node]
    texts = (item for item in items[:MAX_ENTRIES] if item.kind == TEXT)
    return tuple(word(item, source, expand(item.text, environment.value)) for item in texts)


def _by_image(
    source: Source,
    found: Container,
    image: str,
    args: tuple[Word, ...],
    environment: Variables,
) -> tuple[Word, ...]:
    """Return what runs before `args` where a container names no command: what the image starts."""
    if found.kind == kserve.PRESET:
        return kserve.preset(source, found, args, environment)
    if found.kind.startswith("Ray"):  # KubeRay puts `ray start` in the place of the image's own
        return ()
    program = images.entry_point(image)
    if not program and (
        found.key == "huggingface"
        or (found.key == "model" and found.node.string("modelFormat", "name") == "huggingface")
    ):
        program = ("python3", "-m", "huggingfaceserver")
    return words_at(program, source, args[0].line if args else found.node.line)
