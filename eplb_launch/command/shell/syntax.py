"""The syntax tree of a shell script. Whatever the text is, there is a tree, and nothing raises."""

from __future__ import annotations

from eplb_launch.command.shell.lexer import MOST, NAME, Array, Redirection, Word, literal, tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from typing_extensions import Self

    from eplb_launch.command.shell.lexer import Token

    Item: TypeAlias = Word | Array

DEPTH = 60  # compound commands inside compound commands
LOOPS = ("for", "select", "while", "until")
# What ends a compound command, or a part of one, by what begins it.
CLOSERS = {
    "if": ("then",),
    "then": ("elif", "else", "fi"),
    "elif": ("then",),
    "else": ("fi",),
    "do": ("done",),
    "{": ("}",),
    "(": (")",),
    "arm": (";;", ";&", ";;&", "esac"),
    "": (),
}
ENDS = frozenset(("then", "elif", "else", "fi", "do", "done", "}", "esac"))
PASSED = ("!", "coproc")
_KEPT = 1 << 20  # characters of scripts whose trees are kept


class Place(int):
    """Where a word stands: its position in the command, and in the text of a script."""

    offset: int
    end: int
    exact: bool  # what is inside of it has its place there too

    def __new__(cls, position: int, offset: int, end: int, *, exact: bool = False) -> Self:
        """Take all three."""
        place = super().__new__(cls, position)
        place.offset, place.end, place.exact = offset, end, exact
        return place


class Node:
    """A command: simple, compound or a list of commands.

    `kind` says which, and what is in the other fields:
    - simple: the words and assignments in `items`
    - list: `parts`, each with the operator behind it in `operators`
    - pipe: `parts`
    - if: `parts`: a condition and what follows it, in turn; at last what else is done
    - case: the subject in `items`, what each pattern leads to in `parts`, `every`: one always fits
    - for: the variables in `names`, the words in `items`; `every`: they are "$@"
    - while: a condition and the body in `parts`; `names`: what else the loop changes
    - function: its name in `names`, its body in `parts`
    - ( and {: `parts`, of which there is one, but for `[[ .. ]]`
    - deep: nothing; the text from `at` on is too much, or too deep inside of each other, to be read
    """

    __slots__ = ("at", "every", "items", "kind", "names", "operators", "parts", "redirections")

    def __init__(self, kind: str, at: int = 0) -> None:
        """Begin with nothing in it."""
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
    """Return the list of commands that a script is. Nobody changes a tree: it is kept."""
    tree = _trees.get(script)
    if tree is None:
        found = tokens(script)
        tree = _Parser(found).list("")
        if len(found) >= MOST:
            last = [token.at for token in found[-8:] if not isinstance(token, str)]
            tree.parts.append(Node("deep", last[-1] if last else 0))
            tree.operators.append(";")
        if sum(map(len, _trees)) + len(script) > _KEPT:
            _trees.clear()
        _trees[script] = tree
    return tree


