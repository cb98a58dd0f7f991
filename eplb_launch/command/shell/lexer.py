"""Split a shell script into tokens, as POSIX sh and bash do. The time is linear in the script.

A token is an operator (a string), a Word, an Array or a Redirection. A word is a list of parts:
`(kind, text, quoted)`, with one of the kinds below. All tokens but operators have an offset.
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
PARAMETER = "parameter"  # the name in `$NAME`, the text inside `${..}`
ARITHMETIC = "arithmetic"  # the text inside `$((..))`
COMMAND = "command"  # the text inside `$(..)`, backquotes or `<(..)`

MAX_TOKENS = 40_000  # of one script: real scripts have a token for every 9 characters
BLANKS = " \t"
SEPARATORS = " \t\n;&|()<>"
SPECIAL = frozenset(SEPARATORS + "\"'\\$`")
DIGITS = frozenset("0123456789")
NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
OPERATORS = frozenset(("&&", "||", ";;", ";&", "|&", ";;&"))  # besides single characters
REDIRECTIONS = frozenset(("<<", "<&", "<>", ">>", ">&", ">|", "&>", "<<<", "<<-", "&>>"))
ESCAPES = dict(zip("abeEfnrtv", "\a\b\x1b\x1b\f\n\r\t\v", strict=True))


class Word(Parts):
    """The parts of a word, with the offsets of its start and end."""

    __slots__ = ("at", "end")

    def __init__(self, parts: Parts | tuple[()] = (), at: int = 0, end: int = 0) -> None:
        super().__init__(parts)
        self.at = at
        self.end = end


class Array:
    """The assignment `NAME=(..)` or `NAME+=(..)`."""

    __slots__ = ("appends", "at", "end", "name", "words")

    def __init__(self, name: str, words: list[Word], at: int, *, appends: bool) -> None:
        self.name = name
        self.words = words
        self.appends = appends
        self.at = self.end = at


class Redirection:
    """A redirection, with its here-document."""

    __slots__ = ("at", "operator", "text", "word")

    def __init__(self, operator: str, word: Word) -> None:
        self.operator = operator
        self.word = word
        self.text = ""  # the here-document
        self.at = word.at  # the offset of the here-document

    @property
    def expands(self) -> bool:
        """Whether the shell expands the here-document."""
        return not any(quoted for _, _, quoted in self.word)


if TYPE_CHECKING:
    Token: TypeAlias = str | Word | Array | Redirection


def tokens(script: str) -> list[Token]:
    """Return the first MAX_TOKENS tokens of a script. An open quote reaches to its end."""
    return _Lexer(script).script()


def split(text: str) -> list[str]:
    """Return the words of a text without operators: the operand of `env -S`."""
    return [
        "".join([part if kind == TEXT else "\0" for kind, part, _ in token])
        for token in tokens(text)
        if isinstance(token, Word)
    ]


def parts(text: str, *, quoted: bool) -> Word:
    """Return the parts of the word in `${NAME:-word}`."""
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
    """Return the text of a word without quotes and expansions, "" for other words."""
    if len(word) == 1:  # the usual case
        kind, text, quoted = word[0]
        return text if kind == TEXT and not quoted else ""
    if any(kind != TEXT or quoted for kind, _, quoted in word):
        return ""
    return "".join([text for _, text, _ in word])


def is_name(text: str) -> bool:
    """Whether a text is a valid name of a variable."""
    return bool(text) and text[0] not in DIGITS and NAME.issuperset(text)


def _closing(source: str, at: int, closer: str) -> int:
    """Return the offset of the `closer` that fits, or the end of the source.

    `closer` is ")" or "}", or '}"' inside double quotes, where ' is an ordinary character.
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
            at = _find(source, "'", at + 1)
        elif top == ")":
            if char == "(":
                stack.append(")")
            elif char == "#" and source[at - 1] in " \t\n;":
                at = _find(source, "\n", at)
        at += 1
    return end


def _find(source: str, char: str, at: int) -> int:
    """Return the offset of the next such character, or the end of the source."""
    return source.find(char, at) % (len(source) + 1)


def _backquote(source: str, at: int) -> int:
    """Return the offset of the next backquote without a backslash before it."""
    while at < len(source) and source[at] != "`":
        at += 2 if source[at] == "\\" else 1
    return min(at, len(source))


