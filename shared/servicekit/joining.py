"""Joins reads of single things: whoever asks while a read is under way shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Batch(Generic[T]):
    keys: set[str] = field(default_factory=set)
    answers: Mapping[str, T] | None = None


class Joined(Generic[T]):
    """One read at a time; it begins after all whom it answers have asked, so nobody gets what was true before.

    The first of a batch reads for all of it, under its own marks and deadline; where it fails, the next one does.
    """

    def __init__(self, read_many: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]]) -> None:
        self._read_many = read_many
        self._lock = asyncio.Lock()
        self._next = _Batch[T]()

    async def read(self, key: str) -> T | None:
        """Return what `read_many` answers for `key`; None where that is nothing."""
        batch = self._next
        batch.keys.add(key)
        async with self._lock:
            if batch.answers is None:
                self._next = _Batch()
                batch.answers = await self._read_many(sorted(batch.keys))
        return batch.answers.get(key)
