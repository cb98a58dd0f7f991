"""Stands in for a `vllm` that starts its workers with Ray: an actor on each node of the cluster.

The nodes are those of RAY_ADDRESS, the runtime_env is in RUNTIME_ENV. Prints the value
of the variable here, and on each node in the actors.
"""

from __future__ import annotations

import json
import os

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NAME = "NCCL_MAX_CTAS"


class Worker:
    """What vLLM makes of an actor's process."""

    def seen(self) -> str | None:
        """Return the variable in Python's os.environ."""
        return os.environ.get(NAME)


def main() -> None:
    """Start the workers and ask them."""
    ray.init(runtime_env=json.loads(os.environ["RUNTIME_ENV"]), log_to_driver=False)
    actor = ray.remote(num_cpus=0)(Worker)
    workers = {}
    for node in ray.nodes():
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        (name,) = {"first", "second"} & set(node["Resources"])
        workers[name] = actor.options(scheduling_strategy=here).remote()
    seen = {name: ray.get(worker.seen.remote()) for name, worker in workers.items()}
    print(json.dumps({"driver": os.environ.get(NAME), "actors": seen}))
    ray.shutdown()


if __name__ == "__main__":
    main()
