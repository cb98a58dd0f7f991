"""The servers and the Plans of a review. Each is computed once for all containers that share it.

They see the known files of a container, and none of this machine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from eplb_launch.check.tasks import File, Task
from eplb_launch.command import look
from eplb_launch.files import InMemory
from eplb_launch.model import UNKNOWN, Server
from eplb_launch.plans import Plan, Request, plan_for

_MAX_FILE = 1 << 20
_MAX_ALL = 2 << 20
_MAX_FILES = 100
_MAX_DEPTH = 64  # folders, one inside another
_MAX_KEPT = 512
_CHARACTERS_SEARCHED = 4  # in the time in which one is read
_NAME = re.compile(r"[\w.+-]+")
_T = TypeVar("_T")


class Plans:
    """The servers and the Plans for the commands of one container after the other."""

    def __init__(self) -> None:
        self.files = InMemory({})
        self.directory = "/"
        self.known: dict[object, Any] = {}
        self.done: list[int] = []  # the work of finding servers, in characters

    def enter(self, task: Task) -> None:
        """Give the Plans the files of a task."""
        self.directory = task.directory
        self.done.append(sum(map(len, _texts(task))) // _CHARACTERS_SEARCHED)
        files = InMemory(dict(_wanted(task)))
        if files.texts != self.files.texts:
            self.files = files
            self.known.clear()

    def servers(
        self, words: Sequence[str], environ: Mapping[str, str]
    ) -> tuple[Server, ...] | None:
        """Return the servers that a command starts; None if the launcher has a bug."""

        def find() -> tuple[Server, ...]:
            server, _, _ = look(words, environ, self.files, self.directory, done=self.done)
            return (server, *server.others) if server is not None else ()

        return self._once((tuple(words), frozenset(environ.items()), self.directory), find)

    def plan(
        self,
        server: Server,
        words: Sequence[str],
        environ: Mapping[str, str],
        version: str | None,
        cap: int,
    ) -> Plan | None:
        """Return the Plan of a server; None if the launcher has a bug."""
        key = (
            *(server.entry, server.words, server.program, server.wrappers, server.directory),
            server.written,
            *(server.complete, server.elsewhere, server.sourced, server.hands_on),
            *(frozenset(server.environ.items()), frozenset(environ.items())),
            *(tuple(words), self.directory, version, cap),
        )
        request = Request(
            environ, version, directory=self.directory, files=self.files, max_ctas=cap
        )
        return self._once(key, lambda: plan_for(server, tuple(words), request))

    def _once(self, key: object, compute: Callable[[], _T]) -> _T | None:
        if key not in self.known:
            if len(self.known) >= _MAX_KEPT:
                self.known.clear()
            try:
                self.known[key] = compute()
            except Exception:  # noqa: BLE001 - the other files are still to be checked
                self.known[key] = None
        found: _T | None = self.known[key]
        return found


def _texts(task: Task) -> list[str]:
    return [*(word.text for word in task.words), *task.variables.known.values()]


@functools.lru_cache(maxsize=32)  # many containers share a script
def _names(text: str) -> frozenset[str]:
    return frozenset(_NAME.findall(text))


def _wanted(task: Task) -> Iterator[tuple[str, str]]:
    """Yield the small files of a task, up to a limit; files that its words name come first."""
    if not task.files:
        return
    names = frozenset().union(*map(_names, _texts(task)))

    def unnamed(entry: tuple[str, File]) -> bool:
        return entry[0].rpartition("/")[2] not in names

    left, room = _MAX_FILES, _MAX_ALL
    for path, file in sorted(task.files.items(), key=unnamed):
        size = len(file.text)
        usable = path.startswith("/") and UNKNOWN not in path and path.count("/") <= _MAX_DEPTH
        if usable and size <= min(room, _MAX_FILE) and left:
            left, room = left - 1, room - size
            yield path, file.text
