"""Ray clusters in Kubernetes: their jobs, and which of their pods do not set the cap."""

from __future__ import annotations

from collections.abc import Iterator

from eplb_launch.check import yaml_tree
from eplb_launch.check.kubernetes.containers import Container, containers
from eplb_launch.check.kubernetes.pods import ConfigMaps, files, variables
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import Style, Task, Variables, may_set_cap, word, words_at
from eplb_launch.check.yaml_tree import MAP, TEXT, Node
from eplb_launch.launch_options import NAMES
from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.releases import CAP, VARIABLE

_CAP_LINE = f'{VARIABLE}: "{CAP}"'
STYLE = Style("in the spec of the job", f"runtimeEnvYAML: |\n  env_vars:\n    {_CAP_LINE}")
_SPECS = {"RayJob": ("spec",), "RayCronJob": ("spec", "jobTemplate")}
# The workers of a cluster are in one of these, beside the leader or the head.
_WORKERS = ("workerTemplate", "workerGroupSpecs")


class Clusters:
    """The Ray clusters of an object: each pod of a cluster has to set the cap.

    A pod of a LeaderWorkerSet or of KubeRay is in a cluster with the pods beside it.
    """

    def __init__(self, node: Node, source: Source, maps: ConfigMaps) -> None:
        # By pod: whether each pod of its cluster is without the cap.
        self.uncapped: dict[int, dict[int, bool]] = {}
        clusters: dict[int, dict[int, bool]] = {}
        for found in containers(node, source):
            around = (above for above in reversed(found.above) if any(map(above.get, _WORKERS)))
            group = next(around, None)
            if group is not None and found.key != "initContainers":
                pod = id(found.pod)
                cluster = self.uncapped[pod] = clusters.setdefault(id(group), {})
                cluster[pod] = cluster.get(pod, True) and _is_uncapped(found, maps)

    def has_uncapped_peers(self, found: Container) -> bool:
        """Whether another pod in the cluster of a container does not set the cap."""
        cluster = self.uncapped.get(id(found.pod), {})
        return sum(cluster.values()) > cluster.get(id(found.pod), False)


def _is_uncapped(found: Container, maps: ConfigMaps) -> bool:
    """Whether it is certain that a container sets no cap, in its variables or its script."""
    environment = variables(found, maps)
    if VARIABLE in environment.known or may_set_cap(environment.unread):
        return False
    texts = [file.text for file in files(found, maps).values()]
    for given in map(found.node.get, ("command", "args")):
        texts += given.texts() if given is not None else ()
    return not any(word in text for text in texts for word in (VARIABLE, *NAMES))


def tasks(node: Node, source: Source, maps: ConfigMaps, clusters: Clusters) -> Iterator[Task]:
    """Yield the servers of a RayJob or a RayService that no container starts."""
    name = f"{node.string('kind')}/{node.string('metadata', 'name') or '?'}"
    serve = node.at("spec", "serveConfigV2")
    if serve is not None and "enable_eplb" in serve.text:
        line = serve.line + serve.text.partition("enable_eplb")[0].count("\n") * serve.block
        why = "Ray Serve starts it from engine_kwargs, which are not a command"
        yield Task(STYLE, name, source, line, (), unreadable=why)
    path = _SPECS.get(node.string("kind"))
    spec = node.at(*path) if path else None
    entry = spec.get("entrypoint") if spec is not None else None
    if spec is not None and entry is not None and entry.kind == TEXT and not entry.null:
        yield _job(source, spec, entry, maps, clusters).replace(name=f"{name} entrypoint")


def _job(source: Source, spec: Node, entry: Node, maps: ConfigMaps, clusters: Clusters) -> Task:
    """Return the job that a shell on the head of a Ray cluster starts.

    docs.ray.io/en/latest/cluster/kubernetes/getting-started/rayjob-quick-start.html. Its variables
    are those of the head, and `env_vars` of runtimeEnvYAML, which all workers get too.
    """
    head = spec.at("rayClusterSpec", "headGroupSpec")
    found = next(containers(head, source), None) if head is not None else None
    environment = variables(found, maps) if found else Variables()
    if found is None:
        environment.unread.append("the environment of the Ray cluster")
    of_head = environment.cap_line
    to_add = _set_runtime(environment, spec.get("runtimeEnvYAML"), source)
    return Task(
        STYLE,
        "entrypoint",
        source,
        entry.line,
        (*words_at(("bash", "-c"), source, entry.line), word(entry, source)),
        environment,
        image=found.node.string("image") if found else "",
        files=files(found, maps) if found else {},
        adds=any(word in spec.string("runtimeEnvYAML") for word in ("pip", "uv:", "conda")),
        uncapped_peers=found is not None
        and environment.cap_line is of_head
        and clusters.has_uncapped_peers(found),
        entry=to_add,
    )


def _set_runtime(environment: Variables, text: Node | None, source: Source) -> str:
    """Set the variables of a runtimeEnvYAML. Return the lines that add the cap to it, or ""."""
    if text is None or text.kind != TEXT or text.null:
        return ""
    to_add = f"env_vars:\n  {_CAP_LINE}"
    for _, document in yaml_tree.documents(text.text):
        if isinstance(document, yaml_tree.Problem):
            environment.unread.append("runtimeEnvYAML")
            continue
        given = document.get("env_vars")
        if given is not None and given.kind == MAP:
            to_add = _CAP_LINE
            for name, value in given.entries().items():
                line = text.line + (value.line - 1) * text.block
                known = value.text if value.kind == TEXT else UNKNOWN
                environment.set(name, known, source, line, _CAP_LINE)
    return to_add
