"""Servers that Ray starts by what an object of KubeRay says, besides its containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eplb_launch.manifests.tasks import KUBERNETES, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eplb_launch.manifests.nodes import Node
    from eplb_launch.manifests.sources import Source


def tasks(source: Source, node: Node) -> Iterator[Task]:
    """Yield what a RayService starts that no container names."""
    serve = node.at("spec", "serveConfigV2")
    if serve is not None and "enable_eplb" in serve.text:
        name = f"{node.string('kind')}/{node.string('metadata', 'name') or '?'}"
        line = serve.line + serve.text.partition("enable_eplb")[0].count("\n") * serve.block
        why = "Ray Serve starts it from engine_kwargs, which are no command"
        yield Task(KUBERNETES, name, source, line, (), unreadable=why)
