"""Expand the words of a command as the shell does: variables, `$((..))`, splitting into fields."""

from __future__ import annotations

import os

from eplb_launch.command.shell.lexer import (
    ARITHMETIC,
    COMMAND,
    NAME,
    PARAMETER,
    TEXT,
    Array,
    Redirection,
    Word,
    literal,
    parts,
    tokens,
)
from eplb_launch.command.shell.state import ANY_WORDS, PARAMETERS, UNSET
from eplb_launch.model import ONE_WORD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from eplb_launch.command.shell.lexer import Parts
    from eplb_launch.command.shell.state import Field, State, Value
    from eplb_launch.command.shell.syntax import Item

MAX_DEPTH = 16  # of `${A:-${B:-..}}`, and of `$(cd "$(..)")`
# Commands whose output we know: dirname(1), readlink(1), realpath(1), coreutils 9.4; cd: sh(1).
_PATH_COMMANDS = frozenset(("cd", "dirname", "readlink", "realpath"))
_PATH_FLAGS = frozenset(("--", "-L", "-P", "-e", "-f", "-m"))
# Commands whose output is one word that is no option.
_ONE_WORD = frozenset(("basename", "dirname", "hostname", "mktemp", "nproc", "pwd", "whoami"))
FOLDER = "%/*"  # `${0%/*}`: the text before the last slash
OPERATORS = (":-", ":=", ":+", ":?", "-", "=", "+", "?")


def expand(items: Iterable[Item], state: State) -> list[Field]:
    """Return the fields of words, each with its position. A field may be ANY_WORDS or UNSET."""
    fields: list[Field] = []
    for word in items:
        if not isinstance(word, Word):
            continue
        position = state.shell.place(word)
        text = literal(word)
        if text and text[0] != "~" and "{" not in text and "\0" not in text:  # the usual case
            fields.append((text, position))
            continue
        expansion = _Expansion(state, position, is_value=False)
        expansion.whole(word)
        fields += expansion.fields
    return fields


def value(word: Parts, state: State) -> str:
    """Return the value that `NAME=word` assigns; it may be UNSET."""
    expansion = _Expansion(state, 0, is_value=True)
    expansion.whole(word)
    if expansion.unset and not expansion.fields:
        return UNSET
    return "".join([text for text, _ in expansion.fields])


def settle(fields: list[Field]) -> tuple[list[Field], int]:
    """Return the words of fields, and the index where the last unknown words may stand (or -1).

    ANY_WORDS becomes one UNKNOWN where a word is expected: as the program, after an option, after
    `vllm`.
    """
    words: list[Field] = []
    gap = -1
    for text, position in without_unset(fields):
        if text != ANY_WORDS:
            words.append((text, position))
            continue
        gap = len(words)
        before = words[-1][0] if words else ""
        if _expects_value(before) or before.rpartition("/")[2] in ("", "vllm"):
            words.append((UNKNOWN, position))
    return words, gap


def without_unset(fields: list[Field]) -> list[Field]:
    """Return fields without UNSET. Right after an option it becomes UNKNOWN."""
    words: list[Field] = []
    for field in fields:
        if field[0] != UNSET:
            words.append(field)
        elif words and _expects_value(words[-1][0]):
            words.append((UNKNOWN, field[1]))
    return words


def _expects_value(word: str) -> bool:
    """Whether a word is an option that may have its value in the next word."""
    return word.startswith("-") and "=" not in word and bool(word.strip("-"))


