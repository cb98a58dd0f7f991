"""Go through the blocks and lists of a shell script: what is run for sure, and what may not be.

What a script does for sure is followed; what it may or may not do (a branch, a loop, the right
side of `&&`) is followed too, and what it changed is unknown from there on.
"""

from __future__ import annotations

from eplb_launch.command.shell.lexer import NAME, Array, literal
from eplb_launch.command.shell.state import TooMuch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from eplb_launch.command.shell.lexer import Token, Word
    from eplb_launch.command.shell.state import State
    from eplb_launch.model import Server

BLOCKS = 256  # blocks inside blocks
BODIES = 8  # definitions of one function
LOOPS = ("for", "select", "while", "until")
# What ends a compound command, by what begins it.
CLOSERS = {"if": "fi", "case": "esac", "{": "}", **dict.fromkeys(LOOPS, "done")}


class Block:
    """A compound command: `if`, `while`, `{` .."""

    def __init__(self, kind: str, mark: int, begin: int) -> None:
        """Begin a block at the token `begin`, where the journal is at `mark`."""
        self.kind = kind
        self.begin = begin
        self.function = ""  # the name of the function that it is the body of
        self.patterns = kind == "case"  # patterns stand here, not commands
        self.names: dict[str, bool] = {}  # what its branches changed
        self.branch = -1 if kind == "if" else mark  # where the branch begins; -1: not yet
        self.found = -1  # the outermost loop, the first time: the servers found before
        self.outermost = False
        # The list of pipelines that is being followed.
        self.chain = mark  # where it begins
        self.connector = ""  # the last `&&` or `||` in it
        self.doubtful = -1  # where the part of it begins that may not be run
        self.pipe = mark  # where the pipeline begins
        self.piped = False  # it has more than one command


