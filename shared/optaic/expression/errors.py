"""The one error of the expression language, which points at the mistake; it decides nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum

_SHOWN = 72  # characters of a line that an error shows


class Reason(StrEnum):
    """The kind of a mistake, for programs."""

    EMPTY = "EMPTY"
    TOO_LONG = "TOO_LONG"
    TOO_DEEP = "TOO_DEEP"
    TOO_COMPLEX = "TOO_COMPLEX"
    UNEXPECTED_CHARACTER = "UNEXPECTED_CHARACTER"
    UNEXPECTED_TOKEN = "UNEXPECTED_TOKEN"  # noqa: S105 - a token of the language, not a credential
    UNEXPECTED_END = "UNEXPECTED_END"
    INVALID_NUMBER = "INVALID_NUMBER"
    INVALID_NAME = "INVALID_NAME"
    UNKNOWN_OPERATOR = "UNKNOWN_OPERATOR"
    UNKNOWN_COLUMN = "UNKNOWN_COLUMN"
    AMBIGUOUS_COLUMN = "AMBIGUOUS_COLUMN"
    WRONG_ARGUMENT_COUNT = "WRONG_ARGUMENT_COUNT"
    WRONG_ARGUMENT = "WRONG_ARGUMENT"
    RECURSIVE_MACRO = "RECURSIVE_MACRO"


class ExpressionError(ValueError):
    """A mistake in an expression's text.

    `position` is a 0-based offset into the text; `line` and `column` are 1-based. `str()` shows the line with a
    caret below the mistake.
    """

    def __init__(self, reason: Reason, message: str, position: int, text: str) -> None:
        super().__init__(reason, message, position, text)
        self.reason = reason
        self.message = message
        self.position = position
        self.text = text
        self.line = text.count("\n", 0, position) + 1
        self.column = position - (text.rfind("\n", 0, position) + 1) + 1

    def render(self) -> str:
        """Return the offending line, clipped, and a caret below the mistake."""
        offset = self.column - 1
        begin = self.position - offset
        end = self.text.find("\n", begin)
        line = self.text[begin : end if end >= 0 else len(self.text)]
        first = max(0, offset - _SHOWN // 2)
        shown = line[first : first + _SHOWN]
        # One cell per character, so that the caret stands right whatever the text holds.
        visible = "".join(character if character.isprintable() else " " for character in shown)
        return f"{visible}\n{' ' * (offset - first)}^"

    def __str__(self) -> str:
        return f"{self.message} (line {self.line}, column {self.column})\n{self.render()}"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a half sentence with similar names, or with all existing ones."""
    names = sorted(known)
    by_folded = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(by_folded[match] for match in close) + "?"
    if not names:
        return "there is nothing to choose from"
    return "known: " + ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")  # noqa: PLR2004 - fits a terminal


def locate(position: int, text: str) -> str:
    """Return a half sentence with the place of a mistake that is not one of the text alone; empty if there is no text."""
    if not text:
        return ""
    error = ExpressionError(Reason.WRONG_ARGUMENT, "", position, text)
    return f" (line {error.line}, column {error.column})"