class _Expansion:
    """A word that is being expanded, and its fields so far."""

    def __init__(self, state: State, position: int, *, is_value: bool, commands: int = 0) -> None:
        """Begin; the value of an assignment (`is_value`) is never split into fields."""
        self.state = state
        self.position = position
        self.is_value = is_value
        self.fields: list[Field] = []
        self.text: list[str] = []  # of the current field
        self.begun = False  # there is a current field, which may be empty
        self.one = False  # the current field is one word, even if it is unknown
        self.unset = False  # a variable is not set
        self.depth = 0  # of operands
        self.commands = commands  # how many `$(..)` are around the word
        self.quoted = False  # the current part stands in double quotes
        self.alone = False  # the current part is the only one of the word

    def whole(self, word: Parts) -> None:
        if not self.is_value and self.state.shell.braces and _has_braces(word):
            self.fields.append((ANY_WORDS, self.position))
            return
        kind, text, quoted = word[0] if word else (TEXT, "", False)
        if kind == TEXT and not quoted and text.startswith("~"):
            tilde, slash, rest = text.partition("/")
            home = self.state.get("HOME") if tilde == "~" else UNKNOWN
            self.put(home if isinstance(home, str) and home != UNSET else UNKNOWN)
            word = [(TEXT, slash + rest, False), *word[1:]]
        self.alone = len(word) == 1
        self.parts(word)
        self.end_field()
        if self.unset and not self.fields and not self.is_value:
            self.fields.append((UNSET, self.position))

    def parts(self, word: Parts, *, operand: bool = False) -> None:
        """Expand the parts of a word or of an operand."""
        for kind, text, self.quoted in word:
            if kind == PARAMETER:
                self.parameter(text)
            elif kind == ARITHMETIC:
                from eplb_launch.command.shell.arithmetic import compute

                self.put(compute(text, self.state.get) or self.unknown_word())
            elif kind == COMMAND:
                self.command(text)
            elif self.quoted:
                self.put(text)
            elif operand:
                self.split(text)
            elif text:
                self.put(text, one=False)

    def unknown_word(self) -> str:
        """Return one unknown word; a value keeps in mind that it is one."""
        return ONE_WORD if self.is_value else UNKNOWN

    def put(self, text: str, *, one: bool = True) -> None:
        """Add text to the current field."""
        self.text.append(text)
        self.begun = True
        self.one = self.one or one

    def end_field(self) -> None:
        if self.begun:
            text = "".join(self.text)
            if not self.one and not self.is_value and text and not text.strip(UNKNOWN):
                text = ANY_WORDS
            self.fields.append((text, self.position))
            self.text = []
            self.begun = self.one = False

    def split(self, text: str) -> None:
        """Add text from an expansion without quotes: its blanks end fields."""
        if self.is_value or not self.state.shell.splits:
            if text:
                self.put(text, one=False)
            return
        if self.state.assigned("IFS"):
            self.put(UNKNOWN, one=False)
            return
        blanks = text.replace("\t", " ").replace("\n", " ")
        pieces = [piece for piece in blanks.split(" ") if piece]
        if blanks.startswith(" "):
            self.end_field()
        for at, piece in enumerate(pieces):
            if at:
                self.end_field()
            self.put(piece, one=False)
        if pieces and blanks.endswith(" "):
            self.end_field()

    # Commands

    def command(self, text: str) -> None:
        """Expand `$(text)`."""
        words = text.split(None, 2)
        if words and words[0] in _PATH_COMMANDS and self.commands < MAX_DEPTH:
            path = self.path_output(text)
            if path is not None:
                self.put(path, one=self.quoted)
                return
        if words and words[0] in _ONE_WORD and (words[0] != "hostname" or "-I" not in text):
            self.put(self.unknown_word())
            return
        name = words[0] if words and "=" not in words[0] else ""
        self.state.shell.unknown.append(f"$({name} …)")
        self.put(UNKNOWN, one=self.quoted)

    def path_output(self, text: str) -> str | None:
        """Return the path that a command like `cd "$(dirname "$0")" && pwd` prints, if known."""
        shell = self.state.shell
        words = []
        for token in tokens(text):
            if isinstance(token, Array):
                return None
            if isinstance(token, Redirection):
                continue
            word = token if isinstance(token, str) else ""
            if isinstance(token, Word):
                expansion = _Expansion(
                    self.state, self.position, is_value=True, commands=self.commands + 1
                )
                # BASH_SOURCE is an array, which the state does not hold.
                source = (TEXT, shell.context.script, True)
                expansion.whole([source if _is_source(part) else part for part in token])
                word = "".join([text for text, _ in expansion.fields if text != UNSET])
            if word not in _PATH_FLAGS:
                words.append(word)
        if any(UNKNOWN in word for word in words) or not self.state.spend(64):
            return None
        if words[0] == "dirname" and len(words) == 2:
            return os.path.dirname(words[1].rstrip("/")) or "."
        prints = words[2:] == (["&&", "pwd"] if words[0] == "cd" else [])
        shared = shell.context.shared
        if len(words) < 2 or not prints or shared.files is None:
            return None
        folder = os.path.join(shared.directory or "", self.state.directory() or "")
        try:
            return None if UNKNOWN in folder else shared.files.real(os.path.join(folder, words[1]))
        except OSError:  # the directory was deleted
            return None

    # Parameters

    def parameter(self, text: str) -> None:
        """Expand `${text}`."""
        name, every, operator, operand = _parse_parameter(text)
        known = UNKNOWN if operator is None else self.state.get(name)
        if every:
            known = elements(known, self.position)
        elif isinstance(known, list):  # $ARRAY is its first element
            known = known[0][0] if known else None
            known = UNKNOWN if known == ANY_WORDS else known
        if operator == "#":
            self.put(_length(known))
            return
        if operator == FOLDER:
            known, operator = self.folder(name, known), ""
        choice = _choose(known, operator) if operator else "value"
        if choice == "operand" and operator not in ("=", ":="):
            self.operand(operand)
            return
        if choice == "operand":
            known = value(parts(operand, quoted=self.quoted), self.state)
            self.state.put(name, known)
        elif choice == "unknown":
            plain = known == ONE_WORD and not set(operand).intersection("- \t\n$`")
            known = [(ANY_WORDS, 0)] if every else ONE_WORD if plain else UNKNOWN
        elif choice == "nothing" or (known is None and name.isdecimal()):
            known = ""
        elif self.alone and name.isdecimal() and name != "0" and known != UNKNOWN:
            self.position = self.state.parameters()[int(name) - 1][1]
        if _is_unknown(known):
            shell = self.state.shell
            shell.unknown += shell.origins.get(name, ("$" + name,))
        if isinstance(known, list):
            self.elements(known, joined=every == "*")
        else:
            self.scalar(known)

    def folder(self, name: str, known: Value) -> str:
        """Return the text before the last slash of a path."""
        is_script = name in ("0", "BASH_SOURCE")  # "." if it has no slash
        if is_script:
            source = self.state.shell.context.script if name != "0" else ""
            known = source or self.state.get("0")
        if not isinstance(known, str) or UNKNOWN in known:
            return UNKNOWN
        before, slash, _ = known.rpartition("/")
        return before if slash else "." if is_script else known

    def scalar(self, known: str | None) -> None:
        """Expand a variable that has this value."""
        if known is None or known == UNSET:
            if self.alone and (self.is_value or not self.quoted):
                self.unset = True
            else:
                self.put(UNKNOWN, one=self.quoted)
            return
        if not self.state.spend(len(known)) or known == UNKNOWN:
            self.put(UNKNOWN, one=self.quoted)
            return
        one_word = ONE_WORD in known
        if one_word and not self.is_value:
            known = known.replace(ONE_WORD, UNKNOWN)
        if self.quoted or (one_word and (self.is_value or not known.strip(UNKNOWN))):
            self.put(known)
        else:
            self.split(known)

    def operand(self, text: str) -> None:
        """Expand the word in `${NAME:-word}`."""
        self.depth += 1
        if self.depth > MAX_DEPTH or not self.state.spend(len(text)):
            self.put(UNKNOWN, one=self.quoted)
        else:
            if self.quoted:
                self.put("")
            self.alone = False
            self.parts(parts(text, quoted=self.quoted), operand=True)
        self.depth -= 1

    def elements(self, fields: list[Field], *, joined: bool) -> None:
        """Expand `$@`, `$*`, `${ARRAY[@]}` or `${ARRAY[*]}`."""
        if not self.state.spend(sum([len(text) + 32 for text, _ in fields])):
            fields = [(ANY_WORDS, self.position)]
        if self.is_value or (self.quoted and joined):
            self.put(" ".join([UNKNOWN if text == ANY_WORDS else text for text, _ in fields]))
            return
        for at, (text, position) in enumerate(fields):
            if at:
                self.end_field()
            if self.alone:
                self.position = position
            if text == ANY_WORDS:
                self.end_field()
                self.fields.append((ANY_WORDS, position))
            elif self.quoted:
                self.put(text)
            else:
                self.split(text)


