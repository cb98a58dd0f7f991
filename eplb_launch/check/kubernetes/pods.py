"""What a pod brings to its containers: variables, and the files of ConfigMaps."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator, Mapping

from eplb_launch.check.kubernetes.config_maps import ConfigMaps
from eplb_launch.check.kubernetes.containers import Container
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import File, TooMuch, Variables
from eplb_launch.check.templating import replace
from eplb_launch.check.yaml_tree import TEXT, Node
from eplb_launch.deepep.gpus import DRIVER
from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.releases import CAP

MAX_FILES = 100  # of one generator
_MAX_MOUNTED = 10_000
MAX_ENTRIES = 2_000  # of a list in one container; an alias may repeat it in others
_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_.-][\w.-]*)\))")
_SECRET = "Secret"  # noqa: S105 - a kind


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with `$(NAME)` replaced; `$$(NAME)` is `$(NAME)`.

    kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container.
    """
    if "$" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else environ.get(match[2], UNKNOWN)

    return replace(_REFERENCE, value, text)


def variables(found: Container, source: Source, maps: ConfigMaps) -> Variables:
    """Return the variables of a container."""
    result = Variables()
    for above in found.above:
        size = above.string("leaderWorkerTemplate", "size")
        if size:  # lws.sigs.k8s.io/docs/reference/labels-annotations-and-environment-variables
            result.known["LWS_GROUP_SIZE"] = size
    for entry in found.node.list("envFrom")[:MAX_ENTRIES]:
        name = entry.string("configMapRef", "name")
        data = maps.of(name, source) if name else None
        if data is not None:
            for key, file in data.items():
                _take(result, entry.string("prefix") + key, key, file)
        elif name:
            result.unread.append(f"ConfigMap {name} (envFrom)")
        else:
            result.unread.append(f"{_SECRET} {entry.string('secretRef', 'name') or '?'} (envFrom)")
    lists = [above.list("envs") for above in found.above]  # Dynamo: of all services, of one
    for entry in itertools.islice(itertools.chain(*lists, found.node.list("env")), MAX_ENTRIES):
        _set(result, entry, source, maps)
    return result


def _set(result: Variables, entry: Node, source: Source, maps: ConfigMaps) -> None:
    """Set a variable as an entry of `env` has it."""
    name = entry.string("name")
    value = entry.get("value")
    reference = entry.at("valueFrom", "configMapKeyRef")
    if name and reference is not None:
        key = reference.string("key")
        data = maps.of(reference.string("name"), source) or {}
        _take(result, name, key, data.get(key))
    elif name and entry.get("valueFrom") is not None:
        result.known[name] = UNKNOWN
    elif name:
        text = value.text if value is not None and value.kind == TEXT and not value.null else ""
        line = value.line if value is not None else entry.line
        result.set(name, expand(text, result.known), source, line, f"value: '{CAP}'")


def _take(result: Variables, name: str, key: str, file: File | None) -> None:
    """Set a variable to what a ConfigMap has under a key; None: that is not known."""
    if file is None:
        result.known[name] = UNKNOWN
    else:
        result.set(name, file.text, file.source, file.line, f"{key}: '{CAP}'")


def from_secrets_only(unread: tuple[str, ...]) -> bool:
    """Whether what could not be read are Secrets, where nobody keeps a limit of NCCL."""
    return all(entry.startswith(_SECRET + " ") for entry in unread)


def files(found: Container, source: Source, maps: ConfigMaps) -> dict[str, File]:
    """Return the files that ConfigMaps put into a container, by their paths there."""
    result: dict[str, File] = {}
    volumes = {v.string("name"): v for v in found.pod.list("volumes")[:MAX_ENTRIES]}
    for mount in found.node.list("volumeMounts")[:MAX_ENTRIES]:
        path, part = mount.string("mountPath"), mount.string("subPath")
        volume = volumes.get(mount.string("name"))
        for name, file in _volume(volume, source, maps) if volume is not None and path else ():
            if not part or part == name:
                result[path if part else posixpath.join(path, name)] = file
            if len(result) > _MAX_MOUNTED:
                raise TooMuch(mount.line, f"more than {_MAX_MOUNTED:,} files in one container")
    return result


# Labels of a node that say which GPU it has: GPU feature discovery's, GKE's.
_GPU_LABELS = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator")


def gpus(found: Container, source: Source) -> dict[str, File]:
    """Return what a container will find of its GPU, where its pod is held to one kind."""
    for label in _GPU_LABELS:
        product = found.pod.string("nodeSelector", label)
        if product:
            return {f"{DRIVER}/gpus/0/information": File(f"Model: {product}\n", source)}
    return {}


def _volume(volume: Node, source: Source, maps: ConfigMaps) -> Iterator[tuple[str, File]]:
    """Yield the files that a volume has of ConfigMaps, by their paths in it."""
    for part in [volume, *volume.list("projected", "sources")[:MAX_ENTRIES]]:
        entries = maps.of(part.string("configMap", "name"), source) or {}
        names = {key: key for key in entries}
        items = part.list("configMap", "items")
        if items:
            names = {item.string("key"): item.string("path") for item in items}
        for key, name in names.items():
            file = entries.get(key)
            if file is not None:
                yield name, file
