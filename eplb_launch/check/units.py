"""Units of systemd: which files make one, its settings, and how their values are read.

systemd.unit(5), systemd.syntax(7), systemd.exec(5), systemd.service(5).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from eplb_launch.check.kind import Kind
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import Variables, Word, words_at
from eplb_launch.check.templating import env_lines, joined, replace
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.vllm.releases import CAP, VARIABLE

# Folders of units on a system. Above them is its root, where EnvironmentFile= is looked for.
_FOLDERS = re.compile(
    r"(?:^|/)(etc|run|lib|usr/lib|usr/local/lib|usr/share)"
    r"/(?:systemd/(?:system|user)|containers/systemd)(?=$|/)"
)
_RANKS = ("etc", "run")  # these hide a drop-in of the same name in the other folders
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_ALONE = re.compile(r"\$([A-Za-z_]\w*)")
_SPECIFIER = re.compile("%(.)", re.DOTALL)
_SIGNS = "@-:+!|"  # in front of a program
_TOKEN = re.compile(
    r"\\(?:x(?P<x>[\da-f]{2})|u(?P<u>[\da-f]{4})|U(?P<U>[\da-f]{8})|(?P<o>[0-7]{3})|(?P<c>.))"
    r"|(?P<quote>[\"'])|(?P<blank>\s+)|[^\\\"'\s]+|\\",
    re.DOTALL | re.IGNORECASE,
)
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


Settings: TypeAlias = Mapping[str, Sequence[Setting]]


class Units(Kind):
    """Units with one suffix, and their drop-ins."""

    @classmethod
    def is_named(cls, path: str) -> bool:
        """Whether it is a unit or, by its folder, a drop-in."""
        [suffix] = cls.suffixes
        folder = os.path.basename(os.path.dirname(path))
        drop_in = folder == f"{suffix[1:]}.d" or folder.endswith(f"{suffix}.d")
        return super().is_named(path) or (drop_in and path.lower().endswith(".conf"))

    def units(self) -> Iterator[list[Source]]:
        """Yield each unit with its drop-ins; a drop-in without its unit is one by itself.

        Of a template, each instance with drop-ins of its own is a further unit.
        """
        [suffix] = self.suffixes
        mains = [source for source in self.sources if source.path.endswith(suffix)]
        others = [source for source in self.sources if not source.path.endswith(suffix)]
        near: dict[tuple[str, str], list[Source]] = {}  # by the system, by the unit
        for source in others:
            folder, name = os.path.split(source.directory)
            near.setdefault((_system(folder), name.removesuffix(".d")), []).append(source)
        used: set[str] = set()
        for main in mains:
            system, name = _system(main.directory), os.path.basename(main.path)
            general = [one for unit in _names(name) for one in near.get((system, unit), ())]
            variants = [
                [*own, *general]
                for (place, unit), own in near.items()
                if f"@{suffix}" in name and place == system and unit != name
                if re.sub("@.*[.]", "@.", unit) == name
            ]
            for drop_ins in (general, *variants):
                used.update(source.path for source in drop_ins)
                yield [main, *_in_order(drop_ins)]
        yield from ([source] for source in others if source.path not in used)


def _system(folder: str) -> str:
    """Return the root above the folders of units; the folder itself where there is none."""
    folder = os.path.abspath(folder)
    match = _FOLDERS.search(folder)
    return folder[: match.start()] + "/" if match else folder


def _names(unit: str) -> Iterator[str]:
    """Yield the names that drop-ins for a unit may have: its own, up to each dash, its type."""
    stem, suffix = os.path.splitext(unit)
    yield unit
    yield from (f"{stem[: dash.end()]}{suffix}" for dash in re.finditer("-(?!$)", stem))
    yield suffix[1:]


def _in_order(drop_ins: Sequence[Source]) -> list[Source]:
    """Return drop-ins by their names, of each name one.

    Of the same name, one in /etc counts before one in /run, and then the more specific one.
    """
    by_name: dict[str, Source] = {}
    for source in sorted(drop_ins, key=_rank):
        by_name.setdefault(os.path.basename(source.path), source)
    return [by_name[name] for name in sorted(by_name)]


def _rank(source: Source) -> int:
    match = _FOLDERS.search(os.path.abspath(source.directory))
    return _RANKS.index(match[1]) if match and match[1] in _RANKS else len(_RANKS)


def settings(unit: Sequence[Source], section: str) -> Settings:
    """Return the settings in a section of a unit and its drop-ins, by their names."""
    found: dict[str, list[Setting]] = {}
    for source in unit:
        for setting in _settings(source, section):
            known = found.setdefault(setting.name, [])
            if setting.value:
                known.append(setting)
            else:
                known.clear()  # an empty value takes back all before
    return found


def _settings(source: Source, wanted: str) -> Iterator[Setting]:
    section = ""
    for line, pieces in joined(enumerate(source.text.split("\n"), 1), ("#", ";")):
        text = " ".join(filter(None, pieces))
        name, _, value = text.partition("=")
        if text.startswith("["):
            section = text
        elif section == wanted:
            yield Setting(name.strip(), value.strip(), source, line, line + len(pieces) - 1)


def last(settings: Settings, name: str) -> str:
    """Return the value of a setting that takes one; "" if there is none."""
    found = settings.get(name)
    return found[-1].value if found else ""


def environment(unit: Source, settings: Settings) -> Variables:
    """Return the variables that settings set."""
    found = Variables()
    for setting in settings.get("Environment", ()):
        for word in split(setting.value):
            name, equals, value = specifiers(word).partition("=")
            if equals:
                found.set(name, value, setting.source, setting.line, f"{name}={CAP}")
    found.known.update(dict.fromkeys(words(settings, "PassEnvironment"), UNKNOWN))
    for setting in settings.get("EnvironmentFile", ()):
        path = specifiers(setting.value).lstrip("-")
        file = file_of(path, unit)
        if file is None:
            found.unread.append(f"{path or '?'} (EnvironmentFile=)")
        for name, value, line in env_lines(file):
            found.set(name, value, file or unit, line, f"{name}={CAP}")
    for word in words(settings, "UnsetEnvironment"):  # after all others have set it
        name, equals, value = word.partition("=")
        if not equals or found.known.get(name) == value:
            found.known.pop(name, None)
    if VARIABLE not in found.known:
        found.cap_line = None
    return found


def words(settings: Settings, name: str) -> list[str]:
    """Return the words of all lines of a setting."""
    return [word for setting in settings.get(name, ()) for word in split(setting.value)]


def file_of(path: str, unit: Source) -> Source | None:
    """Return a file that a unit names: below the root of its system, else beside the unit.

    None if neither is there: it is on another machine.
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