def _is_source(part: tuple[str, str, bool]) -> bool:
    kind, text, _ = part
    return kind == PARAMETER and text.partition(":")[0] in ("BASH_SOURCE", "BASH_SOURCE[0]")


def _choose(known: Value, operator: str) -> str:
    """Return what `${NAME:-word}` becomes: "value", "operand" (`word`), "nothing" or "unknown"."""
    colon = operator[0] == ":"
    first = known[0][0] if isinstance(known, list) and known else known
    if first in (UNKNOWN, ANY_WORDS, ONE_WORD) or (known == UNSET and not colon):
        return "unknown"
    null = known in (None, UNSET, []) or (colon and known == "")
    if operator[-1] == "+":
        return "nothing" if null else "operand"
    return "operand" if null and operator[-1] != "?" else "value"


def _parse_parameter(text: str) -> tuple[str, str, str | None, str]:
    """Return the name in `${text}`, "@" or "*" for all elements, the operator and its operand.

    The operator is "" for none, "#" for the length, None for one that we do not know.
    """
    length = len(text) > 1 and text[0] == "#" and (text[1] in NAME or text[1] in "@*")
    start = end = int(length)
    while end < len(text) and text[end] in NAME:
        end += 1
    end += end == start and text[start : start + 1] in ("@", "*", "#", "?", "$", "!", "-")
    name, rest = text[start:end], text[end:]
    every = name if name in ("@", "*") else ""
    rest = rest.removeprefix("[0]")
    if rest.startswith(("[@]", "[*]")):
        every, rest = rest[1], rest[3:]
    if name == "*":
        name = PARAMETERS
    if length:
        return name, every, "#" if not rest else None, ""
    if rest == FOLDER and name:
        return name, every, FOLDER, ""
    for operator in OPERATORS:
        if rest.startswith(operator):
            return name, every, operator if name else None, rest[len(operator) :]
    return name, every, None if rest or not name else "", ""


def elements(known: Value, position: int) -> list[Field] | None:
    """Return the elements of an array, or a scalar as its only one; None if it is not set."""
    if known is None or isinstance(known, list):
        return known
    if known in (UNKNOWN, UNSET):
        return [(ANY_WORDS, position)]
    return [(UNKNOWN if known == ONE_WORD else known, position)]


def _is_unknown(known: Value) -> bool:
    if isinstance(known, list):
        return any(text == ANY_WORDS for text, _ in known)
    return known is None or UNKNOWN in known


def _length(known: Value) -> str:
    """Return `${#NAME}`."""
    if _is_unknown(known) or known is None or known == UNSET:
        return UNKNOWN
    if isinstance(known, str) and not known.isascii():
        return UNKNOWN
    return str(len(known))


def _has_braces(word: Parts) -> bool:
    """Whether bash may make several words of one: `{a,b}`, `{1..8}`."""
    text = "".join([text if kind == TEXT and not quoted else "_" for kind, text, quoted in word])
    opened = text.find("{")
    if opened < 0:
        return False
    separator = max(text.rfind(","), text.rfind(".."))
    return opened < separator and "}" in text[separator:]
