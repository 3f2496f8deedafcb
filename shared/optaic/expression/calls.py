"""Find the names that an expression calls, without parsing it; the text may be invalid."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

from optaic.expression.lexer import Kind, tokenize
from optaic.expression.operators import OPERATORS
from optaic.expression.parser import MAX_LENGTH


def list_called(text: str, operators: Collection[str] = OPERATORS) -> tuple[str, ...]:
    """Return the names that a text calls and that are no operators, in upper case, each once; the text may be invalid.

    Raises:
        ExpressionError: a character outside the language.
    """
    tokens = tokenize(text[:MAX_LENGTH])
    names = [
        token.text.upper()
        for token, following in pairwise(tokens)
        if token.kind is Kind.NAME and following.text == "("
    ]
    return tuple(dict.fromkeys(name for name in names if name not in operators))
