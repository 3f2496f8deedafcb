"""Text to syntax tree by precedence climbing, macros expanded; it evaluates nothing and its work is bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Never

from optaic.expression.arguments import Arguments
from optaic.expression.errors import ExpressionError, Reason, suggest
from optaic.expression.lexer import Kind, Token, tokenize
from optaic.expression.macros import Macro
from optaic.expression.names import read_parts, spell
from optaic.expression.operators import FIRST_OPERATORS, NAMES_ELSEWHERE, OPERATORS
from optaic.expression.signature import GROUP, Parameter, Signature
from optaic.expression.tree import Binary, Call, Column, Expression, Negate, Node, Number, Text, children

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


_NO_NUMBER = "the text '{}' is no number; compare a column with it: sector == 'Energy' or sector != 'Energy'"
_NO_MACROS: Mapping[str, Macro] = MappingProxyType({})


def parse(
    text: str, operators: Mapping[str, Signature] = OPERATORS, macros: Mapping[str, Macro] = _NO_MACROS
) -> Expression:
    """Parse an expression; a call of a macro is replaced by the expression of the macro.

    Args:
        text: for example `ZSCORE(REF(close, 21) / REF(close, 252) - 1)`.
        operators: what may be called, by upper-case name.
        macros: what may be called besides, by upper-case name.

    Raises:
        ExpressionError: with the position of the first mistake; one inside a macro is where the macro is called.
    """
    _check_length(text)
    root = _Parser(text, tokenize(text), _Pass(operators, macros)).parse()
    if isinstance(root, Text):
        raise ExpressionError(Reason.WRONG_ARGUMENT, _NO_NUMBER.format(root.value), root.position, text)
    return Expression(root, text)


def check_macro(
    macro: Macro, operators: Mapping[str, Signature] = OPERATORS, macros: Mapping[str, Macro] = _NO_MACROS
) -> None:
    """Refuse a macro that no call could make sense of; the position is one in the macro's own text.

    Raises:
        ExpressionError: its names are no names, or its text is no expression over its parameters.
    """
    if macro.mistake:
        raise ExpressionError(Reason.INVALID_NAME, macro.mistake, 0, macro.text)
    if macro.name in operators:
        message = f"{macro.name} is the name of an operator; rename the macro"
        raise ExpressionError(Reason.INVALID_NAME, message, 0, macro.text)
    _check_length(macro.text)
    open_arguments = {name: Column(name) for name in macro.parameters}
    frame = _Frame(open_arguments, path=(macro.name,), is_open=True)
    _Parser(macro.text, tokenize(macro.text), _Pass(operators, {**macros, macro.name: macro}), frame).parse()


def _check_length(text: str) -> None:
    if len(text) > MAX_LENGTH:
        message = f"the expression has {len(text)} characters; at most {MAX_LENGTH} are allowed"
        raise ExpressionError(Reason.TOO_LONG, message, MAX_LENGTH, text)


@dataclass
class _Pass:
    """The state that the parsers of one expression and of its macros share: the bounds hold for all of them together.

    A node may be used several times, where a macro uses a parameter so; depth and size are those of the tree.
    """

    operators: Mapping[str, Signature]
    macros: Mapping[str, Macro]
    made: int = 0  # nodes and calls of macros, including those that a macro drops
    nesting: int = 0
    measures: dict[int, tuple[int, int, Node]] = field(
        default_factory=dict
    )  # id -> depth, size, and kept alive
    tokens: dict[str, list[Token]] = field(default_factory=dict)  # of macros, by name


@dataclass(frozen=True)
class _Frame:
    """The context of a macro's text: its parameters, and the call's place in the outermost text."""

    arguments: Mapping[str, Node] = field(default_factory=dict)
    path: tuple[str, ...] = ()  # macros under way, the outermost first
    position: int | None = None
    is_open: bool = False  # parameters stand for anything, numbers too


class _Parser:
    """One pass over one text's tokens."""

    def __init__(
        self, text: str, tokens: Sequence[Token], shared: _Pass, frame: _Frame | None = None
    ) -> None:
        self._text = text
        self._tokens = tokens
        self._shared = shared
        self._frame = frame or _Frame()
        self._next = 0

    def parse(self) -> Node:
        if self._peek().kind is Kind.END:
            self._fail(Reason.EMPTY, "the expression is empty", self._peek())
        root = self._expression(0)
        token = self._peek()
        if token.kind is not Kind.END:
            self._fail(Reason.UNEXPECTED_TOKEN, f"unexpected {token.describe()} after the expression", token)
        return root

    def _expression(self, weakest: int) -> Node:
        self._shared.nesting += 1
        if self._shared.nesting > MAX_DEPTH:
            self._fail(Reason.TOO_DEEP, f"nested more than {MAX_DEPTH} levels deep", self._peek())
        left = self._operand()
        while (binding := self._binding()) > weakest:
            token = self._take()
            right = self._expression(binding - 1 if binding == _POWER else binding)
            left = self._keep(Binary(token.text, left, right, self._at(token)), token)
            if binding == _COMPARISON and self._binding() == _COMPARISON:
                message = "comparisons cannot be chained; multiply two of them: (a < b) * (b < c)"
                self._fail(Reason.UNEXPECTED_TOKEN, message, self._peek())
        self._shared.nesting -= 1
        return left

    def _binding(self) -> int:
        token = self._peek()
        return _BINDING.get(token.text, 0) if token.kind is Kind.SYMBOL else 0

    def _operand(self) -> Node:
        token = self._take()
        if token.kind is Kind.NUMBER:
            return self._keep(Number(token.value, self._at(token)), token)
        if token.kind is Kind.TEXT:
            value = token.text[1:-1].replace("''", "'")
            return self._keep(Text(value, self._at(token)), token)
        if token.kind is Kind.NAME:
            return self._call(token) if self._peek().text == "(" else self._column(token)
        if token.kind is Kind.QUOTED:
            name = ".".join(map(spell, read_parts(token.text)))
            return self._keep(Column(name, self._at(token)), token)
        if token.text == "(":
            inner = self._expression(0)
            self._expect(")", "to close the parenthesis")
            return inner
        if token.text != "-":
            is_power = token.text == "*" and self._tokens[self._next - 2].text == "*"
            hint = "; a power is written ^" if is_power else ""
            self._unexpected(token, f"a number, a column, an operator or '('{hint}")
        return self._keep(Negate(self._expression(_NEGATION), self._at(token)), token)

    def _column(self, token: Token) -> Node:
        if (argument := self._frame.arguments.get(token.text)) is not None:
            # An open parameter has not been counted yet; counting twice does no harm.
            return self._keep(argument, token) if self._frame.is_open else argument
        if token.text != token.text.lower():
            shared, name = self._shared, token.text.upper()
            if (called := shared.operators.get(name) or shared.macros.get(name)) is not None:
                message = f"{token.text} needs arguments: {called.usage}"
                self._fail(Reason.WRONG_ARGUMENT_COUNT, message, token)
            quoted = ".".join(map(spell, token.text.split(".")))
            message = f"column names are lower case; write {token.text.lower()!r}, or put a name with capitals in quotes: {quoted}"
            self._fail(Reason.INVALID_NAME, message, token)
        return self._keep(Column(token.text, self._at(token)), token)

    def _call(self, token: Token) -> Node:
        shared, name = self._shared, token.text.upper()
        if (
            name in shared.macros and name not in FIRST_OPERATORS
        ):  # before an operator that got its name later
            return self._expand(shared.macros[name], token)
        signature = shared.operators.get(name)
        if signature is None:
            known = {**shared.operators, **shared.macros}
            here = shared.operators.get(NAMES_ELSEWHERE.get(name, ""))
            advice = f"here it is {here.full_usage}" if here else suggest(token.text, known)
            message = f"unknown operator {token.text!r}; {advice}"
            self._fail(Reason.UNKNOWN_OPERATOR, message, token)
        self._take()  # the parenthesis
        given = Arguments(signature)
        while self._peek().text != ")":
            if given.count:
                self._expect(",", f"or ')' in {signature.usage}")
            self._argument(given)
        if given.missing:
            message = f"{signature.usage} needs {signature.fewest} arguments, {given.count} given; {given.missing} is missing"
            self._fail(Reason.WRONG_ARGUMENT_COUNT, message, self._peek())
        self._take()
        numbers = tuple(given.all_numbers().values())
        return self._keep(Call(signature, given.all_values(), numbers, self._at(token)), token)

    def _argument(self, given: Arguments) -> None:
        """Read one argument of a call, by its place or by its name."""
        signature, token = given.signature, self._peek()
        if self._tokens[min(self._next + 1, len(self._tokens) - 1)].text == "=":
            self._named_argument(given)
        elif given.is_naming:
            message = f"after a named argument, give the others by name too: {' or '.join(given.open_names) or 'there is none left'}"
            self._fail(Reason.WRONG_ARGUMENT, message, token)
        elif given.wants_value:
            given.values.append(self._expression(0))
        elif given.may_group and not self._is_number():
            self._group(given)
        elif (parameter := given.next_parameter()) is not None:
            self._number(given, parameter)
        elif given.may_group:
            message = f"{GROUP} of {signature.full_usage} must be a column, as in {signature.name}(x, sector)"
            self._fail(Reason.WRONG_ARGUMENT, message, token)
        else:
            self._fail(Reason.WRONG_ARGUMENT_COUNT, f"too many arguments: {signature.full_usage}", token)

    def _named_argument(self, given: Arguments) -> None:
        token, signature = self._take(), given.signature
        self._take()  # the equality sign
        if given.wants_value:
            message = f"{signature.usage} takes {' and '.join(signature.names)} by place; only what follows has a name"
            self._fail(Reason.WRONG_ARGUMENT, message, token)
        if token.text not in given.open_names:
            is_repeated = given.find_parameter(token.text) is not None or (
                token.text == GROUP and signature.has_group
            )
            unknown = (
                "is given twice" if is_repeated else f"is unknown; {suggest(token.text, given.open_names)}"
            )
            message = f"argument {token.text!r} of {signature.full_usage} {unknown}"
            self._fail(Reason.WRONG_ARGUMENT, message, token)
        given.is_naming = True
        parameter = given.find_parameter(token.text)
        if parameter is None:
            self._group(given)
        else:
            self._number(given, parameter)

    def _number(self, given: Arguments, parameter: Parameter) -> None:
        token = self._peek()
        given.numbers[parameter.name] = self._parameter(given.signature, parameter)
        if (message := given.find_excess()) and not self._frame.is_open:
            self._fail(Reason.WRONG_ARGUMENT, message, token)

    def _group(self, given: Arguments) -> None:
        token = self._peek()
        group = self._expression(0)
        if isinstance(group, Number | Text) and not self._frame.is_open:
            message = f"{GROUP} of {given.signature.full_usage} must be a column, as in {given.signature.name}(x, sector)"
            self._fail(Reason.WRONG_ARGUMENT, message, token)
        given.group = group

    def _is_number(self) -> bool:
        """Return whether the next argument is a plain number."""
        token, following = self._peek(), self._tokens[min(self._next + 1, len(self._tokens) - 1)]
        if token.text == "-" and following.kind is Kind.NUMBER:
            return True
        if token.kind is not Kind.NAME:
            return token.kind is Kind.NUMBER
        node = self._frame.arguments.get(token.text)
        return isinstance(node, Number) or (isinstance(node, Negate) and isinstance(node.operand, Number))

    def _expand(self, macro: Macro, token: Token) -> Node:
        """Return the expression of a macro with its parameters replaced by the call's arguments."""
        self._take()  # the parenthesis
        arguments: list[Node] = []
        while self._peek().text != ")":
            if arguments:
                self._expect(",", f"or ')' in {macro.usage}")
            arguments.append(self._expression(0))
        if len(arguments) != len(macro.parameters):
            message = f"{macro.usage} needs {len(macro.parameters)} arguments, {len(arguments)} given"
            self._fail(Reason.WRONG_ARGUMENT_COUNT, message, token)
        self._take()
        path = (*self._frame.path, macro.name)
        if macro.name in self._frame.path:
            self._fail(Reason.RECURSIVE_MACRO, f"macro {macro.name} uses itself: {' > '.join(path)}", token)
        self._count(token)
        given = dict(zip(macro.parameters, arguments, strict=True))
        frame = _Frame(given, path, self._at(token), is_open=self._frame.is_open)
        try:
            tokens = self._shared.tokens.get(macro.name)
            if tokens is None:
                _check_length(macro.text)
                tokens = self._shared.tokens[macro.name] = tokenize(macro.text)
            return _Parser(macro.text, tokens, self._shared, frame).parse()
        except ExpressionError as error:
            self._fail(error.reason, f"in {macro.usage}: {error.message}", token)

    def _parameter(self, signature: Signature, parameter: Parameter) -> float:
        """Return a literal, since what an operator looks back on must be known without data."""
        first = self._take()
        sign = 1.0
        token = first
        if first.text == "-":
            sign, token = -1.0, self._take()
        if token.kind is Kind.END:
            self._unexpected(token, "a number")
        value = self._literal(token)
        if value is None:
            message = f"{parameter.name} of {signature.full_usage} must be a number"
            self._fail(Reason.WRONG_ARGUMENT, message, token)
        if self._peek().text not in {",", ")"} and self._peek().kind is not Kind.END:
            message = f"{parameter.name} of {signature.full_usage} must be a plain number"
            self._fail(Reason.WRONG_ARGUMENT, message, self._peek())
        if self._frame.is_open and token.kind is Kind.NAME:
            return parameter.minimum
        if refusal := parameter.refuse(sign * value):
            self._fail(Reason.WRONG_ARGUMENT, f"{parameter.name} of {signature.full_usage} {refusal}", first)
        return sign * value

    def _literal(self, token: Token) -> float | None:
        """Return the number that a token is, or that a macro's parameter was given."""
        if token.kind is Kind.NUMBER:
            return token.value
        node = self._frame.arguments.get(token.text) if token.kind is Kind.NAME else None
        if node is not None and self._frame.is_open:
            return 0.0
        if isinstance(node, Negate) and isinstance(node.operand, Number):
            return -node.operand.value
        return node.value if isinstance(node, Number) else None

    def _keep(self, node: Node, token: Token) -> Node:
        """Measure a finished node. Prevents trees that a recursive walk, a hash or a repr could not survive."""
        self._count(token)
        below = [self._shared.measures[id(child)] for child in children(node)]
        depth = 1 + max((depth for depth, _, _ in below), default=0)
        size = 1 + sum(size for _, size, _ in below)
        if size > MAX_NODES:
            self._fail(Reason.TOO_COMPLEX, f"more than {MAX_NODES} operations and operands", token)
        if depth > MAX_DEPTH:
            self._fail(Reason.TOO_DEEP, f"more than {MAX_DEPTH} levels of operations", token)
        self._shared.measures[id(node)] = (depth, size, node)
        self._refuse_texts(node, token)
        return node

    def _refuse_texts(self, node: Node, token: Token) -> None:
        """Refuse a text as an operand of anything but an equality."""
        is_equality = isinstance(node, Binary) and node.symbol in {"==", "!="}
        texts = [] if is_equality else [child for child in children(node) if isinstance(child, Text)]
        if texts:
            self._fail(Reason.WRONG_ARGUMENT, _NO_NUMBER.format(texts[0].value), token)

    def _count(self, token: Token) -> None:
        """Count the work against its bound, even if its result is not used."""
        self._shared.made += 1
        if self._shared.made > MAX_NODES:
            self._fail(Reason.TOO_COMPLEX, f"more than {MAX_NODES} operations and operands", token)

    def _at(self, token: Token) -> int:
        """Return the position of a node in the outermost text."""
        return token.position if self._frame.position is None else self._frame.position

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
        if token.text == "=":
            self._fail(Reason.UNEXPECTED_TOKEN, "unexpected '='; equality is ==", token)
        reason = Reason.UNEXPECTED_END if token.kind is Kind.END else Reason.UNEXPECTED_TOKEN
        self._fail(reason, f"expected {wanted}, found {token.describe()}", token)

    def _fail(self, reason: Reason, message: str, token: Token) -> Never:
        raise ExpressionError(reason, message, token.position, self._text)