def split(text: str) -> list[str]:
    """Return the words of a line, as systemd splits and unescapes them, with escapes of C."""
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
            words[-1].append(_unescaped(match) if piece.startswith("\\") else piece)
    return ["".join(pieces) for pieces in words if pieces]


def _unescaped(match: re.Match[str]) -> str:
    """Return what an escape stands for; itself if that is nothing."""
    digits = match["x"] or match["u"] or match["U"]
    code = int(digits, 16) if digits else int(match["o"] or "0", 8)
    if not (digits or match["o"]):
        return _ESCAPES.get(match["c"] or "", match[0])
    return chr(code) if code <= sys.maxunicode else match[0]


def specifiers(text: str) -> str:
    """Return a text with `%%` as "%"; what other specifiers stand for is UNKNOWN."""
    return _SPECIFIER.sub(lambda match: "%" if match[1] == "%" else UNKNOWN, text)


def commands(setting: Setting) -> Iterator[list[str]]:
    """Yield the commands of a line: several may be parted by " ; "."""
    found: list[str] = []
    for text in [*split(setting.value), ";"]:
        if text != ";":
            found.append(";" if text == "\\;" else text)
        elif found:
            yield found
            found = []


def expanded(texts: Sequence[str], setting: Setting, variables: Variables) -> tuple[Word, ...]:
    """Return the words of a command, with its specifiers and then its variables replaced."""
    program = texts[0].lstrip(_SIGNS)
    signs = texts[0].removesuffix(program)
    given = [specifiers(text) for text in (program, *texts[2 if "@" in signs else 1 :])]
    if ":" not in signs:
        befores = [None, *given[:-1]]
        pairs = zip(given, befores, strict=True)
        given = [piece for word, before in pairs for piece in _expanded(word, before, variables)]
    return words_at(given, setting.source, setting.line, setting.end)


def _expanded(word: str, before: str | None, variables: Variables) -> Sequence[str]:
    """Return the words that one becomes: `$NAME` alone is split, `${NAME}` stays one word.

    `before`: the word before it, None for the program.
    """
    match = _ALONE.fullmatch(word)
    if match is None or before is None:
        return [replace(_VARIABLE, lambda m: "$" if m[1] else variables.value(m[2] or m[3]), word)]
    known = variables.value(match[1])
    if UNKNOWN not in known:
        return split(known)
    # Any number of words; one alone could only be the model, or the value of an option.
    return [UNKNOWN] * (1 if before.startswith("--") and "=" not in before else 2)
