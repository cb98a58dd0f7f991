"""Containers that Podman makes units of systemd of. podman-systemd.unit(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from eplb_launch.check import dropins, images
from eplb_launch.check.dockerfile import exec_form
from eplb_launch.check.kind import Kind
from eplb_launch.check.sources import Source
from eplb_launch.check.systemd import Setting, commands, environment, expanded, last, read, split
from eplb_launch.check.tasks import Place, Task, Variables, Word, words_at
from eplb_launch.vllm.releases import CAP, VARIABLE

PLACE = Place(
    "in the unit",
    f"[Container]\nEnvironment={VARIABLE}={CAP}",
    own=("let the container begin with eplb-launch", "Entrypoint={}"),
    last_wins=True,
)
SUFFIX = ".container"
_SETS = ("-e", "--env", "--entrypoint")  # options of podman-run(1) that change what is known here


class Quadlet(Kind):
    """A unit of Quadlet, with its drop-ins."""

    title = "a Quadlet unit"
    form = "quadlet"
    suffixes = (SUFFIX,)

    @classmethod
    def is_named(cls, path: str) -> bool:
        """Whether it is a unit or, by its folder, a drop-in."""
        folder = os.path.basename(os.path.dirname(path))
        drop_in = folder == "container.d" or folder.endswith(f"{SUFFIX}.d")
        return super().is_named(path) or (drop_in and path.lower().endswith(".conf"))

    @classmethod
    def looks(cls, first: str, text: str) -> bool:
        """Whether it has the section of a container."""
        return first.startswith("[") and "[Container]" in text.split("\n")

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        for unit in dropins.units(self.sources, SUFFIX):
            yield unit[0], tasks(unit)


def tasks(parts: Sequence[Source]) -> Iterator[Task]:
    """Yield what a unit and its drop-ins start: the Entrypoint=, else the image's, and Exec=."""
    settings = read(parts, "[Container]")
    image = last(settings, "Image")
    variables = environment(parts[0], settings)
    entry = tuple(
        word for setting in settings.get("Entrypoint", [])[-1:] for word in _entrypoint(setting)
    )
    args = tuple(
        word
        for setting in settings.get("Exec", [])[-1:]
        for texts in commands(setting)
        for word in expanded(texts, setting, Variables())
    )
    if not args and not entry:
        return
    program = entry or words_at(images.entry_point(image), parts[0], args[0].line)
    given = [word for setting in settings.get("PodmanArgs", ()) for word in split(setting.value)]
    if any(word.startswith(_SETS) for word in given):
        variables.unread.append("PodmanArgs=")
    yield Task(
        PLACE,
        os.path.basename(parts[0].path),
        (args or entry)[0].source,
        (args or entry)[0].line,
        (*program, *args),
        variables,
        last(settings, "WorkingDir") or "/",
        image,
        own_entry=not entry and bool(program),
        only_arguments=not entry,
        mounts=tuple(part for s in settings.get("Volume", ()) for part in s.value.split(":")[1:2]),
    )


def _entrypoint(setting: Setting) -> tuple[Word, ...]:
    """Return the words of an entry point: a list in JSON, or one word."""
    words = exec_form(setting.value) or [setting.value]
    return words_at(words, setting.source, setting.line, setting.end)
