"""Where containers stand in Kubernetes objects, of whatever kind: Pods and all with a pod template.

Kinds are not listed: a container is what stands under `containers`, or has an image and a command.
So a LeaderWorkerSet, a KServe InferenceService, a RayCluster or a graph of Dynamo needs nothing of
its own, but for the few things that its controller adds.
"""

from __future__ import annotations

from collections.abc import Iterator

from eplb_launch.check.yaml_tree import LIST, MAP, TEXT, Node
from eplb_launch.model import Record

MAX_NODES = 400_000
LISTS = ("containers", "initContainers", "ephemeralContainers")
# Maps that are a container without being in such a list: Dynamo's extraPodSpec, KServe's predictor
# (whose runtime brings image and program), and what others call theirs.
_SINGLE = ("mainContainer", "container", "model", "huggingface")


class Container(Record):
    """A container, and what the objects around it say of it."""

    node: Node
    key: str  # the key that it stands under
    kind: str  # of the object
    name: str  # of the object
    role: str  # "leader", "worker", the name of a service; ""
    pod: Node  # the map that it stands in, or under which its list stands
    above: tuple[Node, ...]  # all maps above, the outermost first


def is_object(node: Node) -> bool:
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
    """Yield the containers of an object, each once, in the order of the file.

    A document that is no object may be of anything: there, only lists are commands.
    """
    kinds = (LIST, TEXT) if is_object(node) else (LIST,)
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
            if _is_container(at, key, kinds):
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


def _is_container(node: Node, key: str, kinds: tuple[str, ...]) -> bool:
    if key in LISTS:
        return True
    has_command = any(
        (value := node.get(name)) is not None and value.kind in kinds
        for name in ("command", "args")
    )
    if script(node) is not None:
        return True
    return has_command and (key in _SINGLE or bool(node.string("image")))


def script(node: Node) -> Node | None:
    """Return the script that a step of Tekton, or a template of Argo, has for a shell."""
    names = ("script", "source") if node.string("image") else ()
    found = (value for name in names if (value := node.get(name)) is not None)
    return next((value for value in found if value.kind == TEXT and not value.null), None)
