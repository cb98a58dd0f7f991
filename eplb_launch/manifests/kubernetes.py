"""Containers of Kubernetes objects, of whatever kind: Pods and all that has a pod template.

Kinds are not listed: a container is what stands under `containers`, or has an image and a command.
So a LeaderWorkerSet, a KServe InferenceService, a RayCluster or a graph of Dynamo needs nothing of
its own, but for the few things that its controller adds.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from typing import TYPE_CHECKING

from eplb_launch.command import UNKNOWN
from eplb_launch.manifests import images
from eplb_launch.manifests.expansion import replace
from eplb_launch.manifests.nodes import LIST, MAP, TEXT
from eplb_launch.manifests.tasks import KUBERNETES, File, Task, Word, word
from eplb_launch.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.manifests.nodes import Node
    from eplb_launch.manifests.sources import Source

MAX_NODES = 400_000
MAX_ENTRIES = 2_000  # of a list in one container; an alias may repeat it in others
_LISTS = ("containers", "initContainers", "ephemeralContainers")
# Maps that are a container without being in such a list: Dynamo's extraPodSpec, KServe's predictor
# (whose runtime brings image and program), and what others call theirs.
_SINGLE = ("mainContainer", "container", "model", "huggingface")
_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_.-][\w.-]*)\))")
_SECRET = "Secret"  # noqa: S105 - a kind


class Container(Record):
    """A container, and what the objects around it say of it."""

    node: Node
    key: str  # the key that it stands under
    kind: str  # of the object
    name: str  # of the object
    role: str  # "leader", "worker", the name of a service; ""
    pod: Node  # the map that it stands in, or under which its list stands
    above: tuple[Node, ...]  # all maps above, the outermost first


class ConfigMaps:
    """The ConfigMaps of all files that are checked, by their names."""

    def __init__(self) -> None:
        """Begin with none."""
        self.data: dict[str, dict[str, File]] = {}

    def add(self, node: Node, source: Source) -> None:
        """Take the data of a ConfigMap."""
        entries = self.data.setdefault(node.string("metadata", "name"), {})
        data = node.at("data")
        for key, value in data.entries().items() if data is not None else ():
            if value.kind == TEXT:
                entries[key] = File(value.text, source, value.line)


def is_object(node: Node) -> bool:
    """Whether a document is an object of Kubernetes."""
    return bool(node.kind == MAP and node.string("kind") and node.string("apiVersion"))


def objects(node: Node) -> Iterator[Node]:
    """Yield an object, or those in a List."""
    todo, seen = [node], set()
    while todo:
        at = todo.pop()
        if id(at) in seen:
            continue
        seen.add(id(at))
        if at.kind == MAP and at.string("kind").endswith("List") and at.get("items") is not None:
            todo += reversed(at.list("items"))
        else:
            yield at


def containers(node: Node) -> Iterator[Container]:
    """Yield the containers of an object, each once, in the order of the file."""
    kind, name = node.string("kind"), node.string("metadata", "name")
    seen: set[int] = set()
    todo: list[tuple[Node, str, str, tuple[Node, ...]]] = [(node, "", "", ())]
    while todo and len(seen) < MAX_NODES:
        at, key, role, above = todo.pop()
        if id(at) in seen or len(above) > 100:
            continue
        seen.add(id(at))
        if at.kind == LIST:
            below = [(item, key, _role(item, key, role), above) for item in at.items]
        elif at.kind == MAP:
            if _is_container(at, key):
                pod = above[-1] if above else at
                yield Container(at, key, kind, name, role, pod, above)
                continue
            below = [
                (value, child, _role(value, child, role, key), (*above, at))
                for child, value in at.entries().items()
                if value.kind != TEXT and child not in ("status", "metadata")
            ]
        else:
            continue
        todo += reversed(below)


def _role(node: Node, key: str, role: str, parent: str = "") -> str:
    """Return the role of what stands under `key`, of the one around it if it has none."""
    if key in ("leaderTemplate", "workerTemplate"):
        return f"{role} {key.removesuffix('Template')}".strip()
    if key in ("headGroupSpec", "prefill", "worker", "predictor", "transformer"):
        return key.removesuffix("GroupSpec")
    if key in ("workerGroupSpecs", "roles") and node.kind == MAP:
        return node.string("groupName") or node.string("name") or role
    return key if parent == "services" else role


def _is_container(node: Node, key: str) -> bool:
    if key in _LISTS:
        return True
    has_command = any(
        (value := node.get(name)) is not None and value.kind in (LIST, TEXT)
        for name in ("command", "args")
    )
    return has_command and (key in _SINGLE or bool(node.string("image")))


def tasks(source: Source, node: Node, maps: ConfigMaps) -> Iterator[Task]:
    """Yield what an object's containers start."""
    serve = node.at("spec", "serveConfigV2")
    if serve is not None and "enable_eplb" in serve.text:
        name = f"{node.string('kind')}/{node.string('metadata', 'name') or '?'}"
        line = serve.line + serve.text.partition("enable_eplb")[0].count("\n") * serve.block
        why = "Ray Serve starts it from engine_kwargs, which are no command"
        yield Task(KUBERNETES, name, source, line, (), unreadable=why)
    for found in containers(node):
        task = _task(source, found, maps)
        if task is not None:
            yield task


