"""What the containers of Kubernetes objects start."""

from __future__ import annotations

import os
from collections.abc import Iterator

from eplb_launch.check import fields, images, shell_files
from eplb_launch.check.kind import HINTS, LEADS, Kind
from eplb_launch.check.kubernetes import kserve, ray
from eplb_launch.check.kubernetes.containers import (
    LISTS,
    Container,
    containers,
    is_object,
    objects,
    script,
)
from eplb_launch.check.kubernetes.pods import (
    MAX_ENTRIES,
    ConfigMaps,
    expand,
    files,
    gpus,
    variables,
)
from eplb_launch.check.shell_files import Script
from eplb_launch.check.sources import WORD_COST, YAML, Source
from eplb_launch.check.tasks import VALUES, Style, Task, Variables, Word, misshapen, word, words_at
from eplb_launch.check.yaml_tree import LIST, TEXT, Node
from eplb_launch.command.wrappers import SHELLS
from eplb_launch.render.env import FORMATS
from eplb_launch.vllm.releases import CAP, VARIABLE

STYLE = Style(
    "in the container",
    FORMATS["kubernetes"](VALUES).rstrip("\n"),
    begins="command: {}",
    own=("give the container a command that starts with eplb-launch", "command: {}"),
    templated=True,
)
_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_COMMANDS = ("command", "args", "script", "source")
_NO_OBJECT = "it is checked alone: no `kind` names the object that it is part of"


class Kubernetes(Kind):
    """Kubernetes objects, and other documents that have containers."""

    title = "Kubernetes YAML"
    form = YAML
    suffixes = (".yaml", ".yml", ".json")

    def __init__(self) -> None:
        super().__init__()
        self.maps = ConfigMaps()
        self.runtimes: dict[str, list[Node]] = {}
        self.objects: list[tuple[Source, Node]] = []

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take the objects of a document that may start vLLM, and those that they refer to."""
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
                if kind in kserve.RUNTIMES:
                    self.runtimes.setdefault(item.string("metadata", "name"), []).append(item)
                if kind in kserve.RUNTIMES or hinted:
                    self.objects.append((source, item))
            elif hinted and any(containers(item, source)):
                self.objects.append((source, item))
            else:
                continue
            known = True
        return known

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        seen: set[object] = set()
        for source, node in sorted(self.objects, key=_is_owned):
            repeated = set(self._repeated(source, node, seen))
            yield source, self._of_object(source, node, repeated)

    def _repeated(self, source: Source, node: Node, seen: set[object]) -> Iterator[int]:
        """Yield the ids of the containers of a Pod or a ReplicaSet that repeat those of its owner.

        A server is reported once: for the template of its controller, or for the first of its
        pods. A pod of an older template differs and is reported too.
        """
        for found in containers(node, source):
            if not source.spend(WORD_COST * len(found.node.list("env"))):
                return
            key = (found.namespace, *_content(found.node))
            if key in seen and _is_owned((source, node)):
                yield id(found.node)
                self.repeated.append((source.path, found.node.line, found.node.end))
            seen.add(key)

    def _of_object(self, source: Source, node: Node, repeated: set[int]) -> Iterator[Task]:
        clusters = ray.Clusters(node, source, self.maps)
        yield from ray.tasks(node, source, self.maps, clusters)
        for found in containers(node, source):
            if id(found.node) in repeated:
                continue
            named = self.runtimes.get(found.node.string("runtime"), [])
            runtime = kserve.container_of(named) if found.key == "model" else None
            missing = kserve.missing(found, runtime)
            whole = found
            if runtime is not None:
                whole = found.replace(node=kserve.with_runtime(found.node, runtime))
            for task in _tasks(whole, self.maps, missing):
                yield task.replace(uncapped_peers=clusters.has_uncapped_peers(found))

    def leftover(self) -> Iterator[Task]:
        """Yield what other fields start, and the scripts in ConfigMaps."""
        for source, node in self.objects:
            own = {
                id(found.node): any(map(found.node.get, _COMMANDS))
                for found in containers(node, source)
            }
            yield from fields.tasks(source, node, own)
        for name, key, file in self.maps.files():
            first = file.text.partition("\n")[0]
            is_script = Script.is_named(key) or (first[:2] == "#!" and Script.looks(first, ""))
            if is_script and any(hint in file.text for hint in HINTS):
                yield shell_files.task(file.source, file.text, file.line, f"ConfigMap/{name} {key}")


def _is_owned(item: tuple[Source, Node]) -> bool:
    """Whether a controller made the object."""
    return bool(item[1].list("metadata", "ownerReferences"))


def _content(container: Node) -> tuple[object, ...]:
    """Return the content of a container, without what controllers add to it."""
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


def _tasks(found: Container, maps: ConfigMaps, missing: str) -> Iterator[Task]:
    """Yield the command of a container, and its postStart command.

    `missing` is an object that has another part of it and is not here.
    """
    node, source = found.node, found.source
    environment = variables(found, maps)
    image = node.string("image")
    command = _words(node.get("command"), source, environment)
    args = _words(node.get("args"), source, environment)
    own_entry = False
    text = script(node)
    if text is not None:
        command, args = _of_script(text, command, source), ()
    elif not command:
        command = kserve.start_of(found, args, partial=bool(missing))
        command = command or _of_image(found, args, environment)
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
        STYLE,
        f"{found.kind}/{found.name or '?'} {name}" if found.kind else name,
        source,
        node.place(line, *_COMMANDS),
        words,
        environment,
        node.string("workingDir") or "/",
        image,
        {**files(found, maps), **gpus(found)},
        () if found.kind else (_NO_OBJECT,),
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
    """Return the command that runs a script: `command`, else its `#!` line; () for no shell.

    tekton.dev/docs/pipelines/tasks (script); argo-workflows.readthedocs.io (script templates).
    """
    first = text.text.partition("\n")[0]
    named = first[2:].split() if first.startswith("#!") else ["sh"]
    program = (command[0].text if command else "".join(named[-1:])).rpartition("/")[2]
    if program not in SHELLS:
        return ()
    return (*words_at((program, "-c"), source, text.line), word(text, source))


def _words(node: Node | None, source: Source, environment: Variables) -> tuple[Word, ...]:
    items = [] if node is None or node.null else node.items if node.kind == LIST else [node]
    texts = (item for item in items[:MAX_ENTRIES] if item.kind == TEXT)
    return tuple(word(item, source, expand(item.text, environment.value)) for item in texts)


def _of_image(found: Container, args: tuple[Word, ...], environment: Variables) -> tuple[Word, ...]:
    """Return the program that the image, or its controller, runs before `args`."""
    if found.kind == kserve.PRESET:
        return kserve.preset(found, args, environment)
    if found.kind.startswith("Ray"):  # KubeRay replaces the entry point with `ray start`
        return ()
    program = images.entry_point(found.node.string("image"))
    format_ = found.node.string("modelFormat", "name") if found.key == "model" else found.key
    if not program and format_ == "huggingface":
        program = ("python3", "-m", "huggingfaceserver")
    return words_at(program, found.source, 0)
