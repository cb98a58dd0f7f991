"""Expand the words of a shell script, as far as they can be known without running it."""

from __future__ import annotations

from eplb_launch.command.shell.lexer import (
    ARITHMETIC,
    COMMAND,
    NAME,
    PARAMETER,
    TEXT,
    Word,
    literal,
    parts,
)
from eplb_launch.command.shell.state import ABSENT, GAP, PARAMETERS
from eplb_launch.model import ONE_WORD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eplb_launch.command.shell.lexer import Parts
    from eplb_launch.command.shell.state import Field, State, Value

DEPTH = 16  # `${A:-${B:-..}}`
_SAY_WHERE = frozenset(("cd", "dirname", "readlink", "realpath"))
# Their output is one word, and no option.
_ONE_WORD = frozenset(("basename", "dirname", "hostname", "mktemp", "nproc", "pwd", "whoami"))
FOLDER = "%/*"  # `${0%/*}`: what stands before the last slash
OPERATORS = (":-", ":=", ":+", ":?", "-", "=", "+", "?")


def expand(word: Word, state: State, position: int) -> list[Field]:
    """Return the words that a word becomes, each with its place in the command.

    GAP stands for any number of words that cannot be known, ABSENT for a variable that is not set.
    """
    text = literal(word)
    if text and text[0] != "~" and "{" not in text and "\0" not in text:  # nearly always
        return [(text, position)]
    expansion = _Expansion(state, position, joins=False)
    expansion.whole(word)
    return expansion.fields


def value(word: Parts, state: State, position: int) -> str:
    """Return what `NAME=word` makes of a word; ABSENT if it is a variable that is not set."""
    expansion = _Expansion(state, position, joins=True)
    expansion.whole(word)
    if expansion.absent and not expansion.fields:
        return ABSENT
    return "".join([text for text, _ in expansion.fields])


def settle(fields: list[Field]) -> tuple[list[Field], int]:
    """Return real words in place of GAP and ABSENT, and the index of the last GAP (or -1).

    Where a word is wanted, UNKNOWN takes the place: as the program, after an option, after `vllm`.
    """
    words: list[Field] = []
    gap = -1
    for text, position in elements(fields):
        if text != GAP:
            words.append((text, position))
            continue
        gap = len(words)
        before = words[-1][0] if words else ""
        if _wants_value(before) or before.rpartition("/")[2] in ("", "vllm"):
            words.append((UNKNOWN, position))
    return words, gap


def elements(fields: list[Field]) -> list[Field]:
    """Return words and GAPs: ABSENT is dropped, or is UNKNOWN right after an option."""
    words: list[Field] = []
    for field in fields:
        if field[0] != ABSENT:
            words.append(field)
        elif words and _wants_value(words[-1][0]):
            words.append((UNKNOWN, field[1]))
    return words


def _wants_value(word: str) -> bool:
    """Whether a word is an option that may have its value in the next word."""
    return word.startswith("-") and "=" not in word and bool(word.strip("-"))


