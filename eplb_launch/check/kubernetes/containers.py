"""The containers in Kubernetes objects of any kind.

No list of kinds is needed: a container is in a list such as `containers`, or has an image and a
command. The few kinds whose controllers add something are in `kserve` and `ray`.
"""

from __future__ import annotations

from collections.abc import Iterator

from eplb_launch.check.sources import Source
from eplb_launch.check.yaml_tree import LIST, MAP, TEXT, Node
from eplb_launch.model import Record

_MAX_NODES = 400_000
_MAX_DEPTH = 100
LISTS = ("containers", "initContainers", "ephemeralContainers")
# Containers outside of such lists: Dynamo's extraPodSpec, KServe's predictor (its runtime brings
# the image and the program), and those of other controllers.
_SINGLE = ("mainContainer", "container", "model", "huggingface")


class Container(Record):
    """A container, and what the objects around it say of it."""

    node: Node
    source: Source
    key: str  # the key of the container or of its list
    kind: str  # of the object
    name: str  # of the object
    namespace: str  # of the object; "" if it gives none
    role: str  # "leader", "worker" or the name of a service; "" if it has none
    above: tuple[Node, ...]  # all maps around it, the outermost first

    @property
    def pod(self) -> Node:
        """The map that the container or its list is in."""
        return self.above[-1] if self.above else self.node


def is_object(node: Node) -> bool:
    return bool(node.kind == MAP and node.string("kind") and node.string("apiVersion"))


def objects(node: Node) -> Iterator[Node]:
    """Yield an object, or the objects in a List."""
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


def containers(node: Node, source: Source) -> Iterator[Container]:
    """Yield the containers of an object, each once, in the order of the file.

    A document that is no object may be anything: only a list is a command there.
    """
    forms = (LIST, TEXT) if is_object(node) else (LIST,)
    kind = node.string("kind")
    name, namespace = (node.string("metadata", key) for key in ("name", "namespace"))
    seen: set[int] = set()
    todo: list[tuple[Node, str, str, tuple[Node, ...]]] = [(node, "", "", ())]
    while todo and len(seen) < _MAX_NODES:
        at, key, role, above = todo.pop()
        if id(at) in seen or len(above) > _MAX_DEPTH:
            continue
        seen.add(id(at))
        if at.kind == LIST:
            todo += [(one, key, _role(one, key, role), above) for one in reversed(at.items)]
        elif at.kind == MAP and _is_container(at, key, forms):
            yield Container(at, source, key, kind, name, namespace, role, above)
        elif at.kind == MAP:
            todo += [
                (value, child, _role(value, child, role, key), (*above, at))
                for child, value in reversed(at.entries().items())
                if value.kind != TEXT and child not in ("status", "metadata")
            ]


def _role(node: Node, key: str, role: str, parent: str = "") -> str:
    """Return the role of the node at a key; `role` is that of the node around it."""
    if key in ("leaderTemplate", "workerTemplate"):
        return f"{role} {key.removesuffix('Template')}".strip()
    if key in ("headGroupSpec", "prefill", "worker", "predictor", "transformer"):
        return key.removesuffix("GroupSpec")
    if key in ("workerGroupSpecs", "roles") and node.kind == MAP:
        return node.string("groupName") or node.string("name") or role
    return key if parent == "services" else role


def _is_container(node: Node, key: str, forms: tuple[str, ...]) -> bool:
    if key in LISTS or script(node) is not None:
        return True
    given = (node.get(name) for name in ("command", "args"))
    has_command = any(value is not None and value.kind in forms for value in given)
    return has_command and (key in _SINGLE or bool(node.string("image")))


def script(node: Node) -> Node | None:
    """Return the script of a Tekton step or an Argo template; None if there is none."""
    names = ("script", "source") if node.string("image") else ()
    found = (value for name in names if (value := node.get(name)) is not None)
    return next((value for value in found if value.kind == TEXT and not value.null), None)
