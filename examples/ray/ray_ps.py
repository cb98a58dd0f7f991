"""`eplb-launch ps` as a task on every node of a Ray cluster.

Run it where `ray status` works. eplb-launch has to be installed beside Ray on every node. It
prints a line for each server. It exits with 1 if a server is exposed, or else with 125 if a node
did not answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def ps() -> dict[str, Any]:
    """Return what `ps` finds on the node that this runs on."""
    command = [sys.executable, "-m", "eplb_launch", "ps", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode not in {0, 1}:
        raise RuntimeError(ended.stderr)
    return dict(json.loads(ended.stdout))


def main() -> int:
    """Ask all nodes at once, and return the exit status."""
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError as error:
        print(f"no Ray cluster: {error}", file=sys.stderr)
        return 125
    task = ray.remote(num_cpus=0, max_retries=0)(ps)
    answers = {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})": task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    status = 0
    for node, answer in answers.items():
        try:
            servers = ray.get(answer, timeout=60)["servers"]
        except ray.exceptions.RayError as error:
            print(f"{node}: no answer: {error}", file=sys.stderr)
            status = status or 125
            continue
        for server in servers:
            print(f"{node}: {server['pid']}: {server['verdict']}: {server['reason']}")
            if server["verdict"].lower() == "exposed":
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
