"""What a systemd unit starts, with its drop-ins. systemd.syntax(7), .service(5), .exec(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from eplb_launch.check import dropins as units
from eplb_launch.check.kind import Kind
from eplb_launch.check.shell_files import Script
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import VALUES, File, Place, Task, Word
from eplb_launch.check.templating import replace
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.render.env import FORMATS
from eplb_launch.vllm.releases import VARIABLE

PLACE = Place(
    "in a drop-in",
    FORMATS["systemd"](VALUES).rstrip("\n"),
    line=True,
    last_wins=True,
    absolute=True,
)
_EXEC = ("ExecStartPre", "ExecStart", "ExecStartPost")
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_ESCAPES = {
    **dict(zip("abfnrtvs", "\a\b\f\n\r\t\v ", strict=True)),
    **{char: char for char in "\\\"'"},
}


class Setting(Record):
    name: str
    value: str
    source: Source
    line: int
    end: int


class Unit(Kind):
    """A unit of systemd, with its drop-ins."""

    title = "a systemd unit"
    form = "unit"
    suffixes = (".service",)

    @classmethod
    def is_named(cls, path: str) -> bool:
        """Whether it is a unit or, by its folder, a drop-in."""
        folder = os.path.basename(os.path.dirname(path))
        drop_in = folder.endswith(".service.d") or folder == "service.d"
        return super().is_named(path) or (drop_in and path.lower().endswith(".conf"))

    @classmethod
    def looks(cls, first: str, text: str) -> bool:  # noqa: ARG003
        """Whether it begins with a section of a unit."""
        return first in ("[Unit]", "[Service]", "[Install]")

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        for unit in units.units(self.sources, ".service"):
            yield unit[0], tasks(unit)


def tasks(parts: Sequence[Source]) -> Iterator[Task]:
    """Yield what a unit and its drop-ins start."""
    settings = read(parts, "[Service]")
    environ, unread = environment(parts[0], settings)
    directory = settings["WorkingDirectory"][-1].value if settings.get("WorkingDirectory") else "/"
    directory = directory.lstrip("-")
    name = os.path.basename(parts[0].path)
    unset = _unset(settings)
    for key in _EXEC:
        for setting in settings.get(key, []):
            for words in commands(setting, environ):
                yield Task(
                    PLACE,
                    f"{name} {key}=",
                    setting.source,
                    setting.line,
                    words,
                    environ,
                    unread,
                    directory if directory.startswith("/") and "%" not in directory else "/",
                    files=_scripts(words, parts[0]),
                    takes_away="UnsetEnvironment=" if VARIABLE in unset else "",
                )


def read(parts: Sequence[Source], section: str) -> dict[str, list[Setting]]:
    """Return the settings in a section of a unit and its drop-ins, by their names."""
    settings: dict[str, list[Setting]] = {}
    for source in parts:
        for setting in _settings(source, section):
            known = settings.setdefault(setting.name, [])
            if setting.value:
                known.append(setting)
            else:
                known.clear()  # an empty value takes back all before
    return settings


def _settings(source: Source, wanted: str) -> Iterator[Setting]:
    """Yield the lines of a section, those that go on with a backslash joined."""
    section = ""
    lines = source.text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        start = at + 1
        at += 1
        if not line or line[0] in "#;":
            continue
        pieces = [line]
        while pieces[-1].endswith("\\") and at < len(lines):
            following = lines[at].strip()
            at += 1
            if following[:1] not in ("#", ";"):  # comments in between are left out
                pieces[-1] = pieces[-1][:-1].rstrip()
                pieces.append(following)
        line = " ".join(pieces)
        if line.startswith("["):
            section = line
        elif section == wanted:
            name, _, value = line.partition("=")
            yield Setting(name.strip(), value.strip(), source, start, at)


def environment(
    unit: Source, settings: Mapping[str, list[Setting]]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables that settings set, and what sets more and could not be read."""
    environ: dict[str, str] = {}
    unread: list[str] = []
    for setting in settings.get("Environment", []):
        for word in split(setting.value):
            name, equals, value = _specifiers(word).partition("=")
            if equals:
                environ[name] = value
    for setting in settings.get("PassEnvironment", []):
        environ.update(dict.fromkeys(setting.value.split(), UNKNOWN))
    for setting in settings.get("EnvironmentFile", []):
        path = _specifiers(setting.value).lstrip("-")
        found = _file_of(path, unit)
        if found is None:
            unread.append(f"{path or '?'} (EnvironmentFile=)")
        else:
            environ.update(env_file(found.text))
    for word in _unset(settings):
        name, equals, value = word.partition("=")
        if not equals or environ.get(name) == value:
            environ.pop(name, None)
    return environ, tuple(unread)


def _unset(settings: Mapping[str, list[Setting]]) -> list[str]:
    """Return what UnsetEnvironment= takes away after all others have set it: NAME or NAME=VALUE."""
    values = [setting.value for setting in settings.get("UnsetEnvironment", [])]
    return [word for value in values for word in split(value)]


