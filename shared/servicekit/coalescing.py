"""Joins reads of single things: whoever asks while a read is under way shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")
_LARGEST = 64  # keys of one read


@dataclass
class _Batch(Generic[Q, A]):
    questions: dict[str, Q] = field(default_factory=dict)
    answers: Mapping[str, A] | None = None


class Coalesced(Generic[Q, A]):
    """One read at a time; it begins after all whom it answers have asked, so nobody gets what was true before.

    The first of a batch reads for all of it, under its own marks and deadline. Where it fails, the others are left
    without an answer, like one that `read_many` has nothing for: each reads for itself then.
    """

    def __init__(self, read_many: Callable[[Mapping[str, Q]], Awaitable[Mapping[str, A]]]) -> None:
        self._read_many = read_many
        self._lock = asyncio.Lock()
        self._next = _Batch[Q, A]()

    async def read(self, key: str, question: Q) -> A | None:
        """Return the answer for `key`, or None; equal keys, equal questions."""
        if len(self._next.questions) >= _LARGEST:
            self._next = _Batch()
        batch = self._next
        batch.questions[key] = question
        async with self._lock:
            if batch.answers is None:
                if self._next is batch:
                    self._next = _Batch()
                batch.answers = {}
                batch.answers = await self._read_many(batch.questions)
        return batch.answers.get(key)
