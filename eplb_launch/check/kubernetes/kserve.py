"""What KServe and the chart of llm-d add to the command of a container.

The other half of a command is in another object. If that is not here, it may contain any option,
and the cap.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eplb_launch.check.kubernetes.containers import Container
from eplb_launch.check.tasks import Variables, Word, words_at
from eplb_launch.check.yaml_tree import LIST, MAP, TEXT, Node
from eplb_launch.model import UNKNOWN

PRESET = "LLMInferenceService"
RUNTIMES = ("ServingRuntime", "ClusterServingRuntime")
_CONTAINER = "kserve-container"
_BY_CHART = ("imageDefault", "vllmServe")  # a modelCommand to which the chart adds arguments
_ADDED = frozenset(("args", "env", "envFrom", "volumeMounts"))
_ABOUT_EPLB = re.compile(r"eplb|all2all|data[-_]parallel|^-dp\b|moe[-_]backend")
_EXTRA = "VLLM_ADDITIONAL_ARGS"


def container_of(runtimes: Sequence[Node]) -> Node | None:
    """Return the container of the runtime with a name; None if there is not exactly one."""
    containers = runtimes[0].list("spec", "containers") if len(runtimes) == 1 else []
    named = [one for one in containers if one.string("name") == _CONTAINER]
    return next(iter([*named, *containers]), None)


def with_runtime(node: Node, runtime: Node) -> Node:
    """Return the container that KServe makes from the model of an InferenceService and a runtime.

    The model wins, but lists are joined: MergeRuntimeContainers in
    pkg/controller/v1beta1/inferenceservice/utils of kserve/kserve.
    """
    merged = Node(MAP, node.line)
    merged.end = node.end
    keys = {key.text: key for key, _ in node.pairs}
    own, other = node.entries(), runtime.entries()
    for name, value in {**other, **own}.items():
        key = Node(TEXT, node.line)
        key.text = name
        whole = value
        if name in _ADDED and name in own and name in other:
            whole = Node(LIST, value.line)
            whole.items = [*other[name].items, *value.items]
        merged.pairs.append((keys.get(name, key), whole))
    return merged


def missing(found: Container, runtime: Node | None) -> str:
    """Return the object that has another part of a container and is not here; "" for none."""
    name = found.node.string("runtime")
    if found.key == "model" and name and runtime is None:
        return f"ServingRuntime {name}"
    if found.kind == PRESET and any(a.list("baseRefs") for a in found.above):
        return "what its baseRefs name"
    return ""


def start_of(found: Container, args: tuple[Word, ...], *, partial: bool) -> tuple[Word, ...]:
    """Return the start of a command of which a container has only the last arguments.

    () if they are all arguments, or if none has to do with EPLB.
    """
    partial = partial or found.node.string("modelCommand") in _BY_CHART
    if not partial or not any(_ABOUT_EPLB.search(word.text) for word in args):
        return ()
    return words_at(("vllm", "serve", "model", UNKNOWN), found.source, 0)


def preset(found: Container, args: tuple[Word, ...], variables: Variables) -> tuple[Word, ...]:
    """Return the command that a KServe preset runs before `args`.

    config/llmisvcconfig/ of kserve/kserve: `eval "exec vllm serve MODEL .. $VLLM_ADDITIONAL_ARGS"`
    with --data-parallel-size and others from `parallelism`, and then the `args` of the container.
    """
    extra = next((e for e in found.node.list("env") if e.string("name") == _EXTRA), None)
    holder = next((n for n in reversed(found.above) if n.get("parallelism") is not None), None)
    if extra is None and holder is None and not args:
        return ()
    size = holder.string("parallelism", "data") if holder is not None else ""
    script = "exec vllm serve model"
    if missing(found, None):
        script += " $baseRefs"  # the options below override it
    if size:
        script += f" --data-parallel-size {size if size.isdecimal() else '$parallelism'}"
    script += f' ${{{_EXTRA}}} "$@"' if _EXTRA in variables.known else ' "$@"'
    at = extra.get("value") if extra is not None else None
    return words_at(("/bin/bash", "-c", script, "bash"), found.source, (at or found.node).line)