class _Parser:
    """A place among the tokens."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.open: list[str] = []  # what would end the compound commands around this place

    def word(self, ahead: int = 0) -> str:
        """Return the text of a word that may be a reserved one, or the operator; "" for others."""
        if self.at + ahead >= len(self.tokens):
            return ""
        token = self.tokens[self.at + ahead]
        if isinstance(token, str):
            return token
        return literal(token) if isinstance(token, Word) else ""

    def take(self, word: str) -> bool:
        """Go over a word or operator, if it stands here."""
        found = self.word() == word
        self.at += found
        return found

    def blanks(self) -> None:
        """Go over what stands between commands, or before one."""
        while self.word() in ("\n", ";"):
            self.at += 1

    def list(self, kind: str) -> Node:
        """Return the commands up to what ends this `kind` of list, or one around it."""
        closers = CLOSERS[kind]
        found = Node("list", self.place())
        self.open += closers
        while self.at < len(self.tokens):
            word = self.word()
            if word in closers:
                break
            if word in ENDS or word in (")", ";;", ";&", ";;&"):
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

    def place(self) -> int:
        """Return where in the text the next token stands, as far as that is known."""
        for token in self.tokens[self.at : self.at + 8]:
            if not isinstance(token, str):
                return token.at
        return 0

    def pipeline(self) -> Node:
        """Return a command, or several that are connected."""
        first = self.command()
        if self.word() not in ("|", "|&"):
            return first
        found = Node("pipe", first.at)
        found.parts.append(first)
        while self.word() in ("|", "|&"):
            self.at += 1
            while self.word() == "\n":
                self.at += 1
            if self.at < len(self.tokens) and not self.stops():
                found.parts.append(self.command())
        return found

    def stops(self) -> bool:
        """Whether no command can begin here."""
        return isinstance(self.tokens[self.at], str) and self.word() != "("

    def command(self) -> Node:
        """Return a command."""
        while self.word() in PASSED:
            self.at += 1
        if self.word() == "time" and self.compound(self.word(1 + (self.word(1) == "-p"))):
            self.at += 1 + (self.word(1) == "-p")
        word = self.word()
        at = self.place()
        self.depth += 1
        if self.depth > DEPTH:
            self.at = len(self.tokens)
            return Node("deep", at)
        found = self.compound_command(word) if self.compound(word) else self.simple()
        self.depth -= 1
        found.at = at
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if not isinstance(token, Redirection):
                break
            found.redirections.append(token)
            self.at += 1
        return found

    def compound(self, word: str) -> bool:
        """Whether a word begins a compound command."""
        return word in LOOPS or word in ("if", "case", "{", "(", "function", "[[")

    def compound_command(self, word: str) -> Node:
        """Return a compound command, which `word` begins."""
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
                self.at += 1
        else:
            found = self.loop(word)
        return found

    def if_command(self) -> Node:
        """Return the rest of `if`."""
        found = Node("if")
        found.parts.append(self.list("if"))
        while self.take("then"):
            found.parts.append(self.list("then"))
            if self.take("elif"):
                found.parts.append(self.list("elif"))
            elif self.take("else"):
                found.parts.append(self.list("else"))
        self.take("fi")
        return found

    def case_command(self) -> Node:
        """Return the rest of `case`."""
        found = Node("case")
        while self.at < len(self.tokens) and not self.take("in"):
            token = self.tokens[self.at]
            if isinstance(token, Word):
                found.items.append(token)
            self.at += 1
        while self.at < len(self.tokens):
            self.blanks()
            if self.take("esac"):
                break
            while self.at < len(self.tokens) and not self.take(")"):
                found.every = found.every or self.word() == "*"
                self.at += 1
            found.parts.append(self.list("arm"))
            if not any(map(self.take, (";;", ";&", ";;&"))) and self.word() != "esac":
                break
        return found

    def loop(self, word: str) -> Node:
        """Return the rest of a loop."""
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
                self.blanks()
                found.every = not self.take("in")
                self.words(found)
            self.blanks()
        else:
            found.parts.append(self.condition())
        if self.take("do"):
            found.parts.append(self.list("do"))
            self.take("done")
        return found

    def condition(self) -> Node:
        """Return the condition of a loop."""
        self.open.append("do")
        found = self.list("")
        self.open.pop()
        return found

    def words(self, found: Node) -> None:
        """Take the words up to the end of the line."""
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
        """Return the rest of the definition of a function."""
        found = Node("function")
        found.names = [name]
        self.at += 1
        if self.word() == "(" and self.word(1) == ")":
            self.at += 2
        self.blanks()
        if self.at < len(self.tokens) and not self.stops():
            found.parts.append(self.command())
        return found

    def simple(self) -> Node:
        """Return a simple command; the definition of a function, if it is one."""
        found = Node("simple")
        self.words(found)
        first = found.items[0] if len(found.items) == 1 else None
        if isinstance(first, Word) and self.word() == "(" and self.word(1) == ")":
            self.at -= 1
            return self.function(literal(first))
        return found


def names_in(text: str) -> list[str]:
    """Return what may be the names of variables in a text."""
    return "".join([char if char in NAME else " " for char in text]).split()
