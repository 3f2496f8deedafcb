"""Cut an expression's text into tokens; grammar and operators are not known here."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from optaic.expression.errors import ExpressionError, Reason

MAX_NAME = 64  # characters
MAX_QUOTED_NAME = 1_000  # the longest name of a column that a store keeps

_PART = r"""(?:[A-Za-z_][A-Za-z0-9_]*+|"(?:[^"\x00-\x1f]|"")++")"""
_PATTERN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*+(?:\.[A-Za-z_][A-Za-z0-9_]*+)?+(?!\.?"))
      | (?P<quoted>{part}(?:\.{part})?)
      | (?P<text>'(?:[^'\x00-\x1f]|'')*+')
      | (?P<symbol><=|>=|==|!=|[-+*/^<>(),=])""".replace("{part}", _PART),
    re.VERBOSE,
)
_HINTS = {
    "=": "; equality is ==",
    "!": "; inequality is !=",
    "&": "; multiply comparisons instead",
    "%": "; PCT is an operator",
    '"': '; a quoted name must have text and end with a quote, as in "sig-a".value',
    "'": "; a text must end with a quote on the same line, as in sector == 'Energy'",
}


class Kind(StrEnum):
    """The kind of a token."""

    NUMBER = "number"
    NAME = "name"
    QUOTED = "quoted"  # a name with a part in quotes
    TEXT = "text"  # in single quotes
    SYMBOL = "symbol"
    END = "end"


@dataclass(frozen=True)
class Token:
    """A piece of the text with its place."""

    kind: Kind
    text: str
    position: int
    value: float = 0.0  # of a number

    @property
    def is_name(self) -> bool:
        """Return whether the token is a name."""
        return self.kind in {Kind.NAME, Kind.QUOTED}

    def describe(self) -> str:
        """Return the token as an error names it."""
        return "the end" if self.kind is Kind.END else repr(self.text)


def tokenize(text: str) -> list[Token]:
    """Return all tokens, the last one being the end.

    Raises:
        ExpressionError: a character outside the language, or a number or name that is too large.
    """
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = _PATTERN.match(text, position)
        if match is None or (match.group() == "=" and not _may_name_argument(tokens)):
            character = text[position]
            message = f"unexpected character {character!r}{_HINTS.get(character, '')}"
            raise ExpressionError(Reason.UNEXPECTED_CHARACTER, message, position, text)
        if match.lastgroup != "space":
            tokens.append(_make_token(Kind(match.lastgroup or ""), match.group(), position, text))
        position = match.end()
    tokens.append(Token(Kind.END, "", len(text)))
    return tokens


def _may_name_argument(tokens: list[Token]) -> bool:
    """Return whether the last token may be the name of an argument, which `=` follows."""
    return len(tokens) > 1 and tokens[-1].kind is Kind.NAME and tokens[-2].text in {"(", ","}


def _make_token(kind: Kind, word: str, position: int, text: str) -> Token:
    if kind is Kind.NUMBER:
        value = float(word)
        after = text[position + len(word) : position + len(word) + 1]
        if math.isinf(value):
            raise ExpressionError(Reason.INVALID_NUMBER, "the number is too large", position, text)
        if after in {".", "_"} or (after.isascii() and after.isalpha()):
            raise ExpressionError(
                Reason.INVALID_NUMBER, f"malformed number: {word + after!r}", position, text
            )
        return Token(kind, word, position, value)
    if kind is Kind.TEXT and len(word) > MAX_QUOTED_NAME + 2:
        raise ExpressionError(
            Reason.TOO_LONG, f"a text has at most {MAX_QUOTED_NAME:,} characters; shorten it", position, text
        )
    longest = MAX_NAME if kind is Kind.NAME else MAX_QUOTED_NAME
    if kind in {Kind.NAME, Kind.QUOTED} and len(word) > 2 * longest + 1:
        message = f"a name has at most {longest} characters"
        raise ExpressionError(Reason.INVALID_NAME, message, position, text)
    return Token(kind, word, position)
