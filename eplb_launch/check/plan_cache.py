"""The servers and the Plans of a review. Each is computed once for all containers that share it.

They see the known files of a container, and none of this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from eplb_launch.check.tasks import Task
from eplb_launch.command import look
from eplb_launch.files import InMemory
from eplb_launch.model import UNKNOWN, Server
from eplb_launch.plans import Plan, Request, plan_for

_MAX_DEPTH = 64  # folders of a path
_MAX_KEPT = 512
_CHARACTERS_SEARCHED = 4  # in the time in which one is read
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
        searched = [*(word.text for word in task.words), *task.variables.known.values()]
        self.done.append(sum(map(len, searched)) // _CHARACTERS_SEARCHED)
        files = InMemory(
            {
                path: file.text
                for path, file in task.files.items()
                if path.startswith("/") and UNKNOWN not in path and path.count("/") <= _MAX_DEPTH
            }
        )
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
            *(server.args_known, server.remote, server.reads_first, server.hands_on),
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
