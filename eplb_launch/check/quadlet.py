"""What a Quadlet unit starts: Podman makes a container of it. podman-systemd.unit(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from eplb_launch.check import images, units
from eplb_launch.check.dockerfile import exec_form
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import File, Place, Task, Variables, words_at
from eplb_launch.vllm.releases import CAP, VARIABLE

PLACE = Place(
    "in the unit",
    f"[Container]\nEnvironment={VARIABLE}={CAP}",
    own=("start the container with eplb-launch", "Entrypoint={}"),
    last_wins=True,
)
_SETS = ("-e", "--env", "--entrypoint")  # options of podman-run(1) that change what starts


class Quadlet(units.Units):
    title = "a Quadlet unit"
    form = "quadlet"
    suffixes = (".container",)

    @classmethod
    def looks(cls, first: str, text: str) -> bool:
        """Whether the text has a [Container] section."""
        return first.startswith("[") and "[Container]" in text.split("\n")

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        for unit in self.units():
            yield unit[0], tasks(unit)


def tasks(unit: Sequence[Source]) -> Iterator[Task]:
    """Yield the command of a unit: Entrypoint=, else the entry point of the image, then Exec=."""
    settings = units.settings(unit, "[Container]")
    image = units.last(settings, "Image")
    variables = units.environment(unit[0], settings)
    entry = [
        word
        for one in settings.get("Entrypoint", ())[-1:]
        for word in words_at(exec_form(one.value) or [one.value], one.source, one.line, one.end)
    ]
    args = [
        word
        for one in settings.get("Exec", ())[-1:]
        for words in units.commands(one, Variables())
        for word in words
    ]
    if not args and not entry:
        return
    first = (args or entry)[0]
    program = entry or words_at(images.entry_point(image), unit[0], first.line)
    if any(word.startswith(_SETS) for word in units.words(settings, "PodmanArgs")):
        variables.unread.append("PodmanArgs=")
    volumes = [one.value.split(":") for one in settings.get("Volume", ())]
    files = {there[0]: units.file_of(here, unit[0]) for here, *there in volumes if there}
    yield Task(
        PLACE,
        os.path.basename(unit[0].path),
        first.source,
        first.line,
        (*program, *args),
        variables,
        units.last(settings, "WorkingDir") or "/",
        image,
        {there: File(file.text, file) for there, file in files.items() if file is not None},
        own_entry=not entry and bool(program),
        only_arguments=not entry,
        mounts=tuple(files),
    )
