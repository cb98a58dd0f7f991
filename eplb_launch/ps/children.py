"""Run jobs in child processes, which may change their user, hang, or use too much.

A file system that does not answer (FUSE, NFS) blocks a child so that not even SIGKILL ends it.
Such a child is abandoned, and nothing waits for it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import selectors
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import Any, TypeVar

    Key = TypeVar("Key", bound=Hashable)

SECONDS = 5.0  # a child may take
MAX_MEMORY = 1 << 30  # bytes a child may add to ours
_MAX_BUSY = 4  # children at a time
_BUSY_SECONDS = 0.5  # an older child is not busy: it waits for something

_abandoned: dict[Hashable, int] = {}  # pids of children that did not end, by the key of their job


class _Child:
    def __init__(self, job: Callable[[], Any], seconds: float) -> None:
        self.begun = time.monotonic()
        self.content = b""
        self.output, write = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:  # no more processes are allowed
            os.close(self.output)
            os.close(write)
            raise
        if not self.pid:
            _run(job, write, seconds)
        os.close(write)

    @property
    def age(self) -> float:
        return time.monotonic() - self.begun


def results(jobs: Mapping[Key, Callable[[], Any]], seconds: float = SECONDS) -> dict[Key, Any]:
    """Return the result of each job, which must be picklable; None for a job that failed.

    A job is not run again while the child of an earlier call for the same key still hangs.
    """
    found: dict[Key, Any] = dict.fromkeys(jobs)
    waiting = [key for key in jobs if not _hangs(key)][::-1]
    running: dict[Key, _Child] = {}
    with selectors.DefaultSelector() as selector:
        while waiting or running:
            while waiting and sum(c.age < _BUSY_SECONDS for c in running.values()) < _MAX_BUSY:
                key = waiting.pop()
                with contextlib.suppress(OSError):
                    running[key] = _Child(jobs[key], seconds)
                    selector.register(running[key].output, selectors.EVENT_READ, key)
            ended = []
            for event, _ in selector.select(_BUSY_SECONDS / 10 if running else 0):
                child = running[event.data]
                piece = os.read(child.output, 1 << 16)
                child.content += piece
                if not piece:
                    ended.append(event.data)
                    with contextlib.suppress(EOFError, pickle.UnpicklingError):
                        found[event.data] = pickle.loads(child.content)  # noqa: S301 - our own
            late = [key for key, c in running.items() if c.age > seconds + 1 and key not in ended]
            _abandoned.update((key, running[key].pid) for key in late)
            for key in (*ended, *late):
                child = running.pop(key)
                selector.unregister(child.output)
                os.close(child.output)
                os.waitpid(child.pid, os.WNOHANG if key in late else 0)
    return found


def _hangs(key: Hashable) -> bool:
    """Whether the abandoned child of a job still exists."""
    if key in _abandoned and os.waitpid(_abandoned[key], os.WNOHANG) != (0, 0):
        del _abandoned[key]
    return key in _abandoned


def _run(job: Callable[[], Any], write: int, seconds: float) -> None:
    """Run a job in the child, write its result, and end the child."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        # Close our output: whoever reads it to its end must not wait for this child.
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2 and descriptor != write:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        with open("/proc/self/statm", "rb") as file:
            most = int(file.read().split()[0]) * resource.getpagesize() + MAX_MEMORY
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or hard > most:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        content = pickle.dumps(job())
        while content:
            content = content[os.write(write, content) :]
    finally:
        os._exit(0)