def _scripts(words: Sequence[Word], unit: Source) -> dict[str, File]:
    """Return the script that a command names, by its path, if it is here."""
    for word in words[:2]:
        found = _file_of(word.text, unit) if Script.is_named(word.text) else None
        if found is not None:
            return {word.text: File(found.text, found)}
    return {}


def _file_of(path: str, unit: Source) -> Source | None:
    """Return a file that a unit names: below the root that the unit is in, else beside the unit.

    None if it is on another machine.
    """
    if UNKNOWN in path or "*" in path or not path.startswith("/"):
        return None
    directory = os.path.abspath(unit.directory)
    places = [os.path.join(directory, os.path.basename(path))]
    match = units.UNIT_FOLDERS.search(directory)
    if match:
        places.insert(0, directory[: match.start()] + path)
    for place in places:
        if os.path.isfile(place):
            return unit.near(place, "")
    return None


def env_file(text: str) -> dict[str, str]:
    """Return the variables of an EnvironmentFile=: systemd.exec(5)."""
    environ: dict[str, str] = {}
    text = re.sub(r"\\\n[ \t]*", "", text)
    for match in re.finditer(
        r"^[ \t]*([A-Za-z_]\w*)[ \t]*=[ \t]*("
        r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|\\.|[^\n\"'\\])*)",
        text,
        re.MULTILINE | re.DOTALL,
    ):
        pieces = re.findall(
            r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|((?:\\.|[^\"'\\])+)",
            match[2].rstrip(),
            re.DOTALL,
        )
        environ[match[1]] = "".join(
            single or re.sub(r"\\(.)", r"\1", double or bare) for double, single, bare in pieces
        )
    return environ


def split(text: str) -> list[str]:
    """Return the words of a line, as systemd splits and unescapes them.

    A quote counts only at the beginning of a word; escapes are those of C, inside and outside.
    """
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        pieces: list[str] = []
        quote = ""
        while at < len(text):
            char = text[at]
            if char == quote:
                quote = ""
            elif not quote and char in "\"'":
                quote = char
            elif not quote and char.isspace():
                break
            elif char == "\\" and at + 1 < len(text):
                piece, at = _escape(text, at + 1)
                pieces.append(piece)
                continue
            else:
                pieces.append(char)
            at += 1
        words.append("".join(pieces))
    return words


def _escape(text: str, at: int) -> tuple[str, int]:
    """Return what an escape stands for and where it ends."""
    char = text[at]
    if char in _ESCAPES:
        return _ESCAPES[char], at + 1
    base, length = {"x": (16, 2), "u": (16, 4), "U": (16, 8)}.get(char, (8, 3))
    start = at + (base == 16)
    try:
        return chr(int(text[start : start + length], base)), start + length
    except (ValueError, OverflowError):
        return "\\" + char, at + 1


def _specifiers(text: str) -> str:
    """Return a text with `%%` as "%" and what other specifiers stand for unknown."""
    return re.sub(r"%(.)", lambda m: "%" if m[1] == "%" else UNKNOWN, text, flags=re.DOTALL)


def commands(setting: Setting, environ: Mapping[str, str]) -> Iterator[tuple[Word, ...]]:
    """Yield the commands of an Exec line: several may be parted by " ; "."""
    raw = setting.value
    found: list[str] = []
    for text in [*split(raw), ";"]:
        if text != ";":
            found.append(text.replace("\\;", ";") if text == "\\;" else text)
            continue
        if not found:
            continue
        literal = ":" in found[0][: len(found[0]) - len(found[0].lstrip("@-:+!|"))]
        named = "@" in found[0][: len(found[0]) - len(found[0].lstrip("@-:+!|"))]
        words = [found[0].lstrip("@-:+!|"), *found[2 if named else 1 :]]
        words = [_specifiers(text) for text in words]  # before the variables: systemd.service(5)
        expanded = [
            piece
            for index, item in enumerate(words)
            for piece in (
                [item]
                if literal
                else _expand(item, environ, first=index == 0, valued=_takes(words[index - 1]))
            )
        ]
        yield tuple(Word(text, setting.source, setting.line, setting.end) for text in expanded)
        found = []


def _takes(word: str) -> bool:
    return word.startswith("--") and "=" not in word


def _expand(text: str, environ: Mapping[str, str], *, first: bool, valued: bool) -> list[str]:
    """Return the words that one becomes: `$NAME` alone is split, `${NAME}` stays one word.

    `valued`: it follows an option, whose value it is.
    """
    match = re.fullmatch(r"\$([A-Za-z_]\w*)", text)
    if match and not first:
        known = environ.get(match[1])
        # What is not set in the unit may be in the manager's environment.
        if known is not None and UNKNOWN not in known:
            return split(known)
        # As many words as it has. Two of which nothing is known: one could only be the model.
        return [UNKNOWN] * (1 if valued else 2)

    def value(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        return environ.get(found[2] or found[3], UNKNOWN)

    return [replace(_VARIABLE, value, text)]
