"""What a systemd unit starts. systemd.service(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from eplb_launch.check import units
from eplb_launch.check.shell_files import Script
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import VALUES, File, Place, Task
from eplb_launch.render.env import FORMATS
from eplb_launch.vllm.releases import CAP, VARIABLE

PLACE = Place(
    "in a drop-in",
    FORMATS["systemd"](VALUES).rstrip("\n"),
    line=True,
    last_wins=True,
    absolute=True,
)


class Unit(units.Units):
    title = "a systemd unit"
    form = "unit"
    suffixes = (".service",)

    @classmethod
    def looks(cls, first: str, text: str) -> bool:  # noqa: ARG003
        """Whether the text begins with a section of a unit."""
        return first in ("[Unit]", "[Service]", "[Install]")

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        for unit in self.units():
            yield unit[0], tasks(unit)


def tasks(unit: Sequence[Source]) -> Iterator[Task]:
    settings = units.settings(unit, "[Service]")
    directory = units.last(settings, "WorkingDirectory").lstrip("-")
    if not directory.startswith("/") or "%" in directory:
        directory = "/"
    unset = {VARIABLE, f"{VARIABLE}={CAP}"}.intersection(units.words(settings, "UnsetEnvironment"))
    for key in ("ExecStartPre", "ExecStart", "ExecStartPost"):
        for setting in settings.get(key, ()):
            variables = units.environment(unit[0], settings)
            for words in units.commands(setting, variables):
                scripts = (word.text for word in words[:2] if Script.is_named(word.text))
                files = {path: units.file_of(path, unit[0]) for path in scripts}
                yield Task(
                    PLACE,
                    f"{os.path.basename(unit[0].path)} {key}=",
                    setting.source,
                    setting.line,
                    words,
                    variables,
                    directory,
                    files={path: File(file.text, file) for path, file in files.items() if file},
                    unset_by="UnsetEnvironment=" if unset else "",
                )
