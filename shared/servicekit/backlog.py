"""Keep what waits to be sent, in order within each key, in turns and bounded; it knows nothing about what is sent or where."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Waiting(Generic[T]):
    """An item that waits; `number` grows with each item, and `owner` has a turn of its own."""

    key: Hashable
    number: int
    item: T
    owner: str = ""


class Backlog(Generic[T]):
    """At most `capacity` items. One more displaces an older one, and the newest of a key goes last.

    Displaced are, in this order: an older item of the same key; the oldest item of a key that has several; the item of the key
    that has waited longest. The owners of the keys take turns, so that the many items of one delay no item of another.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._by_key: OrderedDict[Hashable, deque[Waiting[T]]] = OrderedDict()
        self._several: OrderedDict[Hashable, None] = OrderedDict()  # the keys with more than one item
        self._turns: OrderedDict[str, OrderedDict[Hashable, None]] = OrderedDict()  # the keys of each owner
        self._number = 0
        self._size = 0

    def __len__(self) -> int:
        """Return how many items wait."""
        return self._size

    def put(self, key: Hashable, item: T, owner: str = "") -> bool:
        """Append an item of a key, which always has the same owner; return whether another one was displaced."""
        self._number += 1
        displaces = self._size >= self._capacity
        if displaces:
            if key in self._by_key:
                victim = key
            else:
                victim = next(iter(self._several), None) or next(iter(self._by_key))
            self._pop(victim)
        items = self._by_key.setdefault(key, deque())
        items.append(Waiting(key, self._number, item, owner))
        self._turns.setdefault(owner, OrderedDict())[key] = None
        self._size += 1
        if len(items) > 1:
            self._several[key] = None
        return displaces

    def first(self, most: int) -> list[Waiting[T]]:
        """Return items to send next, at most `most`, of each owner as many as of another that has enough.

        Those of one key are in order, and all that came before is among them.
        """
        owned = [
            chain.from_iterable(self._by_key[key] for key in keys)
            for keys in islice(self._turns.values(), most)
        ]
        in_turns = chain.from_iterable(zip_longest(*owned))
        return list(islice((each for each in in_turns if each is not None), most))

    def remove(self, sent: Sequence[Waiting[T]]) -> None:
        """Remove items that were sent, if they were not displaced meanwhile; their keys and owners go behind the others."""
        newest = {each.key: each.number for each in sent}
        for key, number in newest.items():
            while (items := self._by_key.get(key)) and items[0].number <= number:
                self._pop(key)
        self.postpone(newest)
        for owner in {each.owner: None for each in sent}:
            if owner in self._turns:
                self._turns.move_to_end(owner)

    def postpone(self, keys: Iterable[Hashable]) -> None:
        """Put keys behind the others, and so their owners."""
        for key in keys:
            if key in self._by_key:
                owner = self._by_key[key][0].owner
                self._by_key.move_to_end(key)
                self._turns[owner].move_to_end(key)
                self._turns.move_to_end(owner)

    def _pop(self, key: Hashable) -> None:
        items = self._by_key[key]
        owner = items.popleft().owner
        self._size -= 1
        if len(items) == 1:
            self._several.pop(key, None)
        if not items:
            del self._by_key[key], self._turns[owner][key]
            if not self._turns[owner]:
                del self._turns[owner]
