"""What a systemd unit starts, with its drop-ins. systemd.syntax(7), .service(5), .exec(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from eplb_launch.check import dropins as units
from eplb_launch.check.kind import Kind
from eplb_launch.check.shell_files import Script
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import VALUES, File, Place, Task, Variables, Word, words_at
from eplb_launch.check.templating import replace
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.render.env import FORMATS
from eplb_launch.vllm.releases import CAP, VARIABLE

PLACE = Place(
    "in a drop-in",
    FORMATS["systemd"](VALUES).rstrip("\n"),
    line=True,
    last_wins=True,
    absolute=True,
)
_EXEC = ("ExecStartPre", "ExecStart", "ExecStartPost")
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_ASSIGNMENT = re.compile(
    r"^[ \t]*([A-Za-z_]\w*)[ \t]*=[ \t]*("
    r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|\\.|[^\n\"'\\])*)",
    re.MULTILINE | re.DOTALL,
)
_PIECE = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|((?:\\.|[^\"'\\])+)", re.DOTALL)
_MARKS = "@-:+!|"  # before a program
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


Settings: TypeAlias = dict[str, list[Setting]]


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
    directory = (last(settings, "WorkingDirectory") or "/").lstrip("-")
    if not directory.startswith("/") or "%" in directory:
        directory = "/"
    unset = VARIABLE in _words(settings, "UnsetEnvironment")
    for key in _EXEC:
        for setting in settings.get(key, []):
            for texts in commands(setting):
                variables = environment(parts[0], settings)
                words = expanded(texts, setting, variables)
                yield Task(
                    PLACE,
                    f"{os.path.basename(parts[0].path)} {key}=",
                    setting.source,
                    setting.line,
                    words,
                    variables,
                    directory,
                    files=_scripts(words, parts[0]),
                    unset_by="UnsetEnvironment=" if unset else "",
                )


def read(parts: Sequence[Source], section: str) -> Settings:
    """Return the settings in a section of a unit and its drop-ins, by their names."""
    settings: Settings = {}
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


def last(settings: Settings, name: str) -> str:
    """Return the last value of a setting; "" if there is none."""
    return settings[name][-1].value if settings.get(name) else ""


def environment(unit: Source, settings: Settings) -> Variables:
    """Return the variables that settings set, and what sets more and could not be read."""
    result = Variables()
    for setting in settings.get("Environment", []):
        for word in split(setting.value):
            name, equals, value = _specifiers(word).partition("=")
            if equals:
                right = f"Environment={name}={CAP}"
                result.set(name, value, setting.source, setting.line, right)
    result.known.update(dict.fromkeys(_words(settings, "PassEnvironment"), UNKNOWN))
    for setting in settings.get("EnvironmentFile", []):
        path = _specifiers(setting.value).lstrip("-")
        found = _file_of(path, unit)
        if found is None:
            result.unread.append(f"{path or '?'} (EnvironmentFile=)")
        else:
            for name, value, line in env_file(found.text):
                result.set(name, value, found, line, f"{name}={CAP}")
    for word in _words(settings, "UnsetEnvironment"):  # after all others have set it
        name, equals, value = word.partition("=")
        if not equals or result.known.get(name) == value:
            result.known.pop(name, None)
    return result


def _words(settings: Settings, name: str) -> list[str]:
    return [word for setting in settings.get(name, []) for word in split(setting.value)]


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
    found = next(filter(os.path.isfile, places), None)
    return unit.near(found, "") if found is not None else None


def env_file(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield the variables of an EnvironmentFile=, each with its line: systemd.exec(5)."""
    for match in _ASSIGNMENT.finditer(text):
        value = re.sub(r"\\\n[ \t]*", "", match[2].rstrip())
        pieces = (
            single or re.sub(r"\\(.)", r"\1", double or bare, flags=re.DOTALL)
            for double, single, bare in _PIECE.findall(value)
        )
        yield match[1], "".join(pieces), 1 + text.count("\n", 0, match.start())


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


def expanded(texts: Sequence[str], setting: Setting, variables: Variables) -> tuple[Word, ...]:
    """Return the words of a command of an Exec line, with its variables."""
    program = texts[0].lstrip(_MARKS)
    marks = texts[0][: len(texts[0]) - len(program)]
    words = [_specifiers(text) for text in (program, *texts[2 if "@" in marks else 1 :])]
    if ":" not in marks:
        words = [
            piece
            for index, item in enumerate(words)
            for piece in _expand(item, variables, before=words[index - 1] if index else None)
        ]
    return words_at(words, setting.source, setting.line, setting.end)


def commands(setting: Setting) -> Iterator[list[str]]:
    """Yield the commands of an Exec line: several may be parted by " ; "."""
    found: list[str] = []
    for text in [*split(setting.value), ";"]:
        if text != ";":
            found.append(";" if text == "\\;" else text)
        elif found:
            yield found
            found = []


def _expand(text: str, variables: Variables, *, before: str | None) -> list[str]:
    """Return the words that one becomes: `$NAME` alone is split, `${NAME}` stays one word.

    `before`: the word before it, None for the program.
    """
    match = re.fullmatch(r"\$([A-Za-z_]\w*)", text)
    if match and before is not None:
        known = variables.value(match[1])
        if UNKNOWN not in known:
            return split(known)
        # Any number of words; one alone could only be the model, or the value of an option.
        return [UNKNOWN] * (1 if before.startswith("--") and "=" not in before else 2)
    return [
        replace(_VARIABLE, lambda m: "$" if m[1] else variables.value(m[2] or m[3]), text),
    ]
