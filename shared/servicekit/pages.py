"""Make and read page tokens: the position after the last row, sealed for one tenant, list and filter."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from servicekit.errors import FieldViolation, InvalidArgumentError
from servicekit.signing import ForgedError, Signer

T = TypeVar("T")
MOST_BYTES = 3_000_000  # clients take four megabytes by default
LONG_MOST_BYTES = (
    12_000_000  # of an answer with up to ten thousand flows: who asks for it takes sixteen megabytes
)


class PageTokens:
    """The page tokens of one list of one tenant, as a set of filters selects and orders it."""

    def __init__(self, signer: Signer, tenant_id: str, method: str, *filters: object) -> None:
        self._signer = signer
        self._purpose = ("page", tenant_id, method, *filters)

    def encode(self, position: dict[str, Any]) -> str:
        """Return the token of a position; its values must be JSON."""
        text = json.dumps(position, separators=(",", ":"))
        return self._signer.seal(text.encode(), *self._purpose)

    def decode(self, token: str) -> dict[str, Any]:
        """Return the position that `encode` was given; for an empty token, which asks for the first page, it is empty.

        Raises:
            InvalidArgumentError: The token was changed, or belongs to another tenant, list or filter.
        """
        if not token:
            return {}
        try:
            position: dict[str, Any] = json.loads(self._signer.open(token, *self._purpose))
        except ForgedError as error:
            raise _invalid() from error
        return position


def fit(rows: Sequence[T], size: int, weigh: Callable[[T], int], most_bytes: int = MOST_BYTES) -> Sequence[T]:
    """Return the rows of one page: at most `size` rows, and as many bytes as may be, but at least one row."""
    total = 0
    for count, row in enumerate(rows[:size]):
        total += weigh(row)
        if count and total > most_bytes:
            return rows[:count]
    return rows[:size]


def _invalid() -> InvalidArgumentError:
    violation = FieldViolation(
        "page_token", "is no token of this list with these filters", "INVALID_PAGE_TOKEN"
    )
    return InvalidArgumentError(
        "INVALID_PAGE_TOKEN",
        "page_token was changed, or belongs to another list or filter; omit it to begin with the first page",
        field_violations=[violation],
    )