class _Lexer:
    """A position in a script, and the word that is being read there."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.word: Word | None = None
        self.tokens: list[Token] = []
        self.documents: list[Redirection] = []  # whose text begins at the next line
        self.begin = 0  # the offset of the word
        self.arithmetic = True  # False after a `((` that nothing closes: a second search is slow

    def script(self) -> list[Token]:
        source = self.source
        while self.at < len(source) and len(self.tokens) < MAX_TOKENS:
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
        if self.word is None:
            self.word = Word()
            self.begin = self.at
        self.word.append((kind, text, quoted))

    def enclosed(self, kind: str, start: int, end: int, *, quoted: bool) -> None:
        """Add the part from `start` to `end`, and skip the closing character after it."""
        self.add(kind, self.source[start:end], quoted=quoted)
        self.at = end + 1

    def end_word(self) -> None:
        if self.word is not None:
            self.word.at, self.word.end = self.begin, self.at
            self.tokens.append(self.word)
            self.word = None

    def part(self) -> bool:
        """Read a part of a word. Return False if there is none here."""
        source, at = self.source, self.at
        char = source[at]
        if char not in SPECIAL:
            if char == "#" and self.word is None:  # a comment
                self.at = _find(source, "\n", at)
                return True
            end = at + 1
            while end < len(source) and source[end] not in SPECIAL:
                end += 1
            self.add(TEXT, source[at:end], quoted=False)
            self.at = end
        elif char == "\\":
            if not source.startswith("\n", at + 1):  # a line that continues
                self.add(TEXT, source[at + 1 : at + 2] or "\\", quoted=True)
            self.at += 2
        elif char == "'":
            self.enclosed(TEXT, at + 1, _find(source, "'", at + 1), quoted=True)
        elif char == '"':
            begin = at if self.word is None else self.begin
            self.at += 1
            self.double_quotes()
            self.begin = begin
        elif char in "$`":
            self.dollar(quoted=False)
        elif char in "<>" and source.startswith("(", at + 1):
            self.enclosed(COMMAND, at + 2, _closing(source, at + 2, ")"), quoted=True)
        else:
            return False
        return True

    def double_quotes(self, *, closed: bool = True) -> None:
        """Read up to the closing quote, or to the end of the source where none is expected."""
        source = self.source
        before = len(self.word or ())
        text = ""
        while self.at < len(source):
            char, following = source[self.at], source[self.at + 1 : self.at + 2]
            if char == '"' and closed:
                break
            if char == "\\" and following and following in '$`"\\\n':
                text += following.strip("\n")
                self.at += 2
            elif char in "$`":
                if text:
                    self.add(TEXT, text, quoted=True)
                text = ""
                self.dollar(quoted=True)
            else:
                end = self.at + 1
                while end < len(source) and source[end] not in '"\\$`':
                    end += 1
                text += source[self.at : end]
                self.at = end
        if text or len(self.word or ()) == before:
            self.add(TEXT, text, quoted=True)
        self.at += 1

    def dollar(self, *, quoted: bool) -> None:
        """Read an expansion, or a command in backquotes."""
        source, at = self.source, self.at
        follows = source[at + 1 : at + 2]
        if source[at] == "`":
            self.enclosed(COMMAND, at + 1, _backquote(source, at + 1), quoted=quoted)
        elif follows == "{":
            end = _closing(source, at + 2, '}"' if quoted else "}")
            self.enclosed(PARAMETER, at + 2, end, quoted=quoted)
        elif follows == "(":
            end = _closing(source, at + 2, ")")
            if source.startswith("(", at + 2) and source[end - 1] == ")" and end > at + 3:
                self.enclosed(ARITHMETIC, at + 3, end - 1, quoted=quoted)
                self.at = end + 1
            else:
                self.enclosed(COMMAND, at + 2, end, quoted=quoted)
        elif follows == "[":  # the old form of `$((..))`
            self.enclosed(ARITHMETIC, at + 2, _find(source, "]", at), quoted=quoted)
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
            if (
                follows != '"' or quoted
            ):  # `$".."` is a translated string; we keep the text as it is
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
                    # sys.argv shows a byte above 127, a part of a character, as a surrogate.
                    wide = char in "uU" or code < 128
                    char = chr(code if wide else 0xDC00 + code % 256) if code < 0x110000 else ""
                    at = end
                elif char not in "'\"\\?":
                    char = ESCAPES.get(char, "\\" + char)
            pieces.append(char)
        self.add(TEXT, "".join(pieces), quoted=True)
        self.at = at + 1

    def array(self) -> bool:
        """Read the rest of `NAME=(..)`. Return False if something else stands here."""
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
        """Read `((..))` as `let`. Return False if something else stands here."""
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
        """Read a redirection, and drop the number before it."""
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
        """Read the longest of `operators` that stands here, or one character."""
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
        """Read an operator. After a newline, read the here-documents that begin there."""
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
                end = _find(source, "\n", last)
                line = source[last:end]
                self.at = end + 1
                if (line.lstrip("\t") if document.operator == "<<-" else line) == delimiter:
                    break
            else:
                last = len(source)
            document.text = source[begin:last]
        self.documents.clear()
