"""The pods of one object that are one Ray cluster: a limit has to be set in each of them."""

from __future__ import annotations

from eplb_launch.check.kubernetes.config_maps import ConfigMaps
from eplb_launch.check.kubernetes.containers import Container, containers
from eplb_launch.check.kubernetes.pods import files, from_secrets_only, variables
from eplb_launch.check.sources import Source
from eplb_launch.check.yaml_tree import TEXT, Node
from eplb_launch.launch_options import NAMES
from eplb_launch.vllm.releases import VARIABLE

# Beside one of these stands what the leader, or the head, is made from.
_WORKERS = ("workerTemplate", "workerGroupSpecs")


class Clusters:
    """The groups of pods of an object."""

    def __init__(self, node: Node, source: Source, maps: ConfigMaps) -> None:
        """Find them: a pod of LeaderWorkerSet or of KubeRay has others beside it."""
        self.groups: dict[int, dict[int, bool]] = {}  # pod to all of its group: without a limit?
        pods: dict[int, dict[int, bool]] = {}
        for found in containers(node):
            group = _group(found)
            if group is not None and found.key != "initContainers":
                of_group = self.groups[id(found.pod)] = pods.setdefault(id(group), {})
                without = of_group.get(id(found.pod), True) and _without(found, source, maps)
                of_group[id(found.pod)] = without

    def others_without(self, found: Container) -> bool:
        """Whether a pod beside that of a container does not set the limit."""
        pods = self.groups.get(id(found.pod), {})
        return sum(pods.values()) > pods.get(id(found.pod), False)


def _group(found: Container) -> Node | None:
    """Return the map around all pods of the group that a container is in; None if there is none."""
    for above in reversed(found.above):
        if any(above.get(name) is not None for name in _WORKERS):
            return above
    return None


def _without(found: Container, source: Source, maps: ConfigMaps) -> bool:
    """Whether a container surely does not set the limit, in its variables or in its script."""
    environment = variables(found, source, maps)
    if VARIABLE in environment.known or not from_secrets_only(tuple(environment.unread)):
        return False
    texts = [file.text for file in files(found, source, maps).values()]
    for name in ("command", "args"):
        texts += _words(found.node.get(name))
    return not any(word in text for text in texts for word in (VARIABLE, *NAMES))


def _words(node: Node | None) -> list[str]:
    if node is None:
        return []
    return [item.text for item in [node, *node.items] if item.kind == TEXT]
