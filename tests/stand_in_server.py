"""Stands in for `vllm serve`: the same tree of processes with vLLM's titles, and nothing else.

A test makes it the `vllm` of a virtual environment. What it does is said in STAND_IN, a JSON object
in its environment:
- "tree": the titles, each with those of its children: {"VLLM::EngineCore_DP0": {…}}; "" takes none
- "fork": start them by fork; else by spawn
- "title": what the server itself is to be called, after a change to the variable HALF
- "user": the user to become first
- "then": a command to become on SIGUSR1

It says "ready" on stdout when all are there, and ends by itself after a while.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from typing import Any

SECONDS = 120.0


def start(tree: dict[str, Any], method: str, ready: Any) -> int:
    """Start the processes of a tree; return how many there will be."""
    context = multiprocessing.get_context(method)
    count = 0
    for title, below in tree.items():
        arguments = (title, below, method, ready)
        context.Process(target=live, args=arguments).start()  # type: ignore[attr-defined]
        count += 1 + size(below)
    return count


def size(tree: dict[str, Any]) -> int:
    """Return how many processes a tree has."""
    return sum(1 + size(below) for below in tree.values())


def live(title: str, below: dict[str, Any], method: str, ready: Any) -> None:
    """Be a worker: take the title, start what is below, wait."""
    # As vLLM's own workers do from 0.17 on, which nobody sees from outside.
    os.environ["NCCL_MAX_CTAS"] = "8"
    if title:
        from setproctitle import setproctitle

        setproctitle(title)
    start(below, method, ready)
    ready.put(title)
    time.sleep(SECONDS)


def serve() -> None:
    """Be the server."""
    options = json.loads(os.environ.get("STAND_IN", "{}"))
    if "then" in options:
        command = options["then"]
        signal.signal(signal.SIGUSR1, lambda *_: os.execvp(command[0], command))
    import setproctitle

    method = "fork" if options.get("fork") else "spawn"
    ready = multiprocessing.get_context(method).SimpleQueue()
    if "user" in options:
        os.setgroups([])
        os.setgid(options["user"])
        os.setuid(options["user"])
    if "title" in options:
        os.environ["HALF"] = "way"
        setproctitle.setproctitle(options["title"])
    for _ in range(start(options.get("tree", {}), method, ready)):
        ready.get()
    os.write(1, b"ready\n")
    time.sleep(SECONDS)
    sys.exit(0)


if __name__ == "__main__":
    serve()
