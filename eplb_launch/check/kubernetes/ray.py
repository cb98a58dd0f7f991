"""Servers that Ray starts by what an object of KubeRay says, besides its containers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from eplb_launch.check import yaml_tree as nodes
from eplb_launch.check.kubernetes.config_maps import ConfigMaps
from eplb_launch.check.kubernetes.containers import Container, containers
from eplb_launch.check.kubernetes.pods import files, variables
from eplb_launch.check.kubernetes.ray_pods import Clusters
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import File, Place, Task, Variables, Word, word
from eplb_launch.check.yaml_tree import MAP, TEXT, Node
from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.releases import CAP, VARIABLE

PLACE = Place("in the spec of the job", f'runtimeEnvYAML: |\n  env_vars:\n    {VARIABLE}: "{CAP}"')
_UNREAD = "the environment of the Ray cluster"


def tasks(source: Source, node: Node, maps: ConfigMaps, clusters: Clusters) -> Iterator[Task]:
    """Yield what a RayJob or a RayService starts that no container names."""
    name = f"{node.string('kind')}/{node.string('metadata', 'name') or '?'}"
    serve = node.at("spec", "serveConfigV2")
    if serve is not None and "enable_eplb" in serve.text:
        line = serve.line + serve.text.partition("enable_eplb")[0].count("\n") * serve.block
        why = "Ray Serve starts it from engine_kwargs, which are no command"
        yield Task(PLACE, name, source, line, (), unreadable=why)
    path = {"RayJob": ("spec",), "RayCronJob": ("spec", "jobTemplate")}.get(node.string("kind"))
    spec = node.at(*path) if path else None
    entry = spec.get("entrypoint") if spec is not None else None
    if spec is not None and entry is not None and entry.kind == TEXT and not entry.null:
        found = _head(spec)
        task = _job(source, spec, entry, found, maps)
        without = found is not None and task.workers_without and clusters.others_without(found)
        yield task.replace(name=f"{name} entrypoint", workers_without=without)


def _head(spec: Node) -> Container | None:
    """Return the container of the head of the Ray cluster that a job brings with it."""
    cluster = spec.get("rayClusterSpec")
    head = cluster.get("headGroupSpec") if cluster is not None else None
    return next(containers(head), None) if head is not None else None


def _job(
    source: Source, spec: Node, entry: Node, found: Container | None, maps: ConfigMaps
) -> Task:
    """Return the job that a shell on the head of the Ray cluster starts.

    docs.ray.io/en/latest/cluster/kubernetes/getting-started/rayjob-quick-start.html. Its
    environment is that of the head, and `env_vars` of runtimeEnvYAML, which reaches all workers.
    """
    environment = Variables()
    image = ""
    mounted: Mapping[str, File] = {}
    if found is None:
        environment.unread.append(_UNREAD)
    else:
        environment = variables(found, source, maps)
        image = found.node.string("image")
        mounted = files(found, source, maps)
    of_head = environment.limit
    entry_there = _runtime(environment, spec.get("runtimeEnvYAML"), source)
    shell = (Word(text, source, entry.line) for text in ("bash", "-c"))
    return Task(
        PLACE,
        "entrypoint",
        source,
        entry.line,
        (*shell, word(entry, source)),
        environment.known,
        tuple(environment.unread),
        "/",
        image,
        mounted,
        limit=environment.limit,
        workers_without=environment.limit is of_head,
        entry=entry_there,
    )


def _runtime(environment: Variables, text: Node | None, source: Source) -> str:
    """Set what the runtime environment of a job sets, which is YAML in a text.

    Returns what would set the limit there; "" if there is none.
    """
    if text is None or text.kind != TEXT or text.null:
        return ""
    line_of_it = f'{VARIABLE}: "{CAP}"'
    entry = f"env_vars:\n  {line_of_it}"
    for _, document in nodes.documents(text.text):
        given = document.get("env_vars") if not isinstance(document, nodes.Problem) else None
        if given is None:
            if isinstance(document, nodes.Problem):
                environment.unread.append("runtimeEnvYAML")
            continue
        entry = line_of_it
        for name, value in given.entries().items() if given.kind == MAP else ():
            line = text.line + (value.line - 1) * text.block
            known = value.text if value.kind == TEXT else UNKNOWN
            environment.set(name, known, source, line, line_of_it)
    return entry
