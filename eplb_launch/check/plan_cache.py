"""The Plans of a review: each is made once, however many containers share a script.

They see the files of a container that are known, and none of this machine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence

from eplb_launch.check.tasks import File, Task
from eplb_launch.command import look
from eplb_launch.files import InMemory
from eplb_launch.model import UNKNOWN, Server
from eplb_launch.plans import Plan, Request, plan_for

_MAX_FILE = 1 << 20
_MAX_ALL = 2 << 20
_MAX_FILES = 100
_MAX_DEPTH = 64  # folders, one inside another
_MAX_PLANS = 512  # that are kept
_MAX_COMMANDS = 64
_TEXTS = 4  # characters that are looked through in the time that one is read
_NAME = re.compile(r"[\w.+-]+")


class Plans:
    """The Plans for the commands of one container after the other."""

    def __init__(self) -> None:
        self.files = InMemory({})
        self.directory = "/"
        self.known: dict[object, Plan | None] = {}
        self.found: dict[object, tuple[Server, ...] | None] = {}
        self.done: list[int] = []  # what looking for servers took, in characters

    def enter(self, task: Task) -> None:
        """Have the files of a task where a Plan will look for them."""
        self.directory = task.directory
        self.done.append(sum(map(len, _texts(task))) // _TEXTS)
        files = InMemory(dict(_wanted(task)))
        if files.texts != self.files.texts:
            self.files = files
            self.known.clear()
            self.found.clear()

    def servers(
        self, words: Sequence[str], environ: Mapping[str, str]
    ) -> tuple[Server, ...] | None:
        """Return the servers that a command starts; None for a bug of ours."""
        key = (tuple(words), frozenset(environ.items()), self.directory)
        if key not in self.found:
            if len(self.found) >= _MAX_COMMANDS:
                self.found.clear()
            try:
                server, _, _ = look(words, environ, self.files, self.directory, done=self.done)
            except Exception:  # noqa: BLE001 - the other files are still to be checked
                self.found[key] = None
            else:
                self.found[key] = (server, *server.others) if server is not None else ()
        return self.found[key]

    def plan(
        self,
        server: Server,
        words: Sequence[str],
        environ: Mapping[str, str],
        version: str | None,
        cap: int,
    ) -> Plan | None:
        """Return the Plan for one of them; None for a bug of ours."""
        key = (
            *(server.entry, server.words, server.program, server.wrappers, server.directory),
            server.written,
            *(server.complete, server.elsewhere, server.sourced, server.hands_on),
            *(frozenset(server.environ.items()), frozenset(environ.items())),
            *(tuple(words), self.directory, version, cap),
        )
        if key not in self.known:
            if len(self.known) >= _MAX_PLANS:
                self.known.clear()
            try:
                request = Request(
                    environ, version, directory=self.directory, files=self.files, max_ctas=cap
                )
                self.known[key] = plan_for(server, tuple(words), request)
            except Exception:  # noqa: BLE001 - the other files are still to be checked
                self.known[key] = None
        return self.known[key]


def _texts(task: Task) -> list[str]:
    return [*(word.text for word in task.words), *task.variables.known.values()]


@functools.lru_cache(maxsize=32)  # many containers have the same script
def _names(text: str) -> frozenset[str]:
    return frozenset(_NAME.findall(text))


def _wanted(task: Task) -> Iterator[tuple[str, str]]:
    """Yield the small files of a task, up to a limit; files that it names come first."""
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