class _Expansion:
    """The fields that a word has become so far."""

    def __init__(self, state: State, position: int, *, joins: bool) -> None:
        """Begin with nothing; `joins`: the value of an assignment, which is never split."""
        self.state = state
        self.position = position
        self.joins = joins
        self.fields: list[Field] = []
        self.text: list[str] = []  # of the field that is being made
        self.begun = False  # there is such a field, be it empty
        self.one = False  # and it is one field for sure, whatever is unknown in it
        self.absent = False
        self.depth = 0
        self.nested = 0  # inside of `$(..)`

    def whole(self, word: Parts) -> None:
        """Expand a whole word."""
        if not self.joins and self.state.braces and _has_braces(word):
            self.fields.append((GAP, self.position))
            return
        kind, text, quoted = word[0] if word else (TEXT, "", False)
        if kind == TEXT and not quoted and text.startswith("~"):
            tilde, slash, rest = text.partition("/")
            home = self.state.get("HOME") if tilde == "~" else UNKNOWN
            self.put(home if isinstance(home, str) and home != ABSENT else UNKNOWN)
            word = [(TEXT, slash + rest, False), *word[1:]]
        self.parts(word, alone=len(word) == 1)
        self.cut()
        if self.absent and not self.fields and not self.joins:
            self.fields.append((ABSENT, self.position))

    def parts(self, word: Parts, *, alone: bool = False, operand: bool = False) -> None:
        """Expand the parts of a word; an `operand` is what stands in `${NAME:-here}`."""
        for kind, text, quoted in word:
            if kind == PARAMETER:
                self.parameter(text, quoted=quoted, alone=alone)
            elif kind == ARITHMETIC:
                from eplb_launch.command.shell.arithmetic import compute

                self.put(compute(text, self.state.get) or self.one_word())
            elif kind == COMMAND:
                self.command(text, quoted=quoted)
            elif quoted:
                self.put(text)
            elif operand:
                self.split(text)
            elif text:
                self.put(text, one=False)

    def one_word(self) -> str:
        """Return what stands for a word that is not known: as a value it stays one."""
        return ONE_WORD if self.joins else UNKNOWN

    def command(self, text: str, *, quoted: bool) -> None:
        """Expand `$(text)`."""
        words = text.split(None, 2)
        if words and words[0] in _SAY_WHERE and self.nested < DEPTH:
            from eplb_launch.command.shell.outputs import output

            known = output(text, self.state, self.inside)
            if known is not None:
                self.put(known, one=quoted)
                return
        if words and words[0] in _ONE_WORD and (words[0] != "hostname" or "-I" not in text):
            self.put(self.one_word())
            return
        self.state.blame(f"$({words[0] if words and '=' not in words[0] else ''} …)")
        self.put(UNKNOWN, one=quoted)

    def inside(self, word: Parts) -> str:
        """Return what a word is, inside of `$(..)`."""
        expansion = _Expansion(self.state, self.position, joins=True)
        expansion.nested = self.nested + 1
        expansion.whole(word)
        return "".join([text for text, _ in expansion.fields if text != ABSENT])

    def put(self, text: str, *, one: bool = True) -> None:
        """Add text to the field."""
        self.text.append(text)
        self.begun = True
        self.one = self.one or one

    def cut(self) -> None:
        """End the field, if there is one."""
        if self.begun:
            text = "".join(self.text)
            if not self.one and not self.joins and text and not text.strip(UNKNOWN):
                text = GAP
            self.fields.append((text, self.position))
            self.text = []
            self.begun = self.one = False

    def split(self, text: str) -> None:
        """Add what an expansion without quotes gave: blanks in it part fields."""
        if self.joins or not self.state.splits:
            if text:
                self.put(text, one=False)
            return
        if self.state.has("IFS"):
            self.put(UNKNOWN, one=False)
            return
        blanks = text.replace("\t", " ").replace("\n", " ")
        pieces = [piece for piece in blanks.split(" ") if piece]
        if blanks.startswith(" "):
            self.cut()
        for at, piece in enumerate(pieces):
            if at:
                self.cut()
            self.put(piece, one=False)
        if pieces and blanks.endswith(" "):
            self.cut()

    def parameter(self, text: str, *, quoted: bool, alone: bool) -> None:
        """Expand `${text}`."""
        name, every, operator, operand = _parameter(text)
        known = UNKNOWN if operator is None else self.state.get(name)
        if every:
            known = _elements(known, self.position)
        elif isinstance(known, list):  # $ARRAY is its first element
            known = known[0][0] if known else None
            known = UNKNOWN if known == GAP else known
        if operator == "#":
            self.put(_length(known))
            return
        if operator == FOLDER:
            known, operator = self.folder(name, known), ""
        choice = _choose(known, operator) if operator else "value"
        if choice == "operand" and operator not in ("=", ":="):
            self.operand(operand, quoted=quoted)
            return
        if choice == "operand":
            known = value(parts(operand, quoted=quoted), self.state, self.position)
            self.state.put(name, known)
        elif choice == "unknown":
            plain = known == ONE_WORD and not set(operand).intersection("- \t\n$`")
            known = _elements(UNKNOWN, 0) if every else ONE_WORD if plain else UNKNOWN
        elif choice == "nothing" or (known is None and name.isdecimal()):
            known = ""
        elif alone and name.isdecimal() and name != "0" and known != UNKNOWN:
            self.position = self.state.parameters()[int(name) - 1][1]
        if _is_unknown(known):
            self.state.blame(name, variable=True)
        if isinstance(known, list):
            self.elements(known, quoted=quoted, alone=alone, joined=every == "*")
        else:
            self.scalar(known, quoted=quoted, alone=alone)

    def folder(self, name: str, known: Value) -> str:
        """Return what stands in a path before the last slash."""
        own = name in ("0", "BASH_SOURCE")  # a script that was started has a slash in its name
        if own:
            known = (self.state.shell.way.script if name != "0" else "") or self.state.get("0")
        if not isinstance(known, str) or UNKNOWN in known:
            return UNKNOWN
        before, slash, _ = known.rpartition("/")
        return before if slash else "." if own else known

    def scalar(self, known: str | None, *, quoted: bool, alone: bool) -> None:
        """Expand a variable that has this value."""
        if known is None or known == ABSENT:
            if alone and (self.joins or not quoted):
                self.absent = True
            else:
                self.put(UNKNOWN, one=quoted)
        elif not self.state.spend(len(known)) or known == UNKNOWN:
            self.put(UNKNOWN, one=quoted)
        elif ONE_WORD in known:
            if not self.joins:
                known = known.replace(ONE_WORD, UNKNOWN)
            if quoted or self.joins or not known.strip(UNKNOWN):
                self.put(known)
            else:
                self.split(known)
        elif quoted:
            self.put(known)
        else:
            self.split(known)

    def operand(self, text: str, *, quoted: bool) -> None:
        """Expand the `here` of `${NAME:-here}`."""
        self.depth += 1
        if self.depth > DEPTH or not self.state.spend(len(text)):
            self.put(UNKNOWN, one=quoted)
        else:
            if quoted:
                self.put("")
            self.parts(parts(text, quoted=quoted), operand=True)
        self.depth -= 1

    def elements(self, fields: list[Field], *, quoted: bool, alone: bool, joined: bool) -> None:
        """Expand `$@`, `$*`, `${ARRAY[@]}` or `${ARRAY[*]}`."""
        if not self.state.spend(sum([len(text) + 32 for text, _ in fields])):
            fields = [(GAP, self.position)]
        if self.joins or (quoted and joined):
            self.put(" ".join([UNKNOWN if text == GAP else text for text, _ in fields]))
            return
        for at, (text, position) in enumerate(fields):
            if at:
                self.cut()
            if alone:
                self.position = position
            if text == GAP:
                self.cut()
                self.fields.append((GAP, position))
            elif quoted:
                self.put(text)
            else:
                self.split(text)


