"""A stand-in for `vllm serve`: it starts the same tree of processes with vLLM's titles.

A test makes it the `vllm` of a virtual environment. The variable STAND_IN tells it what to do, as
a JSON object:
- "tree": the titles of its processes, nested: {"VLLM::EngineCore_DP0": {…}}; "" sets no title
- "fork": start them by fork; else by spawn
- "title": the title of the server itself, set after a change to the variable HALF
- "user": the user to become first
- "then": a command to become on SIGUSR1
- "area": ["cmdline" or "environ", bytes]: enlarge that area to this number of bytes, by prctl(2)

It prints "ready" when all processes have started, and ends by itself after a while.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import multiprocessing
import os
import signal
import sys
import time
from typing import Any

SECONDS = 120.0


def start(tree: dict[str, Any], method: str, ready: Any) -> int:
    """Start the processes of a tree and return their number."""
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
    # vLLM's workers do this from 0.17 on. /proc does not show it.
    os.environ["NCCL_MAX_CTAS"] = "8"
    if title:
        from setproctitle import setproctitle

        setproctitle(title)
    start(below, method, ready)
    ready.put(title)
    time.sleep(SECONDS)


# PR_SET_MM_MAP takes 11 addresses: these fields of /proc/PID/stat (struct prctl_mm_map in
# linux/prctl.h, proc_pid_stat(5)). 0 stands for the end of the heap, which has no field.
ADDRESSES = (26, 27, 45, 46, 47, 0, 28, 48, 49, 50, 51)
PR_SET_MM, PR_SET_MM_MAP = 35, 14


def enlarge(what: str, length: int) -> None:
    """Put the command line or the environment into an area of that length."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype = ctypes.c_void_p
    with open(f"/proc/self/{what}", "rb") as file:
        text = file.read()
    text += b"--revision\0" if what == "cmdline" else b"MORE="
    # Private: the kernel does not look into shared memory, nor into a file.
    area = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area[: len(text)] = text
    area[-2:-1] = b"x"
    if length < 1 << 22:
        area[len(text) : -1] = b"x" * (length - len(text) - 1)
    with open("/proc/self/stat") as file:
        stat = ["", "", *file.read().rpartition(")")[2].split()]
    values = [int(stat[field - 1]) if field else libc.sbrk(0) for field in ADDRESSES]
    at = ADDRESSES.index(48 if what == "cmdline" else 50)
    values[at] = ctypes.addressof(ctypes.c_char.from_buffer(area))
    values[at + 1] = values[at] + length
    # No auxiliary vector, of no bytes; no other program.
    values += [0, 0xFFFFFFFF << 32]
    new = (ctypes.c_uint64 * len(values))(*values)
    size = ctypes.c_ulong(ctypes.sizeof(new))
    if libc.prctl(PR_SET_MM, PR_SET_MM_MAP, new, size, ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), "prctl")
    KEPT.append(area)


KEPT: list[mmap.mmap] = []


def serve() -> None:
    """Run as the server."""
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
    if "area" in options:
        enlarge(*options["area"])
    for _ in range(start(options.get("tree", {}), method, ready)):
        ready.get()
    os.write(1, b"ready\n")
    time.sleep(SECONDS)
    sys.exit(0)


if __name__ == "__main__":
    serve()
