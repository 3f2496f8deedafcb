"""Coalesce reads of single things: callers that ask while a read is under way share the next read."""

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
    """A read that callers share. It begins after all its callers have asked, so none gets an outdated answer.

    The first caller of a batch reads for all of it, with its own identity and deadline. If that read fails, the others
    get None, as for a key that `read_many` returns nothing for; then each of them has to read for itself.
    """

    def __init__(self, read_many: Callable[[Mapping[str, Q]], Awaitable[Mapping[str, A]]]) -> None:
        self._read_many = read_many
        self._lock = asyncio.Lock()
        self._next = _Batch[Q, A]()

    async def read(self, key: str, question: Q) -> A | None:
        """Return the answer for `key`, or None. Equal keys must come with equal questions."""
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
