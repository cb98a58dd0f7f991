"""Builtins of the shell that change its variables, its parameters or its directory."""

from __future__ import annotations

from eplb_launch.command.shell.expand import elements, expand, value, without_unset
from eplb_launch.command.shell.lexer import TEXT, Array, is_name, literal
from eplb_launch.command.shell.state import (
    ANY_WORDS,
    DIRECTORY,
    EXPORT_ALL,
    FUNCTION,
    LOCAL,
    PARAMETERS,
    UNSET,
)
from eplb_launch.command.shell.syntax import names_in
from eplb_launch.model import ONE_WORD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from eplb_launch.command.shell.state import Field, State, Value
    from eplb_launch.command.shell.syntax import Item

# The variables that bin/activate of a virtual environment sets: CPython,
# Lib/venv/scripts/common/activate.
ACTIVATED = ("PATH", "PS1", "PYTHONHOME", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT")
DECLARE = frozenset(("export", "declare", "typeset", "local", "readonly"))


def assigned(item: Item) -> str:
    """Return the NAME of NAME=, NAME+= or NAME[..]=; "" if the item is no assignment."""
    if isinstance(item, Array):
        return item.name
    kind, text, quoted = item[0]
    if kind != TEXT or quoted or "=" not in text:
        return ""
    name = text.partition("=")[0].removesuffix("+").partition("[")[0]
    return name if is_name(name) else ""


def assign(item: Item, state: State, *, export: bool = False) -> None:
    """Do an assignment."""
    position = state.shell.place(item)
    if isinstance(item, Array):
        fields = without_unset(expand(item.words, state))
        if item.appends:
            fields = (elements(state.get(item.name), position) or []) + fields
        if not state.spend(16 * len(fields)):
            fields = [(ANY_WORDS, position)]
        state.put(item.name, fields)
        return
    target, _, rest = item[0][1].partition("=")
    # Without NAME=, so that `NAME=$OTHER` is seen to be a variable alone.
    text = value([(TEXT, rest, False), *item[1:]] if rest else item[1:], state)
    name, bracket, _ = target.removesuffix("+").partition("[")
    known: Value = text
    before = state.get(name) if target.endswith("+") else ""
    if bracket or isinstance(before, list):
        known = [(ANY_WORDS, position)]
    elif before:
        begins = before != UNKNOWN or text[:1] in (" ", "\t", "\n")
        unset = UNSET in (before, text)
        known = before + text if begins and not unset and state.spend(len(before)) else UNKNOWN
    elif before is None:
        known = UNKNOWN
    state.put(name, known, export=export)


def declare(items: list[Item], state: State) -> None:
    """Do `export`, `declare`, `typeset`, `local` or `readonly`."""
    command = "" if isinstance(items[0], Array) else literal(items[0])
    letters = removed = ""
    for item in items[1:]:
        name = assigned(item)
        names = [name]
        if not name and not isinstance(item, Array):
            names = [text for text, _ in expand([item], state)]
        if ANY_WORDS in names:  # export $(cat .env)
            state.forget_all()
        for text in names:
            if text.startswith("-"):
                letters += text[1:]
            elif text.startswith("+"):
                removed += text[1:]
            if not is_name(text):
                continue
            if command in ("local", "declare", "typeset"):
                state.values[LOCAL + text] = "1"
            export = command == "export" or "x" in letters
            if name:
                assign(item, state, export=export)
            elif export and "n" not in letters:
                state.export(text)
            # `export -n`, `declare +x`
            if "x" in removed or (command == "export" and "n" in letters):
                state.unexport(text)
            # These letters change the value. `local NAME` unsets it, but not in dash.
            if set(letters).intersection("inluA") or (command == "local" and not name):
                state.forget((text,))


def _set(fields: list[Field], state: State) -> None:
    """Do `set -- WORDS` or `set -a`."""
    i = 1
    texts = [text for text, _ in fields]
    while i < len(texts) and len(texts[i]) > 1 and texts[i][0] in "-+" and texts[i] != "--":
        letters = texts[i][1:]
        options = texts[i + 1 : i + 1 + letters.count("o")]
        if "a" in letters or "allexport" in options:
            state.put(EXPORT_ALL, "1" if texts[i][0] == "-" else "")
        i += 1 + len(options)
    if texts[i : i + 1] == ["--"]:
        i += 1
    elif i >= len(texts):
        return
    state.put(PARAMETERS, without_unset(fields[i:]))


def _shift(fields: list[Field], state: State) -> None:
    """Do `shift N`."""
    count = fields[1][0] if len(fields) > 1 else "1"
    parameters = state.parameters()
    known = count.isdecimal() and len(count) < 9
    if not known or any(text == ANY_WORDS for text, _ in parameters[: int(count)]):
        state.put(PARAMETERS, [(ANY_WORDS, 0)])
    elif int(count) <= len(parameters):
        state.put(PARAMETERS, parameters[int(count) :])


def _unset(fields: list[Field], state: State) -> None:
    """Do `unset NAMES`."""
    names = [text for text, _ in fields[1:]]
    for name in names:
        if "-f" in names:
            state.put(name + FUNCTION, None)
        elif is_name(name.partition("[")[0]):
            state.put(name.partition("[")[0], [(ANY_WORDS, 0)] if "[" in name else None)


def _cd(fields: list[Field], state: State) -> None:
    """Do `cd DIR`, `pushd DIR` or `popd`."""
    texts = [text for text, _ in fields[1:] if text not in ("-L", "-P", "-e", "-@", "--")]
    target: Value = texts[0] if texts else state.get("HOME")
    if fields[0][0] == "popd" or not isinstance(target, str):
        target = UNKNOWN
    if target == "-" or UNKNOWN in target or (fields[0][0] == "pushd" and target[:1] in "+-"):
        state.put(DIRECTORY, UNKNOWN)
        return
    before = state.directory()
    if before is not None and not target.startswith("/"):
        target = UNKNOWN if UNKNOWN in before else f"{before.rstrip('/')}/{target}"
    state.put(DIRECTORY, target)


def _read(fields: list[Field], state: State) -> None:
    """Make unknown what `read`, `mapfile`, `getopts`, `let` or `printf -v` set."""
    texts = [text for text, _ in fields]
    if texts[0] == "printf" and texts[1:2] != ["-v"]:
        return
    names = {"REPLY", "MAPFILE", "OPTARG"}
    for text in texts[1:]:
        if texts[0] == "let":
            names.update(names_in(text))
        else:
            names.add(text)
    array = texts[0] in ("mapfile", "readarray") or "-a" in texts
    for name in sorted(names):
        if is_name(name):
            number = texts[0] == "let" or name == "OPTARG"
            state.put(name, [(ANY_WORDS, 0)] if array else ONE_WORD if number else UNKNOWN)


def _source(fields: list[Field], state: State) -> None:
    """Do `source FILE` for a file that is not read."""
    if len(fields) < 2:
        return
    if fields[1][0].rpartition("/")[2] == "activate":
        state.forget(ACTIVATED)
    else:
        state.forget_all()


BUILTINS: dict[str, Callable[[list[Field], State], None]] = {
    "set": _set,
    "shift": _shift,
    "unset": _unset,
    "cd": _cd,
    "pushd": _cd,
    "popd": _cd,
    "read": _read,
    "mapfile": _read,
    "readarray": _read,
    "getopts": _read,
    "printf": _read,
    "let": _read,
    "source": _source,
    ".": _source,
}
