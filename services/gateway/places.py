"""Count the calls and streams under way, of each caller and of all, so that no caller takes the places of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway import errors


@dataclass(frozen=True)
class Room:
    """The number of places, in all and of one caller."""

    total: int
    of_one: int


class Places:
    """The calls, or the streams, under way."""

    def __init__(self, what: str, room: Room) -> None:
        self._what = what
        self._room = room
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Return how many are under way."""
        return self._taken.total()

    @contextmanager
    def take(self, caller: str) -> Iterator[None]:
        """Keep a place for the block.

        Raises:
            ResourceExhaustedError: TOO_MANY_CALLS or TOO_MANY_STREAMS.
        """
        if self._taken[caller] >= self._room.of_one:
            raise errors.too_many(self._what, self._room.of_one, is_own=True)
        if self.taken >= self._room.total:
            self._forget(caller)
            raise errors.too_many(self._what, self._room.total, is_own=False)
        self._taken[caller] += 1
        try:
            yield
        finally:
            self._taken[caller] -= 1
            self._forget(caller)

    def _forget(self, caller: str) -> None:
        if not self._taken[caller]:
            del self._taken[caller]
