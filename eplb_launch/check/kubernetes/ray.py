"""Ray clusters in Kubernetes: their jobs, and which of their pods do not set the limit."""

from __future__ import annotations

from collections.abc import Iterator

from eplb_launch.check import yaml_tree
from eplb_launch.check.kubernetes.config_maps import ConfigMaps
from eplb_launch.check.kubernetes.containers import Container, containers
from eplb_launch.check.kubernetes.pods import files, variables
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import Place, Task, Variables, may_set_cap, word, words_at
from eplb_launch.check.yaml_tree import MAP, TEXT, Node
from eplb_launch.launch_options import NAMES
from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.releases import CAP, VARIABLE

PLACE = Place("in the spec of the job", f'runtimeEnvYAML: |\n  env_vars:\n    {VARIABLE}: "{CAP}"')
_SPECS = {"RayJob": ("spec",), "RayCronJob": ("spec", "jobTemplate")}
# Beside one of these stands what the leader, or the head, is made from.
_WORKERS = ("workerTemplate", "workerGroupSpecs")


class Clusters:
    """The groups of pods of an object: a limit has to be set in each pod of one Ray cluster."""

    def __init__(self, node: Node, source: Source, maps: ConfigMaps) -> None:
        """Find them: a pod of LeaderWorkerSet or of KubeRay has others beside it."""
        self.groups: dict[int, dict[int, bool]] = {}  # pod to all of its group: without a limit?
        pods: dict[int, dict[int, bool]] = {}
        for found in containers(node):
            around = (above for above in reversed(found.above) if any(map(above.get, _WORKERS)))
            group = next(around, None)
            if group is not None and found.key != "initContainers":
                of_group = self.groups[id(found.pod)] = pods.setdefault(id(group), {})
                without = of_group.get(id(found.pod), True) and _without(found, source, maps)
                of_group[id(found.pod)] = without

    def others_without(self, found: Container) -> bool:
        """Whether a pod beside that of a container does not set the limit."""
        pods = self.groups.get(id(found.pod), {})
        return sum(pods.values()) > pods.get(id(found.pod), False)


def _without(found: Container, source: Source, maps: ConfigMaps) -> bool:
    """Whether a container surely does not set the limit, in its variables or in its script."""
    environment = variables(found, source, maps)
    if VARIABLE in environment.known or may_set_cap(environment.unread):
        return False
    texts = [file.text for file in files(found, source, maps).values()]
    for given in map(found.node.get, ("command", "args")):
        texts += given.texts() if given is not None else ()
    return not any(word in text for text in texts for word in (VARIABLE, *NAMES))


def tasks(source: Source, node: Node, maps: ConfigMaps, clusters: Clusters) -> Iterator[Task]:
    """Yield what a RayJob or a RayService starts that no container names."""
    name = f"{node.string('kind')}/{node.string('metadata', 'name') or '?'}"
    serve = node.at("spec", "serveConfigV2")
    if serve is not None and "enable_eplb" in serve.text:
        line = serve.line + serve.text.partition("enable_eplb")[0].count("\n") * serve.block
        why = "Ray Serve starts it from engine_kwargs, which are no command"
        yield Task(PLACE, name, source, line, (), unreadable=why)
    path = _SPECS.get(node.string("kind"))
    spec = node.at(*path) if path else None
    entry = spec.get("entrypoint") if spec is not None else None
    if spec is not None and entry is not None and entry.kind == TEXT and not entry.null:
        yield _job(source, spec, entry, maps, clusters).replace(name=f"{name} entrypoint")


def _job(source: Source, spec: Node, entry: Node, maps: ConfigMaps, clusters: Clusters) -> Task:
    """Return the job that a shell on the head of the Ray cluster starts.

    docs.ray.io/en/latest/cluster/kubernetes/getting-started/rayjob-quick-start.html. Its
    environment is that of the head, and `env_vars` of runtimeEnvYAML, which reaches all workers.
    """
    head = spec.at("rayClusterSpec", "headGroupSpec")
    found = next(containers(head), None) if head is not None else None
    environment = variables(found, source, maps) if found else Variables()
    if found is None:
        environment.unread.append("the environment of the Ray cluster")
    of_head = environment.cap_line
    to_add = _runtime(environment, spec.get("runtimeEnvYAML"), source)
    return Task(
        PLACE,
        "entrypoint",
        source,
        entry.line,
        (*words_at(("bash", "-c"), source, entry.line), word(entry, source)),
        environment,
        image=found.node.string("image") if found else "",
        files=files(found, source, maps) if found else {},
        adds=any(word in spec.string("runtimeEnvYAML") for word in ("pip", "uv:", "conda")),
        uncapped_peers=found is not None
        and environment.cap_line is of_head
        and clusters.others_without(found),
        entry=to_add,
    )


def _runtime(environment: Variables, text: Node | None, source: Source) -> str:
    """Set what the runtime environment of a job sets, which is YAML in a text.

    Returns what would set the limit there; "" if there is none.
    """
    if text is None or text.kind != TEXT or text.null:
        return ""
    line_of_it = f'{VARIABLE}: "{CAP}"'
    entry = f"env_vars:\n  {line_of_it}"
    for _, document in yaml_tree.documents(text.text):
        if isinstance(document, yaml_tree.Problem):
            environment.unread.append("runtimeEnvYAML")
            continue
        given = document.get("env_vars")
        if given is not None and given.kind == MAP:
            entry = line_of_it
            for name, value in given.entries().items():
                line = text.line + (value.line - 1) * text.block
                known = value.text if value.kind == TEXT else UNKNOWN
                environment.set(name, known, source, line, line_of_it)
    return entry
