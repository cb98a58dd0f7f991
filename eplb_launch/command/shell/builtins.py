"""The commands of a shell that change its variables, its parameters or its directory."""

from __future__ import annotations

from eplb_launch.command.shell.expand import elements, expand, value
from eplb_launch.command.shell.lexer import TEXT, Array, is_name, literal
from eplb_launch.command.shell.state import (
    ABSENT,
    DIRECTORY,
    EXPORTS,
    FUNCTION,
    GAP,
    LOCAL,
    PARAMETERS,
)
from eplb_launch.command.shell.syntax import names_in
from eplb_launch.model import ONE_WORD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from eplb_launch.command.shell.state import Field, State, Value
    from eplb_launch.command.shell.syntax import Item

# What bin/activate of a virtual environment sets: CPython, Lib/venv/scripts/common/activate.
ACTIVATED = ("PATH", "PS1", "PYTHONHOME", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT")
DECLARE = frozenset(("export", "declare", "typeset", "local", "readonly"))


def assigned(item: Item) -> str:
    """Return the NAME that NAME=, NAME+= or NAME[..]= begins with; "" if there is none."""
    if isinstance(item, Array):
        return item.name
    kind, text, quoted = item[0]
    if kind != TEXT or quoted or "=" not in text:
        return ""
    name = text.partition("=")[0].removesuffix("+").partition("[")[0]
    return name if is_name(name) else ""


def assign(item: Item, state: State, *, export: bool = False) -> None:
    """Do what an assignment does to the variables."""
    place = state.shell.place
    position = place(item)
    if isinstance(item, Array):
        fields = [field for word in item.words for field in expand(word, state, place(word))]
        fields = elements(fields)
        if item.appends:
            fields = _as_list(state.get(item.name), position) + fields
        if not state.spend(16 * len(fields)):
            fields = [(GAP, position)]
        state.put(item.name, fields)
        return
    target, _, rest = item[0][1].partition("=")
    # Without the NAME=, so that a variable that stands alone is seen to do so.
    text = value([(TEXT, rest, False), *item[1:]] if rest else item[1:], state, position)
    name, bracket, _ = target.removesuffix("+").partition("[")
    known: Value = text
    if bracket:
        known = [(GAP, position)]
    elif target.endswith("+"):
        before = state.get(name)
        if isinstance(before, list):
            known = [(GAP, position)]
        elif before is None or ABSENT in (before, text) or not state.spend(len(before)):
            known = UNKNOWN
        elif before != UNKNOWN or text[:1] in (" ", "\t", "\n"):
            known = before + text
        else:
            known = UNKNOWN
    state.put(name, known, export=export)


def _as_list(known: Value, position: int) -> list[Field]:
    """Return the elements of a variable's value."""
    if isinstance(known, list):
        return known
    if known is None:
        return []
    if known == ONE_WORD:
        return [(UNKNOWN, position)]
    return [(GAP if known in (UNKNOWN, ABSENT) else known, position)]


def declare(items: list[Item], state: State) -> None:
    """`export`, `declare`, `typeset`, `local`, `readonly`."""
    command = "" if isinstance(items[0], Array) else literal(items[0])
    letters = taken = ""
    for item in items[1:]:
        name = assigned(item)
        names = [name]
        if not name and not isinstance(item, Array):
            names = [text for text, _ in expand(item, state, 0)]
        if GAP in names:  # export $(cat .env)
            state.lose_sight()
        for text in names:
            if text.startswith("-"):
                letters += text[1:]
            elif text.startswith("+"):
                taken += text[1:]
            if not is_name(text):
                continue
            if command in ("local", "declare", "typeset"):
                state.variables[LOCAL + text] = "1"
            export = command == "export" or "x" in letters
            if name:
                assign(item, state, export=export)
            elif export and "n" not in letters:
                state.export(text)
            # `export -n`, `declare +x`: it stays a variable of the shell.
            if "x" in taken or (command == "export" and "n" in letters):
                state.unexport(text)
            # Some letters change a value as it is assigned; a bare local is unset, but not in dash.
            if set(letters).intersection("inluA") or (command == "local" and not name):
                state.doubt((text,))


def _set(fields: list[Field], state: State) -> None:
    """`set -- WORDS`, `set -a`."""
    i = 1
    texts = [text for text, _ in fields]
    while i < len(texts) and len(texts[i]) > 1 and texts[i][0] in "-+" and texts[i] != "--":
        letters = texts[i][1:]
        options = texts[i + 1 : i + 1 + letters.count("o")]
        if "a" in letters or "allexport" in options:
            state.put(EXPORTS, "1" if texts[i][0] == "-" else "")
        i += 1 + len(options)
    if texts[i : i + 1] == ["--"]:
        i += 1
    elif i >= len(texts):
        return
    state.put(PARAMETERS, elements(fields[i:]))


def _shift(fields: list[Field], state: State) -> None:
    """`shift`, `shift N`."""
    count = fields[1][0] if len(fields) > 1 else "1"
    parameters = state.parameters()
    known = count.isdecimal() and len(count) < 9
    if not known or any(text == GAP for text, _ in parameters[: int(count)]):
        state.put(PARAMETERS, [(GAP, 0)])
    elif int(count) <= len(parameters):
        state.put(PARAMETERS, parameters[int(count) :])


def _unset(fields: list[Field], state: State) -> None:
    """`unset NAMES`."""
    names = [text for text, _ in fields[1:]]
    for name in names:
        if "-f" in names:
            state.put(name + FUNCTION, None)
        elif is_name(name.partition("[")[0]):
            state.put(name.partition("[")[0], [(GAP, 0)] if "[" in name else None)


def _cd(fields: list[Field], state: State) -> None:
    """`cd DIR`, `pushd DIR`, `popd`."""
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
    """`read NAMES`, `mapfile NAME`, `getopts LETTERS NAME`, `let`, `printf -v NAME`."""
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
            state.put(name, [(GAP, 0)] if array else ONE_WORD if number else UNKNOWN)


def _source(fields: list[Field], state: State) -> None:
    """`source FILE`."""
    if len(fields) < 2:
        return
    if fields[1][0].rpartition("/")[2] == "activate":
        state.doubt(ACTIVATED)
    else:
        state.lose_sight()


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