class Blocks:
    """A script that is gone through. A subclass says what a `command` does."""

    def __init__(self, state: State) -> None:
        """Begin with the variables in `state`."""
        self.state = state
        self.found: list[tuple[Server, bool]] = []  # each with whether `exec` starts it
        # Functions, each with the bodies that it may have: tokens, from where, to where.
        self.functions: dict[str, list[tuple[list[Token], int, int]]] = {}
        self.unsure: set[str] = set()  # those of which it is not sure which body, or whether any
        self.tokens: list[Token] = []
        self.at = 0
        self.blocks: list[Block] = []
        self.pending = ""  # the function of which the body comes next
        self.skipping = 0  # inside such bodies, which are followed when they are called
        self.continued = False  # after `&&` and the like a newline ends nothing
        self.sure = False  # the command before succeeded
        self.looped: dict[str, bool] | None = None  # inside a loop: what it changes
        self.maybe = 0  # calls of functions that may not come to pass
        self.depth = 0

    def command(self, words: list[Word | Array]) -> None:
        """Do what a simple command does."""
        raise NotImplementedError

    def walk(self, script: list[Token], begin: int, end: int | None) -> None:
        """Follow tokens, with blocks of their own."""
        outer = self.tokens, self.at, self.blocks, self.pending
        self.tokens, self.at, self.blocks, self.pending = script, begin, [], ""
        self.depth += 1
        self.open("")
        words: list[Word | Array] = []
        end = len(script) if end is None else end
        while self.at < end:
            item = script[self.at]
            if self.blocks[-1].patterns:
                self.pattern(item)
            elif isinstance(item, str):
                if item == "(" and script[self.at + 1 : self.at + 2] == [")"] and len(words) == 1:
                    self.pending = "" if isinstance(words[0], Array) else literal(words[0])
                    self.at += 1
                else:
                    self.command(words)
                    self.operator(item)
                words = []
            elif words or isinstance(item, Array) or not self.reserved(literal(item)):
                words.append(item)
                self.continued = False
            self.at += 1
        self.command(words)
        while self.blocks:
            self.close()
        self.depth -= 1
        self.tokens, self.at, self.blocks, self.pending = outer

    # Blocks

    def open(self, kind: str) -> None:
        """Begin a block."""
        block = Block(kind, self.state.mark(), self.at)
        if self.pending and kind:
            block.function, self.pending = self.pending, ""
            self.skipping += 1
        self.blocks.append(block)
        if len(self.blocks) > BLOCKS:
            raise TooMuch

    def close(self) -> None:
        """End a block."""
        self.end_list()
        block = self.blocks.pop()
        state = self.state
        if block.kind == "(":
            state.restore(block.branch)
        elif block.kind in ("if", "case"):
            self.end_branch(block)
            state.doubt(block.names)
        elif block.kind in LOOPS:
            state.forget(block.branch)
            if block.outermost:
                self.looped = None
        if block.function:
            self.skipping -= 1
            if not self.skipping:
                self.define(block)
        self.sure = bool(block.function)

    def define(self, block: Block) -> None:
        """Keep the body of a function that ends here."""
        name, tokens = block.function, self.tokens
        bodies = self.functions.setdefault(name, [])
        if self.certain():
            bodies.clear()
            self.unsure.discard(name)
        else:
            self.unsure.add(name)
        if not any(body[0] is tokens and body[1] == block.begin for body in bodies):
            bodies.append((tokens, block.begin, self.at + 1))
        if len(bodies) > BODIES:
            raise TooMuch

    def end_branch(self, block: Block) -> None:
        """Take back what a branch did, and keep in mind what that was."""
        if block.branch >= 0:
            for name, exported in self.state.changed(block.branch).items():
                block.names[name] = block.names.get(name, False) or exported
            self.state.restore(block.branch)
        block.branch = block.chain = block.pipe = self.state.mark()

    def reserved(self, word: str) -> bool:
        """Go over a word where a command could begin; False if it is no reserved word."""
        block = self.blocks[-1]
        if word in LOOPS:
            self.loop(word)
        elif word in CLOSERS:
            self.open(word)
            if word == "case":
                self.skip_to("in")
        elif word in ("then", "elif", "else", "do"):
            self.end_list()
            if block.kind == "if" and (word != "then" or block.branch < 0):
                self.end_branch(block)
        elif word in ("fi", "esac", "done", "}"):
            if CLOSERS.get(block.kind) == word and not self.repeat(block):
                self.close()
        elif word == "[[":
            self.skip_to("]]")
            self.sure = False
        elif word == "function":
            self.at += 1
            name = self.tokens[self.at : self.at + 1]
            self.pending = literal(name[0]) if name and isinstance(name[0], list) else ""
            self.at += 2 * (self.tokens[self.at + 1 : self.at + 3] == ["(", ")"])
        else:
            return word in ("!", "coproc")
        self.continued = word not in ("fi", "esac", "done", "}", "[[")
        return True

    def skip_to(self, word: str) -> None:
        """Go to the next place where `word` stands."""
        while self.at < len(self.tokens):
            item = self.tokens[self.at]
            if isinstance(item, list) and literal(item) == word:
                break
            self.at += 1

    def pattern(self, item: Token) -> None:
        """Go over a part of the patterns of `case`."""
        if item == ")":
            self.blocks[-1].patterns = False
        elif isinstance(item, list) and literal(item) == "esac":
            self.close()

    def loop(self, word: str) -> None:
        """Begin a loop, with all unknown that it changes."""
        self.open(word)
        block = self.blocks[-1]
        if self.skipping:
            return
        if self.looped is None:
            # Followed twice: the first time to see what it changes.
            self.looped = {}
            block.outermost = True
            block.found = len(self.found)
        else:
            self.state.doubt(self.looped)
        if word in ("for", "select"):
            first, second = (*self.tokens[self.at + 1 : self.at + 3], "", "")[:2]
            names = literal(first) if isinstance(first, list) else ""
            if names == "let" and isinstance(second, list) and second:  # for ((..))
                names = second[0][1]
            self.state.doubt(dict.fromkeys(_names(names), False))
            self.skip_to("do")
            block.begin = self.at

    def repeat(self, block: Block) -> bool:
        """At the end of a loop, go back to its beginning if this was the first time."""
        if block.found < 0 or self.skipping:
            return False
        self.end_list()
        del self.found[block.found :]
        block.found = -1
        self.looped = self.state.changed(block.branch)
        self.state.restore(block.branch)
        self.state.doubt(self.looped)
        self.at = block.begin
        return True

    # Lists and pipelines

    def operator(self, operator: str) -> None:
        """Go over an operator."""
        block = self.blocks[-1]
        if operator in ("|", "|&"):
            block.piped = True
        elif operator in ("&&", "||"):
            self.end_pipeline(block)
            if block.doubtful >= 0 and "||" in (operator, block.connector):
                self.state.forget(block.doubtful)
                block.doubtful = self.state.mark()
            elif block.doubtful < 0 and not (operator == "&&" and self.sure):
                block.doubtful = self.state.mark()
            block.connector = operator
            block.pipe = self.state.mark()
        elif operator == "(":
            self.open("(")
        elif operator == ")":
            if block.kind == "(":
                self.close()
        elif operator != "\n" or not self.continued:
            self.end_list(operator)
            if operator in (";;", ";&", ";;&") and block.kind == "case":
                self.end_branch(block)
                block.patterns = True
        self.continued = operator in ("&&", "||", "|", "|&", "(") or (
            operator == "\n" and self.continued
        )

    def end_pipeline(self, block: Block) -> None:
        """End a pipeline; what a command does in one of several has no effect on this shell."""
        if block.piped:
            self.state.forget(block.pipe)
            block.piped = self.sure = False

    def end_list(self, operator: str = ";") -> None:
        """End a list of pipelines."""
        block = self.blocks[-1]
        self.end_pipeline(block)
        if operator == "&":
            self.state.forget(block.chain)
        elif block.doubtful >= 0:
            self.state.forget(block.doubtful)
        block.doubtful = -1
        block.connector = ""
        block.chain = block.pipe = self.state.mark()

    def certain(self) -> bool:
        """Whether what stands here is run for sure, and by this very shell."""
        return not self.maybe and all(
            block.kind in ("", "{") and block.doubtful < 0 and not block.piped
            for block in self.blocks
        )


def _names(text: str) -> list[str]:
    """Return what may be the names of variables in a text."""
    return "".join([char if char in NAME else " " for char in text]).split()
