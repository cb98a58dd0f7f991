"""What a pod gives to its containers: variables, and the files of ConfigMaps."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Iterator

from eplb_launch.check.kubernetes.config_maps import ConfigMaps
from eplb_launch.check.kubernetes.containers import Container
from eplb_launch.check.tasks import SECRET, File, TooMuch, Variables
from eplb_launch.check.templating import replace
from eplb_launch.check.yaml_tree import Node
from eplb_launch.deepep.gpus import DRIVER
from eplb_launch.model import ONE_WORD, UNKNOWN
from eplb_launch.vllm.releases import CAP

MAX_ENTRIES = 2_000  # in a list of one container: an alias may repeat it in others
_MAX_MOUNTED = 10_000
_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_.-][\w.-]*)\))")
# Node labels that name the GPU: those of GPU feature discovery and of GKE.
_GPU_LABELS = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator")


def expand(text: str, value: Callable[[str], str]) -> str:
    """Return a text with `$(NAME)` replaced; `$$(NAME)` becomes `$(NAME)`.

    kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container.
    """
    return replace(_REFERENCE, lambda match: "$" if match[1] == "$" else value(match[2]), text)


def variables(found: Container, maps: ConfigMaps) -> Variables:
    """Return the variables of a container."""
    result = Variables()
    for above in found.above:
        size = above.string("leaderWorkerTemplate", "size")
        if size:  # lws.sigs.k8s.io/docs/reference/labels-annotations-and-environment-variables
            result.known["LWS_GROUP_SIZE"] = size
    for entry in found.node.list("envFrom")[:MAX_ENTRIES]:
        name = entry.string("configMapRef", "name")
        data = maps.of(name, found) if name else None
        if data is not None:
            for key, file in data.items():
                result.set_from_file(entry.string("prefix") + key, file, f"{key}: '{CAP}'")
        elif name:
            result.unread.append(f"ConfigMap {name} (envFrom)")
        else:
            result.unread.append(f"{SECRET} {entry.string('secretRef', 'name') or '?'} (envFrom)")
    lists = [above.list("envs") for above in found.above]  # Dynamo has them around its services
    for entry in itertools.islice(itertools.chain(*lists, found.node.list("env")), MAX_ENTRIES):
        if entry.string("name"):
            _set(result, entry, found, maps)
    return result


def _set(result: Variables, entry: Node, found: Container, maps: ConfigMaps) -> None:
    """Set the variable of an `env` entry."""
    name, value, origin = entry.string("name"), entry.get("value"), entry.get("valueFrom")
    if origin is None:
        text = expand(entry.string("value"), lambda other: result.known.get(other, UNKNOWN))
        result.set(name, text, found.source, (value or entry).line, f"value: '{CAP}'")
    elif origin.get("configMapKeyRef") is not None:
        key = origin.string("configMapKeyRef", "key")
        data = maps.of(origin.string("configMapKeyRef", "name"), found) or {}
        result.set_from_file(name, data.get(key), f"{key}: '{CAP}'")
    else:
        field = origin.string("fieldRef", "fieldPath")
        # A name, an address or a number is one word; an annotation may be any text.
        one_word = field and not field.startswith("metadata.annotations")
        one_word = one_word or origin.get("resourceFieldRef") is not None
        result.known[name] = ONE_WORD if one_word else UNKNOWN


def files(found: Container, maps: ConfigMaps) -> dict[str, File]:
    """Return the files that ConfigMaps put into a container, by path."""
    result: dict[str, File] = {}
    volumes = {v.string("name"): v for v in found.pod.list("volumes")[:MAX_ENTRIES]}
    for mount in found.node.list("volumeMounts")[:MAX_ENTRIES]:
        path, part = mount.string("mountPath"), mount.string("subPath")
        volume = volumes.get(mount.string("name"))
        for name, file in _volume(volume, found, maps) if volume is not None and path else ():
            if not part or part == name:
                result[path if part else posixpath.join(path, name)] = file
            if len(result) > _MAX_MOUNTED:
                raise TooMuch(mount.line, f"more than {_MAX_MOUNTED:,} files in one container")
    return result


def gpus(found: Container) -> dict[str, File]:
    """Return the driver's file that names the GPU, if the pod selects nodes by their GPU."""
    products = (found.pod.string("nodeSelector", label) for label in _GPU_LABELS)
    product = next(filter(None, products), "")
    path = f"{DRIVER}/gpus/0/information"
    return {path: File(f"Model: {product}\n", found.source)} if product else {}


def _volume(volume: Node, found: Container, maps: ConfigMaps) -> Iterator[tuple[str, File]]:
    """Yield the path and the file of each ConfigMap entry in a volume."""
    for part in [volume, *volume.list("projected", "sources")[:MAX_ENTRIES]]:
        entries = maps.of(part.string("configMap", "name"), found) or {}
        items = part.list("configMap", "items")
        names = {item.string("key"): item.string("path") for item in items}
        for key, name in (names or {key: key for key in entries}).items():
            file = entries.get(key)
            if file is not None:
                yield name, file
