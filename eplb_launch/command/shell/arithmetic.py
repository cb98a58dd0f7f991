"""Compute simple expressions in `$((..))`, such as `$((GROUP * 8))`."""

from __future__ import annotations

from eplb_launch.command.shell.lexer import DIGITS, NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 2**63
MAX_LENGTH = 1000
MAX_DEPTH = 40
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2}


def compute(expression: str, value: Callable[[str], object]) -> str | None:
    """Return the value of an expression, None if it is not known.

    We compute decimal numbers, variables whose `value` is one, + - * / % and parentheses.
    """
    if len(expression) > MAX_LENGTH:
        return None
    try:
        rest = _tokens(expression, value)[::-1]
        result = _compute(rest, 1, 0)
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    return None if rest else str(result)


def _tokens(expression: str, value: Callable[[str], object]) -> list[str | int]:
    """Return the numbers and operators, with the values of variables, or raise ValueError."""
    tokens: list[str | int] = []
    at = 0
    while at < len(expression):
        char = expression[at]
        braces = expression.startswith("${", at)
        start = at + (2 if braces else char == "$")
        end = start
        while end < len(expression) and expression[end] in NAME:
            end += 1
        word = expression[start:end]
        if word:
            tokens.append(_number(word if char in DIGITS else value(word)))
            if braces and expression[end : end + 1] != "}":
                raise ValueError(expression)
            at = end + braces
        elif char in "+-*/%()":
            tokens.append(char)
            at += 1
        elif char in " \t\n":
            at += 1
        else:
            raise ValueError(char)
    return tokens


def _compute(rest: list[str | int], precedence: int, depth: int) -> int:
    """Compute operators of this precedence or higher; `rest` has the next token at its end."""
    first = rest.pop()
    if depth > MAX_DEPTH:
        raise ValueError(first)
    if isinstance(first, int):
        number = first
    elif first == "(":
        number = _compute(rest, 1, depth + 1)
        if rest.pop() != ")":
            raise ValueError(first)
    elif first in ("+", "-"):
        number = _compute(rest, 3, depth + 1) * (-1 if first == "-" else 1)
    else:
        raise ValueError(first)
    while rest and PRECEDENCE.get(str(rest[-1]), 0) >= precedence:
        operator = str(rest.pop())
        other = _compute(rest, PRECEDENCE[operator] + 1, depth + 1)
        number = _apply(operator, number, other)
        if not -LIMIT <= number < LIMIT:
            raise ValueError(number)
    return number


def _apply(operator: str, one: int, other: int) -> int:
    if operator in "+-":
        return one + (other if operator == "+" else -other)
    if operator == "*":
        return one * other
    quotient = (
        abs(one) // abs(other) * (1 if (one < 0) == (other < 0) else -1)
    )  # truncated, as in C
    return quotient if operator == "/" else one - quotient * other


def _number(text: object) -> int:
    """Return a decimal number, or raise ValueError: `010` is octal."""
    digits = text.removeprefix("-") if isinstance(text, str) else ""
    decimal = DIGITS.issuperset(digits) and 0 < len(digits) < 19
    if not decimal or (digits[0] == "0" and digits != "0"):
        raise ValueError(text)
    return int(str(text))
