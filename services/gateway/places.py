"""Count what is under way, of each caller and of all, so that no caller takes the places of the others."""

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
    """The calls or the streams under way, or the bytes of their bodies."""

    def __init__(self, what: str, room: Room) -> None:
        self._what = what
        self._room = room
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Return how many are taken."""
        return self._taken.total()

    @contextmanager
    def take(self, caller: str, count: int = 1) -> Iterator[Place]:
        """Keep places for the block.

        Raises:
            ResourceExhaustedError: TOO_MANY_CALLS, TOO_MANY_STREAMS, TOO_MANY_READS, TOO_MANY_PAGES or TOO_MANY_BYTES.
        """
        place = Place(self, caller)
        place.add(count)
        try:
            yield place
        finally:
            place.free()

    def _change(self, caller: str, count: int) -> None:
        """Give a caller more places, or fewer.

        Raises:
            ResourceExhaustedError: There are not as many.
        """
        if count > 0 and self._taken[caller] + count > self._room.of_one:
            raise errors.too_many(self._what, self._room.of_one, is_own=True)
        if count > 0 and self.taken + count > self._room.total:
            raise errors.too_many(self._what, self._room.total, is_own=False)
        self._taken[caller] += count
        if not self._taken[caller]:
            del self._taken[caller]

    def _move(self, former: str, caller: str, count: int) -> bool:
        """Give the places of one caller to another one, if it may have so many more."""
        if self._taken[caller] + count > self._room.of_one:
            return False
        self._change(former, -count)
        self._change(caller, count)
        return True


class Place:
    """The places that one call has."""

    def __init__(self, places: Places, caller: str) -> None:
        self._places = places
        self._caller = caller
        self._count = 0

    def add(self, count: int) -> None:
        """Take more of them.

        Raises:
            ResourceExhaustedError: There are not as many.
        """
        self._places._change(self._caller, count)  # noqa: SLF001 - a place is a part of its places
        self._count += count

    def move(self, caller: str) -> None:
        """Let it be that of another caller; it stays where it is if that one may have no more."""
        if caller != self._caller and self._places._move(self._caller, caller, self._count):  # noqa: SLF001 - a part of its places
            self._caller = caller

    def free(self) -> None:
        """Give all of them back."""
        self.add(-self._count)