def _choose(known: Value, operator: str) -> str:
    """Return what `${NAME:-here}` gives: "value", "operand" (`here`), "nothing" or "unknown"."""
    colon = operator[0] == ":"
    first = known[0][0] if isinstance(known, list) and known else known
    if first in (UNKNOWN, GAP, ONE_WORD) or (known == ABSENT and not colon):
        return "unknown"
    null = known in (None, ABSENT, []) or (colon and known == "")
    if operator[-1] == "+":
        return "nothing" if null else "operand"
    return "operand" if null and operator[-1] != "?" else "value"


def _parameter(text: str) -> tuple[str, str, str | None, str]:
    """Return the name in `${text}`, "@" or "*" for all of an array, the operator and its operand.

    The operator is "" for none, "#" for the length, None for one that is not known here.
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


def _elements(known: Value, position: int) -> Value:
    """Return the elements of an array, or of what takes the place of one; None if it is not set."""
    if known is None or isinstance(known, list):
        return known
    if known == UNKNOWN:
        return [(GAP, 0)]
    if known == ONE_WORD:
        return [(UNKNOWN, position)]
    return [("" if known == ABSENT else known, position)]


def _is_unknown(known: Value) -> bool:
    """Whether something in a value is not known."""
    if isinstance(known, list):
        return any(text == GAP for text, _ in known)
    return known is None or UNKNOWN in known


def _length(known: Value) -> str:
    """Return what `${#NAME}` is."""
    if isinstance(known, list):
        return UNKNOWN if any(text == GAP for text, _ in known) else str(len(known))
    if known is None or known == ABSENT or UNKNOWN in known or not known.isascii():
        return UNKNOWN
    return str(len(known))


def _has_braces(word: Parts) -> bool:
    """Whether bash may make several words of one: `{a,b}`, `{1..8}`."""
    text = "".join([text if kind == TEXT and not quoted else "_" for kind, text, quoted in word])
    opened = text.find("{")
    if opened < 0:
        return False
    parted = max(text.rfind(","), text.rfind(".."))
    return opened < parted and "}" in text[parted:]
