"""Text to syntax tree by precedence climbing; it evaluates nothing and its work is bounded by the text's length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Never

from optaic.expression.errors import ExpressionError, Reason, suggest
from optaic.expression.lexer import Kind, Token, tokenize
from optaic.expression.operators import OPERATORS
from optaic.expression.signature import Parameter, Signature
from optaic.expression.tree import Binary, Call, Column, Expression, Negate, Node, Number, children

MAX_LENGTH = 10_000  # characters
MAX_NODES = 1_000
MAX_DEPTH = 100  # levels of the tree, and of nesting in the text; well below Python's recursion limit

_COMPARISON = 1
_BINDING = {
    "<": _COMPARISON,
    "<=": _COMPARISON,
    ">": _COMPARISON,
    ">=": _COMPARISON,
    "==": _COMPARISON,
    "!=": _COMPARISON,
    "+": 2,
    "-": 2,
    "*": 3,
    "/": 3,
    "^": 5,
}
_NEGATION = 4  # -x^2 is -(x^2), -x*y is (-x)*y
_POWER = 5


def parse(text: str, operators: Mapping[str, Signature] = OPERATORS) -> Expression:
    """The tree of an expression.

    Args:
        text: for example `ZSCORE(REF(close, 21) / REF(close, 252) - 1)`.
        operators: what may be called, by upper-case name.

    Raises:
        ExpressionError: with the position of the first mistake.
    """
    if len(text) > MAX_LENGTH:
        message = f"an expression has at most {MAX_LENGTH} characters, this one {len(text)}"
        raise ExpressionError(Reason.TOO_LONG, message, MAX_LENGTH, text)
    return Expression(_Parser(text, operators).parse(), text)


class _Parser:
    """One pass over one text's tokens."""

    def __init__(self, text: str, operators: Mapping[str, Signature]) -> None:
        self._text = text
        self._operators = operators
        self._tokens = tokenize(text)
        self._next = 0
        self._nesting = 0
        self._nodes = 0
        self._depths: dict[int, int] = {}  # id of a node of this pass -> levels below and including it

    def parse(self) -> Node:
        if self._peek().kind is Kind.END:
            self._fail(Reason.EMPTY, "the expression is empty", self._peek())
        root = self._expression(0)
        token = self._peek()
        if token.kind is not Kind.END:
            self._fail(Reason.UNEXPECTED_TOKEN, f"unexpected {token.describe()} after the expression", token)
        return root

    def _expression(self, weakest: int) -> Node:
        self._nesting += 1
        if self._nesting > MAX_DEPTH:
            self._fail(Reason.TOO_DEEP, f"nested more than {MAX_DEPTH} levels deep", self._peek())
        left = self._operand()
        while (binding := self._binding()) > weakest:
            token = self._take()
            right = self._expression(binding - 1 if binding == _POWER else binding)
            left = self._keep(Binary(token.text, left, right, token.position), token)
            if binding == _COMPARISON and self._binding() == _COMPARISON:
                message = "comparisons do not chain: multiply two of them, (a < b) * (b < c)"
                self._fail(Reason.UNEXPECTED_TOKEN, message, self._peek())
        self._nesting -= 1
        return left

    def _binding(self) -> int:
        token = self._peek()
        return _BINDING.get(token.text, 0) if token.kind is Kind.SYMBOL else 0

    def _operand(self) -> Node:
        token = self._take()
        if token.kind is Kind.NUMBER:
            return self._keep(Number(token.value, token.position), token)
        if token.kind is Kind.NAME:
            return self._call(token) if self._peek().text == "(" else self._column(token)
        if token.text == "(":
            inner = self._expression(0)
            self._expect(")", "to close the parenthesis")
            return inner
        if token.text != "-":
            is_power = token.text == "*" and self._tokens[self._next - 2].text == "*"
            hint = "; a power is written ^" if is_power else ""
            self._unexpected(token, f"a number, a column, an operator or '('{hint}")
        return self._keep(Negate(self._expression(_NEGATION), token.position), token)

    def _column(self, token: Token) -> Node:
        if token.text != token.text.lower():
            if token.text.upper() in self._operators:
                usage = self._operators[token.text.upper()].usage
                self._fail(
                    Reason.WRONG_ARGUMENT_COUNT, f"operator {token.text} needs arguments: {usage}", token
                )
            self._fail(Reason.INVALID_NAME, f"column names are lower case: {token.text.lower()!r}", token)
        return self._keep(Column(token.text, token.position), token)

    def _call(self, token: Token) -> Node:
        signature = self._operators.get(token.text.upper())
        if signature is None:
            message = f"unknown operator {token.text!r}: {suggest(token.text, self._operators)}"
            self._fail(Reason.UNKNOWN_OPERATOR, message, token)
        self._take()  # the parenthesis
        values: list[Node] = []
        parameters: list[float] = []
        while self._peek().text != ")":
            if values or parameters:
                self._expect(",", f"or ')' in {signature.usage}")
            count = len(values) + len(parameters)
            if count < signature.values:
                values.append(self._expression(0))
            elif count < signature.most:
                parameters.append(self._parameter(signature, signature.parameters[len(parameters)]))
            else:
                self._fail(
                    Reason.WRONG_ARGUMENT_COUNT, f"too many arguments: {signature.usage}", self._peek()
                )
        count = len(values) + len(parameters)
        if count < signature.fewest:
            message = f"{signature.usage} needs {signature.fewest} arguments, {count} given"
            self._fail(Reason.WRONG_ARGUMENT_COUNT, message, self._peek())
        self._take()
        for parameter in signature.parameters[len(parameters) :]:
            assert parameter.default is not None
            parameters.append(parameter.default)
        return self._keep(Call(signature, tuple(values), tuple(parameters), token.position), token)

    def _parameter(self, signature: Signature, parameter: Parameter) -> float:
        """A literal, since what an operator looks back on must be known without data."""
        first = self._take()
        sign = 1.0
        token = first
        if first.text == "-":
            sign, token = -1.0, self._take()
        if token.kind is not Kind.NUMBER:
            if token.kind is Kind.END:
                self._unexpected(token, "a number")
            self._fail(
                Reason.WRONG_ARGUMENT, f"{parameter.name} of {signature.usage} must be a number", token
            )
        if self._peek().text not in {",", ")"} and self._peek().kind is not Kind.END:
            message = f"{parameter.name} of {signature.usage} must be a plain number"
            self._fail(Reason.WRONG_ARGUMENT, message, self._peek())
        if refusal := parameter.refuse(sign * token.value):
            self._fail(Reason.WRONG_ARGUMENT, f"{parameter.name} of {signature.usage} {refusal}", first)
        return sign * token.value

    def _keep(self, node: Node, token: Token) -> Node:
        """Count a finished node. Prevents trees that a recursive walk, a hash or a repr could not survive."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._fail(Reason.TOO_COMPLEX, f"more than {MAX_NODES} operations and operands", token)
        depth = 1 + max((self._depths[id(child)] for child in children(node)), default=0)
        if depth > MAX_DEPTH:
            self._fail(Reason.TOO_DEEP, f"more than {MAX_DEPTH} levels of operations", token)
        self._depths[id(node)] = depth
        return node

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _expect(self, symbol: str, purpose: str) -> None:
        token = self._take()
        if token.kind is not Kind.SYMBOL or token.text != symbol:
            self._unexpected(token, f"{symbol!r} {purpose}")

    def _unexpected(self, token: Token, wanted: str) -> Never:
        reason = Reason.UNEXPECTED_END if token.kind is Kind.END else Reason.UNEXPECTED_TOKEN
        self._fail(reason, f"expected {wanted}, found {token.describe()}", token)

    def _fail(self, reason: Reason, message: str, token: Token) -> Never:
        raise ExpressionError(reason, message, token.position, self._text)
