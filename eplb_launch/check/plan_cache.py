"""The Plans of a review: the same question is asked once, however many containers share a script.

They see the files of a container that are known, and none of this machine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eplb_launch.check import scripts
from eplb_launch.files import Given
from eplb_launch.model import UNKNOWN
from eplb_launch.plans import plan
from eplb_launch.vllm.releases import CAP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from eplb_launch.check.grammar import Script
    from eplb_launch.check.tasks import File, Task
    from eplb_launch.plans import Plan

_MAX_FILE = 1 << 20
_MAX_ALL = 2 << 20
_MAX_FILES = 100
_MAX_DEPTH = 64  # folders, one inside another: makedirs and rmtree call themselves for each
_MAX_PLANS = 256  # that are kept
_MAX_SCRIPTS = 16
_NAME = re.compile(r"[\w.+-]+")


class Decisions:
    """The Plans for the commands of one container after the other."""

    def __init__(self) -> None:
        self.files = Given({})
        self.known: dict[object, Plan | None] = {}
        self.scripts: dict[str, Script | None] = {}

    def enter(self, task: Task) -> None:
        """Have the files of a task where a Plan will look for them."""
        files = Given(dict(_wanted(task)))
        if files.texts != self.files.texts:
            self.files = files
            self.known.clear()

    def plan(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        directory: str,
        version: str | None,
        cap: int = CAP,
    ) -> Plan | None:
        """Return the Plan; None for a bug of ours: the other files are still to be checked."""
        key = (tuple(words), type(environ), frozenset(environ.items()), directory, version, cap)
        if key not in self.known:
            if len(self.known) >= _MAX_PLANS:
                self.known.clear()
            try:
                self.known[key] = plan(
                    words,
                    environ,
                    vllm_version=version,
                    directory=directory,
                    files=self.files,
                    max_ctas=cap,
                )
            except Exception:  # noqa: BLE001
                self.known[key] = None
        return self.known[key]

    def read(self, script: str) -> Script | None:
        if script not in self.scripts:
            if len(self.scripts) >= _MAX_SCRIPTS:
                self.scripts.clear()
            self.scripts[script] = scripts.read(script)
        return self.scripts[script]


def _wanted(task: Task) -> Iterator[tuple[str, str]]:
    """Yield the small files of a task, those first that it names, as far as there is room."""
    if not task.files:
        return
    texts = (*(word.text for word in task.words), *task.environ.values())
    names = {name for text in texts for name in _NAME.findall(text)}

    def unnamed(entry: tuple[str, File]) -> bool:
        return entry[0].rpartition("/")[2] not in names

    left, room = _MAX_FILES, _MAX_ALL
    for path, file in sorted(task.files.items(), key=unnamed):
        size = len(file.text)
        usable = path.startswith("/") and UNKNOWN not in path and path.count("/") <= _MAX_DEPTH
        if usable and size <= min(room, _MAX_FILE) and left:
            left, room = left - 1, room - size
            yield path, file.text
