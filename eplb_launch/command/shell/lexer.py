"""Split a shell script into words and operators, as POSIX sh and bash do, in time linear in it.

A script becomes a list of tokens. A token is an operator (a string), a word (a list of parts, each
`(kind, text, quoted)` with one of the kinds below), an Array or a Redirection. All but operators
know where they stand.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Part: TypeAlias = tuple[str, str, bool]
    Parts = list[Part]
else:
    Parts = list

TEXT = "text"
PARAMETER = "parameter"  # of `$NAME` the name, of `${..}` what is in the braces
ARITHMETIC = "arithmetic"  # what is inside `$((..))`
COMMAND = "command"  # what is inside `$(..)`, backquotes, `<(..)`: its output is not known

MOST = 40_000  # tokens of one script: real ones have one for 9 characters
BLANKS = " \t"
SEPARATORS = " \t\n;&|()<>"
SPECIAL = frozenset(SEPARATORS + "\"'\\$`")
DIGITS = frozenset("0123456789")
NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
OPERATORS = frozenset(("&&", "||", ";;", ";&", "|&", ";;&"))  # besides single characters
REDIRECTIONS = frozenset(("<<", "<&", "<>", ">>", ">&", ">|", "&>", "<<<", "<<-", "&>>"))
ESCAPES = dict(zip("abeEfnrtv", "\a\b\x1b\x1b\f\n\r\t\v", strict=True))


class Word(Parts):
    """The parts of a word, and where it begins and ends."""

    __slots__ = ("at", "end")

    def __init__(self, parts: Parts | tuple[()] = (), at: int = 0, end: int = 0) -> None:
        """Take what is known."""
        super().__init__(parts)
        self.at = at
        self.end = end


class Array:
    """The assignment `NAME=(..)` or `NAME+=(..)`."""

    __slots__ = ("appends", "at", "end", "name", "words")

    def __init__(self, name: str, words: list[Word], at: int, *, appends: bool) -> None:
        """Take what stands before and between the parentheses."""
        self.name = name
        self.words = words
        self.appends = appends
        self.at = self.end = at


class Redirection:
    """A redirection, with the here-document or here-string that it gives as input."""

    __slots__ = ("at", "operator", "text", "word")

    def __init__(self, operator: str, word: Word) -> None:
        """Begin without a text."""
        self.operator = operator
        self.word = word
        self.text = ""  # of a here-document
        self.at = word.at  # where that begins

    @property
    def expands(self) -> bool:
        """Whether the shell expands the here-document."""
        return not any(quoted for _, _, quoted in self.word)


if TYPE_CHECKING:
    Token: TypeAlias = str | Word | Array | Redirection


def tokens(script: str) -> list[Token]:
    """Return the tokens of a script, the first MOST. An open quote reaches to the end."""
    return _Lexer(script).script()


def split(text: str) -> list[str]:
    """Return the words of a text that is no more than words: the operand of `env -S`."""
    return [
        "".join([part if kind == TEXT else "\0" for kind, part, _ in token])
        for token in tokens(text)
        if isinstance(token, Word)
    ]


def parts(text: str, *, quoted: bool) -> Word:
    """Return the parts of a text as those of one word: what stands in `${NAME:-here}`."""
    lexer = _Lexer(text)
    if quoted:
        lexer.double_quotes(closed=False)
    else:
        while lexer.at < len(text):
            if text[lexer.at] in SEPARATORS or not lexer.part():
                lexer.add(TEXT, text[lexer.at], quoted=False)
                lexer.at += 1
    return lexer.word or Word()


def literal(word: Word) -> str:
    """Return the text of a word that has no quotes and no expansions, else ""."""
    if len(word) == 1:  # nearly always
        kind, text, quoted = word[0]
        return text if kind == TEXT and not quoted else ""
    if any(kind != TEXT or quoted for kind, _, quoted in word):
        return ""
    return "".join([text for _, text, _ in word])


def is_name(text: str) -> bool:
    """Whether a text can be the name of a variable."""
    return bool(text) and text[0] not in DIGITS and NAME.issuperset(text)


def _closing(source: str, at: int, closer: str) -> int:
    """Return where what is open at `at` is closed, the end of the source if nowhere.

    `closer` is ")" or "}"; '}"' for a brace inside double quotes, where ' is an ordinary character.
    """
    end = len(source)
    stack = [closer]
    while at < end:
        char = source[at]
        top = stack[-1]
        if char == top[0]:
            stack.pop()
            if not stack:
                return at
        elif char == "\\":
            at += 1
        elif char == "$" and source.startswith(("(", "{"), at + 1):
            at += 1
            stack.append(")" if source[at] == "(" else '}"' if '"' in top else "}")
        elif char == "`":
            at = _backquote(source, at + 1)
        elif top == '"':
            pass
        elif char == '"':
            stack.append('"')
        elif char == "'" and top != '}"':
            at = source.find("'", at + 1) % (end + 1)
        elif top == ")":
            if char == "(":
                stack.append(")")
            elif char == "#" and source[at - 1] in " \t\n;":
                at = source.find("\n", at) % (end + 1)
        at += 1
    return end


def _backquote(source: str, at: int) -> int:
    """Return where the next backquote is that no backslash precedes."""
    while at < len(source) and source[at] != "`":
        at += 2 if source[at] == "\\" else 1
    return min(at, len(source))


class _Lexer:
    """A place in a script, and the word that is being read there."""

    def __init__(self, source: str) -> None:
        """Begin at the beginning."""
        self.source = source
        self.at = 0
        self.word: Word | None = None
        self.tokens: list[Token] = []
        self.documents: list[Redirection] = []  # that begin at the next line
        self.begin = 0  # of the word
        self.arithmetic = True  # `((` has been arithmetic so far

    def script(self) -> list[Token]:
        """Return all tokens."""
        source = self.source
        while self.at < len(source) and len(self.tokens) < MOST:
            if self.part():
                continue
            char = source[self.at]
            if char in BLANKS:
                self.end_word()
                self.at += 1
            elif char in "<>" or source.startswith("&>", self.at):
                self.redirection()
            elif char != "(" or not (self.array() or self.arithmetic_command()):
                self.operator()
        self.end_word()
        return self.tokens

    def add(self, kind: str, text: str, *, quoted: bool) -> None:
        """Add a part to the word."""
        if self.word is None:
            self.word = Word()
            self.begin = self.at
        self.word.append((kind, text, quoted))

    def end_word(self) -> None:
        """Put the word, if there is one, among the tokens."""
        if self.word is not None:
            self.word.at, self.word.end = self.begin, self.at
            self.tokens.append(self.word)
            self.word = None

    def part(self) -> bool:
        """Read a part of a word; False if there is none here."""
        source, at = self.source, self.at
        char = source[at]
        if char not in SPECIAL:
            if char == "#" and self.word is None:  # a comment
                self.at = source.find("\n", at) % (len(source) + 1)
                return True
            end = at + 1
            while end < len(source) and source[end] not in SPECIAL:
                end += 1
            self.add(TEXT, source[at:end], quoted=False)
            self.at = end
        elif char == "\\":
            if not source.startswith("\n", at + 1):  # else the line goes on
                self.add(TEXT, source[at + 1 : at + 2] or "\\", quoted=True)
            self.at += 2
        elif char == "'":
            end = source.find("'", at + 1) % (len(source) + 1)
            self.add(TEXT, source[at + 1 : end], quoted=True)
            self.at = end + 1
        elif char == '"':
            begin = at if self.word is None else self.begin
            self.at += 1
            self.double_quotes()
            self.begin = begin
        elif char in "$`":
            self.dollar(quoted=False)
        elif char in "<>" and source.startswith("(", at + 1):
            end = _closing(source, at + 2, ")")
            self.add(COMMAND, source[at + 2 : end], quoted=True)
            self.at = end + 1
        else:
            return False
        return True

    def double_quotes(self, *, closed: bool = True) -> None:
        """Read up to the closing quote; to the end of the source if there is none to come."""
        source = self.source
        start = self.at
        before = len(self.word or ())
        pieces: list[str] = []
        while self.at < len(source):
            char = source[self.at]
            if char in '"\\$`':
                pieces.append(source[start : self.at])
                if char == '"' and closed:
                    break
                if char in "$`":
                    self.flush(pieces)
                    self.dollar(quoted=True)
                    start = self.at
                    continue
                follows = source[self.at + 1 : self.at + 2]
                start = self.at + 1
                if char == "\\":
                    start = self.at + (
                        0 if follows not in '$`"\\\n' else 1 if follows != "\n" else 2
                    )
                    self.at += 1
            self.at += 1
        else:
            pieces.append(source[start:])
        self.flush(pieces)
        if len(self.word or ()) == before:
            self.add(TEXT, "", quoted=True)
        self.at += 1

    def flush(self, pieces: list[str]) -> None:
        """Make one quoted part of what double quotes held so far."""
        text = "".join(pieces)
        pieces.clear()
        if text:
            self.add(TEXT, text, quoted=True)

    def dollar(self, *, quoted: bool) -> None:
        """Read what begins with a dollar sign, or a command in backquotes."""
        source, at = self.source, self.at
        follows = source[at + 1 : at + 2]
        if source[at] == "`":
            end = _backquote(source, at + 1)
            self.add(COMMAND, source[at + 1 : end], quoted=quoted)
            self.at = end + 1
        elif follows == "{":
            end = _closing(source, at + 2, '}"' if quoted else "}")
            self.add(PARAMETER, source[at + 2 : end], quoted=quoted)
            self.at = end + 1
        elif follows == "(":
            end = _closing(source, at + 2, ")")
            inner = source[at + 2 : end]
            arithmetic = inner.startswith("(") and inner.endswith(")")
            if arithmetic:
                self.add(ARITHMETIC, inner[1:-1], quoted=quoted)
            else:
                self.add(COMMAND, inner, quoted=quoted)
            self.at = end + 1
        elif follows == "[":  # of old: arithmetic
            end = source.find("]", at) % (len(source) + 1)
            self.add(ARITHMETIC, source[at + 2 : end], quoted=quoted)
            self.at = end + 1
        elif follows and follows in "@*#?$!-0123456789":
            self.add(PARAMETER, follows, quoted=quoted)
            self.at += 2
        elif follows in NAME:
            end = at + 1
            while end < len(source) and source[end] in NAME:
                end += 1
            self.add(PARAMETER, source[at + 1 : end], quoted=quoted)
            self.at = end
        elif follows == "'" and not quoted:
            self.ansi_quotes()
        else:
            self.at += 1
            if follows != '"' or quoted:  # $".." is translated, which we leave out
                self.add(TEXT, "$", quoted=quoted)

    def ansi_quotes(self) -> None:
        """Read `$'..'`, with escapes as in C."""
        source = self.source
        at = self.at + 2
        pieces = []
        while at < len(source) and source[at] != "'":
            char = source[at]
            at += 1
            if char == "\\" and at < len(source):
                char = source[at]
                at += 1
                base, most = {"x": (16, 2), "u": (16, 4), "U": (16, 8)}.get(char, (8, 3))
                digits = "0123456789abcdefABCDEF" if base > 8 else "01234567"
                start = at if base > 8 else at - 1
                end = start
                while end < min(start + most, len(source)) and source[end] in digits:
                    end += 1
                if end > start:
                    code = int(source[start:end], base)
                    # A byte above 127 is a part of a character: as sys.argv would show it.
                    wide = char in "uU" or code < 128
                    char = chr(code if wide else 0xDC00 + code % 256) if code < 0x110000 else ""
                    at = end
                elif char not in "'\"\\?":
                    char = ESCAPES.get(char, "\\" + char)
            pieces.append(char)
        self.add(TEXT, "".join(pieces), quoted=True)
        self.at = at + 1

    def array(self) -> bool:
        """Read the rest of `NAME=(..)`, if that is what stands here."""
        text = literal(self.word or Word())
        name = text[:-1].removesuffix("+")
        if not text.endswith("=") or not is_name(name):
            return False
        self.word = None
        begin = self.begin
        self.at += 1
        outer, self.tokens = self.tokens, []
        while self.at < len(self.source) and self.source[self.at] != ")":
            if not self.part():
                self.end_word()
                self.at += 1
        self.end_word()
        words = [token for token in self.tokens if isinstance(token, Word)]
        self.tokens = outer
        array = Array(name, words, begin, appends=text.endswith("+="))
        self.tokens.append(array)
        self.at += 1
        array.end = self.at
        return True

    def arithmetic_command(self) -> bool:
        """Read `((..))`, if that is what stands here, as the `let` that it is."""
        source, at = self.source, self.at
        if self.word is not None or not self.arithmetic or not source.startswith("((", at):
            return False
        end = _closing(source, at + 1, ")")
        self.arithmetic = end < len(source) and source[end - 1] == ")"
        if self.arithmetic:
            self.tokens.append(Word([(TEXT, "let", False)], at, at))
            self.tokens.append(Word([(TEXT, source[at + 2 : end - 1], True)], at, end + 1))
            self.at = end + 1
        return self.arithmetic

    def redirection(self) -> None:
        """Read a redirection, with the number before it."""
        source = self.source
        if self.word and DIGITS.issuperset(literal(self.word) or "-"):
            self.word = None
        self.end_word()
        operator = self.longest(REDIRECTIONS)
        while source.startswith((" ", "\t", "\\\n"), self.at):
            self.at += 2 if source[self.at] == "\\" else 1
        begin = self.at
        while self.at < len(source) and self.part():
            pass
        found = Redirection(operator, Word(self.word or (), begin, self.at))
        if operator in ("<<", "<<-"):
            self.documents.append(found)
        self.tokens.append(found)
        self.word = None

    def longest(self, operators: frozenset[str]) -> str:
        """Go over the longest one of `operators` that stands here, or over a character."""
        at = self.at
        for length in (3, 2):
            operator = self.source[at : at + length]
            if operator in operators:
                break
        else:
            operator = self.source[at]
        self.at += len(operator)
        return operator

    def operator(self) -> None:
        """Read an operator; after a newline, the here-documents that begin there."""
        self.end_word()
        source = self.source
        operator = self.longest(OPERATORS)
        self.tokens.append(operator)
        if operator != "\n":
            return
        for document in self.documents:
            delimiter = "".join([text for _, text, _ in document.word])
            document.at = begin = last = self.at
            while self.at < len(source):
                last = self.at
                end = source.find("\n", last) % (len(source) + 1)
                line = source[last:end]
                self.at = end + 1
                if (line.lstrip("\t") if document.operator == "<<-" else line) == delimiter:
                    break
            else:
                last = len(source)
            document.text = source[begin:last]
        self.documents.clear()
