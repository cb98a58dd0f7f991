"""What systemd units start, and Quadlet units, of which Podman makes containers.

systemd.unit(5), systemd.syntax(7), systemd.exec(5), systemd.service(5), podman-systemd.unit(5).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from eplb_launch.check import images
from eplb_launch.check.dockerfile import exec_form
from eplb_launch.check.kind import Kind
from eplb_launch.check.shell_files import Script
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import VALUES, File, Style, Task, Variables, Word, words_at
from eplb_launch.check.templating import env_lines, joined, replace
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.render.env import FORMATS
from eplb_launch.vllm.releases import CAP, VARIABLE

_IN_UNIT = Style(
    "in a drop-in",
    FORMATS["systemd"](VALUES).rstrip("\n"),
    line=True,
    last_wins=True,
    absolute=True,
)
_IN_CONTAINER = Style(
    "in the unit",
    f"[Container]\nEnvironment={VARIABLE}={CAP}",
    own=("start the container with eplb-launch", "Entrypoint={}"),
    last_wins=True,
)
_PODMAN_OPTIONS = ("-e", "--env", "--entrypoint")  # options of podman-run(1) that change the server
# The folders of units. The root of their system is above: EnvironmentFile= starts there.
_FOLDERS = re.compile(
    r"(?:^|/)(etc|run|lib|usr/lib|usr/local/lib|usr/share)"
    r"/(?:systemd/(?:system|user)|containers/systemd)(?=$|/)"
)
_RANKS = {"etc": 0, "run": 1}  # these hide drop-ins of the same name in other folders
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_VARIABLE_ALONE = re.compile(r"\$([A-Za-z_]\w*)")
_SPECIFIER = re.compile("%(.)", re.DOTALL)
_SIGNS = "@-:+!|"  # before a program
_TOKEN = re.compile(r"\\(?P<escaped>.)|(?P<quote>[\"'])|(?P<blank>\s+)|[^\\\"'\s]+|\\", re.DOTALL)
# Other escapes are rare: from there, the word is UNKNOWN.
_ESCAPES = {"n": "\n", "t": "\t", "s": " ", ";": "\\;", **{char: char for char in "\\\"'"}}


class Setting(Record):
    value: str
    source: Source
    line: int
    end: int


Settings: TypeAlias = Mapping[str, Sequence[Setting]]


class Units(Kind):
    """Units with one suffix, and their drop-ins."""

    @classmethod
    def is_named(cls, path: str) -> bool:
        """Whether the path is that of a unit or of a drop-in."""
        [suffix] = cls.suffixes
        folder = os.path.basename(os.path.dirname(path))
        drop_in = folder == f"{suffix[1:]}.d" or folder.endswith(f"{suffix}.d")
        return super().is_named(path) or (drop_in and path.lower().endswith(".conf"))

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        for unit in self.units():
            yield unit[0], self.of_unit(unit)

    @classmethod
    def of_unit(cls, unit: Sequence[Source]) -> Iterator[Task]:
        """Yield the commands of a unit and its drop-ins."""
        raise NotImplementedError

    def units(self) -> Iterator[list[Source]]:
        """Yield each unit with its drop-ins; a drop-in without its unit is a unit by itself.

        An instance of a template with drop-ins of its own is another unit.
        """
        [suffix] = self.suffixes
        mains = [source for source in self.sources if source.path.endswith(suffix)]
        others = [source for source in self.sources if not source.path.endswith(suffix)]
        drop_ins: dict[tuple[str, str], list[Source]] = {}  # by system and unit
        for source in others:
            folder, name = os.path.split(source.directory)
            drop_ins.setdefault((_system(folder), name.removesuffix(".d")), []).append(source)
        used: set[str] = set()
        for main in mains:
            system, name = _system(main.directory), os.path.basename(main.path)
            same = (unit for place, unit in drop_ins if place == system)
            instances = [unit for unit in same if re.sub("@.*[.]", "@.", unit) == name]
            for unit in dict.fromkeys((name, *instances)):
                names = dict.fromkeys((unit, *_drop_in_names(name)))
                found = [one for unit in names for one in drop_ins.get((system, unit), ())]
                used.update(source.path for source in found)
                yield [main, *_in_order(found)]
        yield from ([source] for source in others if source.path not in used)


class Systemd(Units):
    title = "a systemd unit"
    form = "unit"
    suffixes = (".service",)

    @classmethod
    def looks(cls, first: str, text: str) -> bool:  # noqa: ARG003
        """Whether the text begins with a section of a unit."""
        return first in ("[Unit]", "[Service]", "[Install]")

    @classmethod
    def of_unit(cls, unit: Sequence[Source]) -> Iterator[Task]:
        found = settings(unit, "[Service]")
        directory = _last(found, "WorkingDirectory").lstrip("-")
        if not directory.startswith("/") or "%" in directory:
            directory = "/"
        unset = {VARIABLE, f"{VARIABLE}={CAP}"}.intersection(_words(found, "UnsetEnvironment"))
        for key in ("ExecStartPre", "ExecStart", "ExecStartPost"):
            for setting in found.get(key, ()):
                variables = environment(unit[0], found)
                for words in commands(setting, variables):
                    scripts = (word.text for word in words[:2] if Script.is_named(word.text))
                    yield Task(
                        _IN_UNIT,
                        f"{os.path.basename(unit[0].path)} {key}=",
                        setting.source,
                        setting.line,
                        words,
                        variables,
                        directory,
                        files=_files({path: path for path in scripts}, unit[0]),
                        unset_by="UnsetEnvironment=" if unset else "",
                    )


class Quadlet(Units):
    title = "a Quadlet unit"
    form = "quadlet"
    suffixes = (".container",)

    @classmethod
    def looks(cls, first: str, text: str) -> bool:
        """Whether the text has a [Container] section."""
        return first.startswith("[") and "[Container]" in text.split("\n")

    @classmethod
    def of_unit(cls, unit: Sequence[Source]) -> Iterator[Task]:
        found = settings(unit, "[Container]")
        image = _last(found, "Image")
        variables = environment(unit[0], found)
        entry: tuple[Word, ...] = ()
        for one in found.get("Entrypoint", ())[-1:]:
            entry = words_at(exec_form(one.value) or [one.value], one.source, one.line, one.end)
        args: list[Word] = []
        for one in found.get("Exec", ())[-1:]:
            args += itertools.chain.from_iterable(commands(one, Variables()))
        if not args and not entry:
            return
        program = entry or words_at(images.entry_point(image), unit[0], 0)
        if any(word.startswith(_PODMAN_OPTIONS) for word in _words(found, "PodmanArgs")):
            variables.unread.append("PodmanArgs=")
        volumes = [one.value.split(":") for one in found.get("Volume", ())]
        mounts = {there[0]: here for here, *there in volumes if there}
        first = (args or entry)[0]
        yield Task(
            _IN_CONTAINER,
            os.path.basename(unit[0].path),
            first.source,
            first.line,
            (*program, *args),
            variables,
            _last(found, "WorkingDir") or "/",
            image,
            _files(mounts, unit[0]),
            own_entry=not entry and bool(program),
            only_arguments=not entry,
            mounts=tuple(mounts),
        )


def _system(folder: str) -> str:
    """Return the root of the system that a folder of units is in, else the folder."""
    folder = os.path.abspath(folder)
    match = _FOLDERS.search(folder)
    return folder[: match.start()] + "/" if match else folder


def _drop_in_names(unit: str) -> Iterator[str]:
    """Yield the names that drop-ins of a unit may have: v-a.service, v-.service, service."""
    stem, suffix = os.path.splitext(unit)
    yield unit
    yield from (f"{stem[: dash.end()]}{suffix}" for dash in re.finditer("-(?!$)", stem))
    yield suffix[1:]


def _in_order(drop_ins: Sequence[Source]) -> list[Source]:
    """Return the drop-ins sorted by name, one of each name: /etc wins, then the specific unit."""
    by_name: dict[str, Source] = {}
    for source in sorted(drop_ins, key=_rank):
        by_name.setdefault(os.path.basename(source.path), source)
    return [by_name[name] for name in sorted(by_name)]


def _rank(source: Source) -> int:
    match = _FOLDERS.search(os.path.abspath(source.directory))
    return _RANKS.get(match[1] if match else "", len(_RANKS))


def settings(unit: Sequence[Source], section: str) -> Settings:
    """Return the settings in one section of a unit and its drop-ins, by name."""
    found: dict[str, list[Setting]] = {}
    for source in unit:
        current = ""
        for line, pieces in joined(enumerate(source.text.split("\n"), 1), ("#", ";")):
            text = " ".join(filter(None, pieces))
            name, _, value = (part.strip() for part in text.partition("="))
            if text.startswith("["):
                current = text
            elif current == section and value:
                setting = Setting(value, source, line, line + len(pieces) - 1)
                found.setdefault(name, []).append(setting)
            elif current == section:
                found.pop(name, None)  # an empty value removes all earlier ones
    return found


def _last(settings: Settings, name: str) -> str:
    """Return the last value of a setting; "" if it has none."""
    found = settings.get(name)
    return found[-1].value if found else ""


def environment(unit: Source, settings: Settings) -> Variables:
    """Return the variables that the settings of a unit set."""
    found = Variables()
    for setting in settings.get("Environment", ()):
        for word in split(setting.value):
            name, equals, value = specifiers(word).partition("=")
            if equals:
                found.set(name, value, setting.source, setting.line, f"{name}={CAP}")
    found.known.update(dict.fromkeys(_words(settings, "PassEnvironment"), UNKNOWN))
    for setting in settings.get("EnvironmentFile", ()):
        path = specifiers(setting.value).lstrip("-")
        file = file_of(path, unit)
        if file is None:
            found.unread.append(f"{path or '?'} (EnvironmentFile=)")
        for name, value, line in env_lines(file):
            found.set(name, value, file or unit, line, f"{name}={CAP}")
    for word in _words(settings, "UnsetEnvironment"):  # systemd applies it last
        name, equals, value = word.partition("=")
        if not equals or found.known.get(name) == value:
            found.known.pop(name, None)
    if VARIABLE not in found.known:
        found.cap_line = None
    return found


def _words(settings: Settings, name: str) -> list[str]:
    """Return the words of all values of a setting."""
    return [word for setting in settings.get(name, ()) for word in split(setting.value)]


def file_of(path: str, unit: Source) -> Source | None:
    """Return a file that a unit names: below the root of its system, else beside the unit.

    None if it is in neither place: it is on another machine.
    """
    if UNKNOWN in path or "*" in path or not path.startswith(("/", "./")):
        return None
    directory = os.path.abspath(unit.directory)
    match = _FOLDERS.search(directory)
    places = [directory[: match.start()] + path] if match else []
    name = path if path.startswith("./") else os.path.basename(path)
    places.append(os.path.normpath(os.path.join(directory, name)))
    found = next((place for place in places if os.path.isfile(place)), None)
    return unit.near(found, "") if found else None


def _files(paths: Mapping[str, str], unit: Source) -> dict[str, File]:
    """Return the files at some paths, which a unit names, as far as they are here."""
    found = ((path, file_of(named, unit)) for path, named in paths.items())
    return {path: File(file.text, file) for path, file in found if file is not None}


def split(text: str) -> list[str]:
    """Return the words of a value: systemd splits at blanks, and removes quotes and escapes."""
    words: list[list[str]] = [[]]
    quote = ""
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if not quote and match["blank"]:
            words.append([])
        elif piece == quote:
            quote = ""
        elif not quote and match["quote"]:
            quote = piece
            words[-1].append("")
        else:
            escaped = match["escaped"]
            words[-1].append(_ESCAPES.get(escaped, UNKNOWN) if escaped else piece)
    found = ("".join(pieces).partition(UNKNOWN) for pieces in words if pieces)
    return [known + unknown for known, unknown, _ in found]


def specifiers(text: str) -> str:
    """Return a text with `%%` as "%" and all other specifiers as UNKNOWN."""
    return _SPECIFIER.sub(lambda match: "%" if match[1] == "%" else UNKNOWN, text)


def commands(setting: Setting, variables: Variables) -> Iterator[tuple[Word, ...]]:
    """Yield the commands of a setting, which " ; " separates, with their variables replaced."""
    command: list[str] = []
    for text in [*split(setting.value), ";"]:
        if text != ";":
            command.append(";" if text == "\\;" else text)
        elif command:
            words = _expanded(command, variables)
            yield words_at(words, setting.source, setting.line, setting.end)
            command = []


def _expanded(command: Sequence[str], variables: Variables) -> Iterator[str]:
    """Yield the words of a command, with its specifiers and then its variables replaced."""
    program = command[0].lstrip(_SIGNS)
    signs = command[0].removesuffix(program)
    words = [specifiers(word) for word in (program, *command[2 if "@" in signs else 1 :])]
    for index, word in enumerate(words):
        alone = _VARIABLE_ALONE.fullmatch(word) if index else None
        if ":" in signs:
            yield word
        elif alone is None:
            yield replace(_VARIABLE, lambda m: "$" if m[1] else variables.value(m[2] or m[3]), word)
        elif UNKNOWN not in (known := variables.value(alone[1])):
            yield from split(known)  # `$NAME` is split, `${NAME}` is one word
        else:
            # It may be any number of words. One word alone could only be the model or a value.
            before = words[index - 1]
            yield from [UNKNOWN] * (1 if before.startswith("--") and "=" not in before else 2)
