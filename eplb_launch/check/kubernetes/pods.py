"""What a pod gives to its containers: variables, and the files of ConfigMaps."""

from __future__ import annotations

import itertools
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from eplb_launch.check.kubernetes.containers import Container
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import SECRET, File, TooMuch, Variables
from eplb_launch.check.templating import replace
from eplb_launch.check.yaml_tree import TEXT, Node
from eplb_launch.deepep.gpus import DRIVER
from eplb_launch.model import ONE_WORD, UNKNOWN
from eplb_launch.vllm.releases import CAP

MAX_ENTRIES = 2_000  # in a list of one container: an alias may repeat it in others
_MAX_MOUNTED = 10_000
_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_.-][\w.-]*)\))")
# Node labels that name the GPU: those of GPU feature discovery and of GKE.
_GPU_LABELS = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator")
_MAX_FILES = 100  # in one generator of ConfigMaps
_MAX_LITERALS = 2_000
_ANYWHERE = "anywhere"


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


class ConfigMaps:
    """The ConfigMaps. All files have to be read before one is looked up."""

    def __init__(self) -> None:
        # By name and place: the namespace ("": not given) and the data.
        self.found: dict[tuple[str, str], list[tuple[str, dict[str, File]]]] = {}
        self.known: dict[tuple[str, str, str], Mapping[str, File | None] | None] = {}

    def add(self, node: Node, source: Source) -> None:
        name, namespace = (node.string("metadata", key) for key in ("name", "namespace"))
        entries = self._new(name, source, namespace)
        data = node.at("data")
        for key, value in data.entries().items() if data is not None else ():
            if value.kind == TEXT:
                entries[key] = File(value.text, source, value.line)

    def generate(self, node: Node, source: Source) -> None:
        """Add the ConfigMaps that a Kustomization generates."""
        for generator in node.list("configMapGenerator"):
            variables = _env_files(generator, source)
            if variables is None:
                continue  # a file is missing: the ConfigMap is not known
            entries = self._new(generator.string("name"), source, generator.string("namespace"))
            entries.update(variables)
            for item in generator.list("literals")[:_MAX_LITERALS]:
                key, _, value = item.text.partition("=")
                entries[key] = File(value.strip("'\""), source, item.line)
            for item in generator.list("files")[:_MAX_FILES]:
                key, equals, name = item.text.partition("=")
                found = _beside(name if equals else key, source)
                if found is not None:
                    entries[key if equals else os.path.basename(key)] = File(found.text, found)

    def _new(self, name: str, source: Source, namespace: str) -> dict[str, File]:
        entries: dict[str, File] = {}
        for place in _places(source):
            self.found.setdefault((name, place), []).append((namespace, entries))
        return entries

    def of(self, name: str, user: Container) -> Mapping[str, File | None] | None:
        """Return the data of the ConfigMap that a container refers to; None if there is none.

        A ConfigMap of the same file wins, then one of the same folder, then any other one. Where
        several match, such as those of a test and a production overlay, an entry that differs
        between them is None.
        """
        for place in _places(user.source):
            key = (name, place, user.namespace)
            if key not in self.known:
                self.known[key] = _common(
                    _of_namespace(self.found.get((name, place), ()), *key[2:])
                )
            found = self.known[key]
            if found is not None:
                return found
        return None

    def files(self) -> Iterator[tuple[str, str, File]]:
        """Yield the name of a ConfigMap, the key and the file, for all data."""
        for (name, place), every in self.found.items():
            for _, entries in every if place == _ANYWHERE else ():
                for key, file in entries.items():
                    yield name, key, file


def _env_files(generator: Node, source: Source) -> dict[str, File] | None:
    """Return the variables in the `envs` files of a generator; None if a file is missing."""
    entries: dict[str, File] = {}
    names = [item.text for item in generator.list("envs")[:_MAX_FILES]]
    for name in filter(None, [*names, generator.string("env")]):  # `env`: the older form
        found = _beside(name, source)
        if found is None:
            return None
        for number, line in enumerate(found.text.split("\n"), 1):
            key, equals, value = line.strip().partition("=")
            if equals and not key.startswith("#"):
                entries[key.strip()] = File(value.strip(), found, number)
    return entries


def _beside(name: str, source: Source) -> Source | None:
    return source.near(os.path.normpath(os.path.join(source.directory, name)), "")


def _places(source: Source) -> tuple[str, str, str]:
    """Return the places where a ConfigMap is looked up, the nearest first."""
    return f"file {source.path}", f"folder {source.directory}", _ANYWHERE


def _of_namespace(
    every: Sequence[tuple[str, dict[str, File]]], wanted: str
) -> list[dict[str, File]]:
    """Return the data of those in a namespace, else of those that give none; all for ""."""
    same = [entries for namespace, entries in every if namespace == wanted]
    if wanted and same:
        return same
    return [entries for namespace, entries in every if not (namespace and wanted)]


def _common(every: Sequence[Mapping[str, File]]) -> Mapping[str, File | None] | None:
    """Return the entries that are equal in all; None for each other one, or if there is none."""
    texts: dict[str, list[str]] = {}
    for entries in every:
        for key, file in entries.items():
            texts.setdefault(key, []).append(file.text)
    return (
        {
            key: every[0].get(key) if len(found) == len(every) and len(set(found)) == 1 else None
            for key, found in texts.items()
        }
        if every
        else None
    )
