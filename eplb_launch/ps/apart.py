"""Run something in a child of ours, which may change who it is, hang, or take too much.

A file system that does not answer (FUSE, NFS) holds whoever looks at it, so that not even SIGKILL
ends it: such a child is left alone, and nobody waits for it.
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

SECONDS = 5.0  # that a child may take
MOST_BYTES = 1 << 30  # of memory, on top of ours
_AT_ONCE = 4  # children that work
_WORKING = 0.5  # seconds after which a child is taken to be waiting for something

_left: dict[Hashable, int] = {}  # children that did not end, by the key of their job


class _Child:
    def __init__(self, job: Callable[[], Any], seconds: float) -> None:
        self.begun = time.monotonic()
        self.content = b""
        self.output, write = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:  # there may be no more processes
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
    """Return what each job returned, which must be known to pickle; None where it was given up.

    A job whose child of an earlier call still hangs is not tried again.
    """
    found: dict[Key, Any] = dict.fromkeys(jobs)
    waiting = [key for key in jobs if not _hangs(key)][::-1]
    running: dict[Key, _Child] = {}
    with selectors.DefaultSelector() as ready:
        while waiting or running:
            while waiting and sum(one.age < _WORKING for one in running.values()) < _AT_ONCE:
                key = waiting.pop()
                with contextlib.suppress(OSError):
                    running[key] = _Child(jobs[key], seconds)
                    ready.register(running[key].output, selectors.EVENT_READ, key)
            for event, _ in ready.select(_WORKING / 10 if running else 0):
                child = running[event.data]
                piece = os.read(child.output, 1 << 16)
                child.content += piece
                if not piece:
                    with contextlib.suppress(EOFError, pickle.UnpicklingError):
                        found[event.data] = pickle.loads(child.content)  # noqa: S301 - our own
                    _end(event.data, running, ready)
            for key in [key for key, child in running.items() if child.age > seconds + 1]:
                _left[key] = running[key].pid
                _end(key, running, ready)
    return found


def _end(key: Any, running: dict[Any, _Child], ready: selectors.BaseSelector) -> None:
    child = running.pop(key)
    ready.unregister(child.output)
    os.close(child.output)
    os.waitpid(child.pid, os.WNOHANG if key in _left else 0)


def _hangs(key: Hashable) -> bool:
    """Whether the child of an earlier job is still there."""
    if key in _left and os.waitpid(_left[key], os.WNOHANG) != (0, 0):
        del _left[key]
    return key in _left


def _run(job: Callable[[], Any], write: int, seconds: float) -> None:
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        # Nobody who waits for the end of our output shall wait for this child.
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2 and descriptor != write:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm", "rb") as file:
            bound = int(file.read().split()[0]) * resource.getpagesize() + MOST_BYTES
        if most == resource.RLIM_INFINITY or most > bound:
            resource.setrlimit(resource.RLIMIT_AS, (bound, most))
        content = pickle.dumps(job())
        while content:
            content = content[os.write(write, content) :]
    finally:
        os._exit(0)
