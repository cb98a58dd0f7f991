"""Compute simple expressions in `$((..))`, such as `$((GROUP * 8))`."""

from __future__ import annotations

from eplb_launch.command.shell.lexer import DIGITS, NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 2**63
MAX_LENGTH = 1000
MAX_DEPTH = 20


def compute(expression: str, value: Callable[[str], object]) -> str | None:
    """Return the value of an expression, None if it is not known.

    We compute decimal numbers, variables whose `value` is one, + - * / % and parentheses.
    """
    if len(expression) > MAX_LENGTH:
        return None
    try:
        sum_ = _Sum(expression, value)
        result = sum_.terms(0)
    except (ValueError, ZeroDivisionError):
        return None
    return str(result) if sum_.at == len(sum_.tokens) else None


class _Sum:
    """An expression, and a position in it."""

    def __init__(self, expression: str, value: Callable[[str], object]) -> None:
        """Split the expression into tokens, or raise ValueError."""
        self.at = 0
        self.tokens: list[str | int] = []
        i = 0
        while i < len(expression):
            char = expression[i]
            start = i + 1 if char == "$" else i
            braces = char == "$" and expression.startswith("{", start)
            start += braces
            i = start
            while i < len(expression) and expression[i] in NAME:
                i += 1
            word = expression[start:i]
            if word:
                number = char in DIGITS
                self.tokens.append(_number(word if number else value(word)))
                if braces and expression[i : i + 1] != "}":
                    raise ValueError(expression)
                i += braces
            elif char in "+-*/%()":
                self.tokens.append(char)
                i += 1
            elif char in " \t\n":
                i += 1
            else:
                raise ValueError(char)

    def next(self) -> str | int:
        """Read a token; "" at the end."""
        self.at += 1
        return self.tokens[self.at - 1] if self.at <= len(self.tokens) else ""

    def terms(self, depth: int) -> int:
        total = self.factors(depth)
        while self.at < len(self.tokens) and self.tokens[self.at] in ("+", "-"):
            sign = self.next()
            term = self.factors(depth)
            total = _checked(total + term if sign == "+" else total - term)
        return total

    def factors(self, depth: int) -> int:
        product = self.factor(depth)
        while self.at < len(self.tokens) and self.tokens[self.at] in ("*", "/", "%"):
            operator = self.next()
            factor = self.factor(depth)
            if operator == "*":
                product = _checked(product * factor)
                continue
            quotient = abs(product) // abs(factor)  # truncated towards zero, as in C
            if (product < 0) != (factor < 0):
                quotient = -quotient
            product = quotient if operator == "/" else product - quotient * factor
        return product

    def factor(self, depth: int) -> int:
        word = self.next()
        if isinstance(word, int):
            return word
        if depth < MAX_DEPTH and word in ("+", "-"):
            factor = self.factor(depth + 1)
            return -factor if word == "-" else factor
        if depth < MAX_DEPTH and word == "(":
            total = self.terms(depth + 1)
            if self.next() == ")":
                return total
        raise ValueError(word)


def _number(text: object) -> int:
    """Return a decimal number, or raise ValueError: `010` is octal."""
    if not isinstance(text, str):
        raise ValueError  # noqa: TRY004
    digits = text.removeprefix("-")
    plain = DIGITS.issuperset(digits) and 0 < len(digits) < 19
    if not plain or (digits[0] == "0" and digits != "0"):
        raise ValueError(text)
    return int(text)


def _checked(number: int) -> int:
    """Return a number of 64 bits, or raise ValueError."""
    if not -LIMIT <= number < LIMIT:
        raise ValueError(number)
    return number