def _task(source: Source, found: Container, maps: ConfigMaps) -> Task | None:
    node = found.node
    environ, unread = _environment(found, maps)
    image = node.string("image")
    command = _words(node.get("command"), source, environ)
    args = _words(node.get("args"), source, environ)
    version, version_source = images.version(image)
    own_entry = not command
    if not command:
        command, args = _by_image(source, found, image, args, environ)
    words = (*command, *args)
    if not words:
        return None
    container = node.string("name") or found.key
    name = " ".join(p for p in (found.role, f"container {container}") if p)
    directory = node.string("workingDir") or "/"
    return Task(
        KUBERNETES,
        f"{found.kind}/{found.name or '?'} {name}",
        source,
        node.place(next((w.line for w in words if w.line), 0), "command", "args"),
        words,
        environ,
        unread,
        directory,
        image,
        version,
        version_source,
        _files(found, maps),
        own_entry=own_entry,
    )


def _words(node: Node | None, source: Source, environ: Mapping[str, str]) -> tuple[Word, ...]:
    if node is None or node.null:
        return ()
    items = node.items if node.kind == LIST else [node]
    return tuple(
        word(n, source, expand(n.text, environ)) for n in items[:MAX_ENTRIES] if n.kind == TEXT
    )


def _by_image(
    source: Source,
    found: Container,
    image: str,
    args: tuple[Word, ...],
    environ: Mapping[str, str],
) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """Return the words that run where a container names no command: the image's, and `args`."""
    line = args[0].line if args else found.node.line
    if found.kind == "LLMInferenceService":
        return _llm_inference_service(source, found, args, environ)
    program = images.entry_point(image)
    if not program and found.key in ("model", "huggingface"):
        model_format = found.node.string("modelFormat", "name")
        if found.key == "huggingface" or model_format == "huggingface":
            program = ("python3", "-m", "huggingfaceserver")
    return tuple(Word(text, source, line) for text in program), args


def _llm_inference_service(
    source: Source, found: Container, args: tuple[Word, ...], environ: Mapping[str, str]
) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """Return what KServe's presets run: config/llmisvcconfig/ of kserve/kserve.

    `eval "exec vllm serve MODEL .. ${VLLM_ADDITIONAL_ARGS}"`, with --data-parallel-size and others
    from `parallelism`, and the container's `args` at the end.
    """
    extra = next(
        (e for e in found.node.list("env") if e.string("name") == "VLLM_ADDITIONAL_ARGS"), None
    )
    holder = next((n for n in reversed(found.above) if n.get("parallelism") is not None), None)
    if extra is None and holder is None and not args:
        return (), ()
    size = holder.string("parallelism", "data") if holder is not None else ""
    script = "exec vllm serve model"
    if size:
        script += f" --data-parallel-size {size if size.isdecimal() else '$UNKNOWN'}"
    script += ' ${VLLM_ADDITIONAL_ARGS} "$@"' if "VLLM_ADDITIONAL_ARGS" in environ else ' "$@"'
    at = extra.get("value") if extra is not None else None
    line = at.line if at is not None else found.node.line
    texts = ("/bin/bash", "-c", script, "bash")
    return tuple(Word(text, source, line) for text in texts), args


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with `$(NAME)` replaced; `$$(NAME)` is `$(NAME)`.

    kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container.
    """
    if "$" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else environ.get(match[2], UNKNOWN)

    return replace(_REFERENCE, value, text)


def _environment(found: Container, maps: ConfigMaps) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables of a container, and what could not be read of them."""
    environ: dict[str, str] = {}
    unread: list[str] = []
    for above in found.above:
        size = above.string("leaderWorkerTemplate", "size")
        if size:  # lws.sigs.k8s.io/docs/reference/labels-annotations-and-environment-variables
            environ["LWS_GROUP_SIZE"] = size
    for entry in found.node.list("envFrom")[:MAX_ENTRIES]:
        name = entry.string("configMapRef", "name")
        if name in maps.data:
            prefix = entry.string("prefix")
            environ.update({prefix + key: file.text for key, file in maps.data[name].items()})
        elif name:
            unread.append(f"ConfigMap {name} (envFrom)")
        else:
            unread.append(f"{_SECRET} {entry.string('secretRef', 'name') or '?'} (envFrom)")
    lists = [above.list("envs") for above in found.above]  # Dynamo: of all services, of one
    for entry in itertools.islice(itertools.chain(*lists, found.node.list("env")), MAX_ENTRIES):
        name = entry.string("name")
        value = entry.get("value")
        source = entry.at("valueFrom", "configMapKeyRef")
        if name and source is not None:
            file = maps.data.get(source.string("name"), {}).get(source.string("key"))
            environ[name] = file.text if file else UNKNOWN
        elif name and entry.get("valueFrom") is not None:
            environ[name] = UNKNOWN
        elif name:
            text = value.text if value is not None and value.kind == TEXT else ""
            environ[name] = expand(text, environ)
    return environ, tuple(unread)


def from_secrets_only(unread: tuple[str, ...]) -> bool:
    """Whether what could not be read are Secrets, where nobody keeps a limit of NCCL."""
    return all(entry.startswith(_SECRET + " ") for entry in unread)


def _files(found: Container, maps: ConfigMaps) -> dict[str, File]:
    """Return the files that ConfigMaps put into a container, by their paths there."""
    files: dict[str, File] = {}
    volumes = {v.string("name"): v for v in found.pod.list("volumes")[:MAX_ENTRIES]}
    for mount in found.node.list("volumeMounts")[:MAX_ENTRIES]:
        path, part = mount.string("mountPath"), mount.string("subPath")
        volume = volumes.get(mount.string("name"))
        config = volume.string("configMap", "name") if volume is not None else ""
        if volume is None or not path or config not in maps.data:
            continue
        entries = maps.data[config]
        names = {key: key for key in entries}
        items = volume.list("configMap", "items")
        if items:
            names = {item.string("key"): item.string("path") for item in items}
        for key, name in names.items():
            if key in entries and (not part or part == name):
                files[path if part else posixpath.join(path, name)] = entries[key]
    return files
