"""Make and read page tokens: the position after the last row, tied to the filter; they hold no secret."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from servicekit.errors import FieldViolation, InvalidArgumentError

T = TypeVar("T")
MOST_BYTES = 3_000_000  # clients take four megabytes by default


def filter_hash(*parts: object) -> str:
    """Return a short digest of everything that selects and orders a list."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def encode(values: dict[str, Any], filter_hash: str) -> str:
    """Return the token of a position; the values must be JSON."""
    text = json.dumps([filter_hash, values], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(token: str, filter_hash: str) -> dict[str, Any]:
    """Return the position of a token.

    Raises:
        InvalidArgumentError: The token is damaged or belongs to another filter.
    """
    padded = token + "=" * (-len(token) % 4)
    try:
        found_hash, values = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
    except (ValueError, TypeError, RecursionError) as error:
        raise _invalid() from error
    if found_hash != filter_hash or not isinstance(values, dict):
        raise _invalid()
    return values


def fit(rows: Sequence[T], size: int, weigh: Callable[[T], int]) -> Sequence[T]:
    """Return the rows of one page: at most `size` rows and as many bytes as any client takes, but at least one row."""
    total = 0
    for count, row in enumerate(rows[:size]):
        total += weigh(row)
        if count and total > MOST_BYTES:
            return rows[:count]
    return rows[:size]


def _invalid() -> InvalidArgumentError:
    violation = FieldViolation(
        "page_token", "is no token of this list with these filters", "INVALID_PAGE_TOKEN"
    )
    return InvalidArgumentError(
        "INVALID_PAGE_TOKEN",
        "page_token is damaged or belongs to another list or filter; omit it to begin with the first page",
        field_violations=[violation],
    )
