"""The records that a verification reads while others are sealed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from optaic.audit.v1.audit_pb2 import AuditEntry
from optaic.client.audit import _Records


class Trail:
    """Records by sequence number; more are sealed after each listing has ended."""

    def __init__(self, *sealed: list[int]) -> None:
        self._sealed = list(sealed)
        self._there: list[int] = []
        self.listings = 0

    async def list_after(self, after: int) -> AsyncIterator[AuditEntry]:
        self.listings += 1
        self._there += self._sealed.pop(0) if self._sealed else []
        for sequence in [each for each in self._there if each > after]:
            yield AuditEntry(sequence=sequence)


async def _take(records: _Records, last: int) -> list[int]:
    return [entry.sequence for entry in await records.take(last)]


async def test_records_that_are_sealed_after_they_were_listed_are_read_too() -> None:
    trail = Trail([1, 2], [3, 4])
    records = _Records(trail.list_after)
    assert await _take(records, 2) == [1, 2]
    assert await _take(records, 4) == [3, 4]
    assert await records.peek() is None


async def test_a_seal_over_listed_and_later_records_gets_all_of_them() -> None:
    assert await _take(_Records(Trail([1, 2], [3, 4]).list_after), 4) == [1, 2, 3, 4]


async def test_records_that_are_not_there_stay_missing_and_are_asked_for_once_more_only() -> None:
    trail = Trail([1, 2])
    assert await _take(_Records(trail.list_after), 4) == [1, 2]
    assert trail.listings == 2


async def test_a_gap_before_a_later_record_is_no_reason_to_list_again() -> None:
    trail = Trail([1, 5])
    records = _Records(trail.list_after)
    assert await _take(records, 4) == [1]
    assert await _take(records, 5) == [5]
    assert trail.listings == 1
