"""Parse a shell script into a syntax tree. Any text has a tree: nothing raises."""

from __future__ import annotations

from eplb_launch.command.shell.lexer import (
    MAX_TOKENS,
    NAME,
    Array,
    Redirection,
    Word,
    literal,
    tokens,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from typing_extensions import Self

    from eplb_launch.command.shell.lexer import Token

    Item: TypeAlias = Word | Array

MAX_DEPTH = 60  # of compound commands
LOOPS = ("for", "select", "while", "until")
# The words that end a list of commands, by the word that begins it.
CLOSERS = {
    "if": ("then",),
    "then": ("elif", "else", "fi"),
    "elif": ("then",),
    "else": ("fi",),
    "while": ("do",),
    "do": ("done",),
    "{": ("}",),
    "(": (")",),
    "arm": (";;", ";&", ";;&", "esac"),
    "": (),
}
ENDS = frozenset(("then", "elif", "else", "fi", "do", "done", "}", "esac"))
CASE_ENDS = (";;", ";&", ";;&")
PREFIXES = ("!", "coproc")
_CACHED = 1 << 20  # characters of scripts


class Place(int):
    """The position of a word in the command, and its offsets in the text of a script."""

    offset: int
    end: int
    exact: bool  # the word is itself a script, and its words have offsets in the same text

    def __new__(cls, position: int, offset: int, end: int, *, exact: bool = False) -> Self:
        place = super().__new__(cls, position)
        place.offset, place.end, place.exact = offset, end, exact
        return place


class Node:
    """A command: simple, compound or a list. The fields that are used depend on its `kind`.

    - simple: the words and assignments in `items`
    - list: `parts`, and in `operators` the operator after each part
    - pipe: `parts`
    - if: `parts`: conditions and bodies in turn, then the body of `else`
    - case: the subject in `items`, the bodies in `parts`; `every`: some pattern always matches
    - for: the variable in `names`, the words in `items`, the body in `parts`; `every`: over "$@"
    - while: a condition and the body in `parts`; for `for ((..))` its variables in `names`
    - function: its name in `names`, its body in `parts`
    - ( and {: one part, but none for `[[ .. ]]`
    - deep: nothing; from the offset `at` on, the script is too long or too deep to parse
    """

    __slots__ = ("at", "every", "items", "kind", "names", "operators", "parts", "redirections")

    def __init__(self, kind: str, at: int = 0) -> None:
        self.kind = kind
        self.at = at
        self.items: list[Item] = []
        self.names: list[str] = []
        self.parts: list[Node] = []
        self.operators: list[str] = []
        self.redirections: list[Redirection] = []
        self.every = False


_trees: dict[str, Node] = {}


def parse(script: str) -> Node:
    """Return the list of commands in a script. Trees are cached: do not change them."""
    tree = _trees.get(script)
    if tree is None:
        found = tokens(script)
        tree = _Parser(found).list("")
        if len(found) >= MAX_TOKENS:
            last = [token.at for token in found[-8:] if not isinstance(token, str)]
            tree.parts.append(Node("deep", last[-1] if last else 0))
            tree.operators.append(";")
        if sum(map(len, _trees)) + len(script) > _CACHED:
            _trees.clear()
        _trees[script] = tree
    return tree


class _Parser:
    """A position among the tokens."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.open: list[str] = []  # the words that would end the lists around this position

    def word(self, ahead: int = 0) -> str:
        """Return the operator, or the text of a word without quotes, else ""."""
        if self.at + ahead >= len(self.tokens):
            return ""
        token = self.tokens[self.at + ahead]
        if isinstance(token, str):
            return token
        return literal(token) if isinstance(token, Word) else ""

    def take(self, word: str) -> bool:
        """Skip a word or operator, if it stands here."""
        found = self.word() == word
        self.at += found
        return found

    def separators(self) -> None:
        while self.word() in ("\n", ";"):
            self.at += 1

    def list(self, kind: str) -> Node:
        """Parse the commands up to a word that ends this `kind` of list, or a list around it."""
        closers = CLOSERS[kind]
        found = Node("list", self.offset())
        self.open += closers
        while self.at < len(self.tokens):
            word = self.word()
            if word in closers:
                break
            if word in ENDS or word in (")", *CASE_ENDS):
                if word in self.open:
                    break
                self.at += 1  # it closes nothing
                continue
            if isinstance(self.tokens[self.at], str) and word != "(":
                self.at += 1
                continue
            found.parts.append(self.pipeline())
            operator = self.word() if self.at < len(self.tokens) else ""
            ends = operator in (";", "&", "\n", "&&", "||")
            found.operators.append(operator if ends else ";")
            self.at += ends
        del self.open[len(self.open) - len(closers) :]
        return found

    def offset(self) -> int:
        """Return the offset of the next token, or 0."""
        for token in self.tokens[self.at : self.at + 8]:
            if not isinstance(token, str):
                return token.at
        return 0

    def pipeline(self) -> Node:
        first = self.command()
        if self.word() not in ("|", "|&"):
            return first
        found = Node("pipe", first.at)
        found.parts.append(first)
        while self.word() in ("|", "|&"):
            self.at += 1
            while self.word() == "\n":
                self.at += 1
            if self.starts():
                found.parts.append(self.command())
        return found

    def starts(self) -> bool:
        """Whether a command can start here."""
        if self.at >= len(self.tokens):
            return False
        return not isinstance(self.tokens[self.at], str) or self.word() == "("

    def command(self) -> Node:
        while self.word() in PREFIXES:
            self.at += 1
        if self.word() == "time" and self.is_compound(self.word(1 + (self.word(1) == "-p"))):
            self.at += 1 + (self.word(1) == "-p")
        word = self.word()
        at = self.offset()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.at = len(self.tokens)
            return Node("deep", at)
        found = self.compound_command(word) if self.is_compound(word) else self.simple()
        self.depth -= 1
        found.at = at
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if not isinstance(token, Redirection):
                break
            found.redirections.append(token)
            self.at += 1
        return found

    def is_compound(self, word: str) -> bool:
        return word in LOOPS or word in ("if", "case", "{", "(", "function", "[[")

    def compound_command(self, word: str) -> Node:
        self.at += 1
        if word in ("{", "("):
            found = Node(word)
            found.parts.append(self.list(word))
            self.take(CLOSERS[word][0])
        elif word == "if":
            found = self.if_command()
        elif word == "case":
            found = self.case_command()
        elif word == "function":
            found = self.function(self.word())
        elif word == "[[":
            found = Node("(")
            while self.at < len(self.tokens) and not self.take("]]"):
                token = self.tokens[self.at]
                if isinstance(token, Word):
                    found.items.append(token)
                self.at += 1
        else:
            found = self.loop(word)
        return found

    def if_command(self) -> Node:
        found = Node("if")
        word = "if"
        while word in ("if", "then", "elif", "else"):
            found.parts.append(self.list(word))
            word = next(filter(self.take, CLOSERS[word]), "")
        return found

    def case_command(self) -> Node:
        found = Node("case")
        while self.at < len(self.tokens) and not self.take("in"):
            token = self.tokens[self.at]
            if isinstance(token, Word):
                found.items.append(token)
            self.at += 1
        while self.at < len(self.tokens):
            self.separators()
            if self.take("esac"):
                break
            while self.at < len(self.tokens) and not self.take(")"):
                found.every = found.every or self.word() == "*"
                self.at += 1
            found.parts.append(self.list("arm"))
            if not any(map(self.take, CASE_ENDS)) and self.word() != "esac":
                break
        return found

    def loop(self, word: str) -> Node:
        found = Node("while")
        if word in ("for", "select"):
            name = self.word()
            self.at += 1
            if name == "let":  # for ((..))
                token = self.tokens[self.at] if self.at < len(self.tokens) else ""
                text = "".join([text for _, text, _ in token]) if isinstance(token, Word) else ""
                found.names = names_in(text)
                self.at += 1
            else:
                found = Node("for")
                found.names = [name]
                self.separators()
                found.every = not self.take("in")
                self.words(found)
            self.separators()
        else:
            found.parts.append(self.list("while"))
        if self.take("do"):
            found.parts.append(self.list("do"))
            self.take("done")
        return found

    def words(self, found: Node) -> None:
        """Take the words and redirections up to the next operator."""
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if isinstance(token, str):
                break
            if isinstance(token, Redirection):
                found.redirections.append(token)
            else:
                found.items.append(token)
            self.at += 1

    def function(self, name: str) -> Node:
        found = Node("function")
        found.names = [name]
        self.at += 1
        if self.word() == "(" and self.word(1) == ")":
            self.at += 2
        self.separators()
        if self.starts():
            found.parts.append(self.command())
        return found

    def simple(self) -> Node:
        """Parse a simple command, or the definition `NAME()` of a function."""
        found = Node("simple")
        self.words(found)
        first = found.items[0] if len(found.items) == 1 else None
        if isinstance(first, Word) and self.word() == "(" and self.word(1) == ")":
            self.at -= 1
            return self.function(literal(first))
        return found


def names_in(text: str) -> list[str]:
    """Return the words in a text that can be names of variables."""
    return "".join([char if char in NAME else " " for char in text]).split()
