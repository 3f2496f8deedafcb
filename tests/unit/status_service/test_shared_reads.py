"""Callers that ask for single statuses at the same time share a statement, and each gets what is stored by then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from servicekit.database import Database
from status_service.store.statuses import SharedReads, ShownStatus

_NOW = datetime(2024, 1, 2, tzinfo=UTC)


class _Statuses:
    """The statuses of one tenant; reading them takes until the gate is open."""

    def __init__(self, *instance_ids: str) -> None:
        self.revisions = dict.fromkeys(instance_ids, 1)
        self.read: list[set[str]] = []
        self.gate = asyncio.Event()
        self.failing = 0  # the number of the statement that fails

    async def fetch(
        self, tenant_id: str, _statement: Any, parameters: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        assert parameters["tenant_id"] == tenant_id
        self.read.append(set(parameters["instance_ids"]))
        number = len(self.read)
        found = {
            each: revision for each, revision in self.revisions.items() if each in parameters["instance_ids"]
        }
        await self.gate.wait()
        if number == self.failing:
            raise ConnectionError
        return [(each, b"", revision, _NOW, _NOW) for each, revision in found.items()]


async def _ask(reads: SharedReads, *instance_ids: str) -> list[asyncio.Task[ShownStatus | None]]:
    tasks = [asyncio.create_task(reads.fetch_status("default", each)) for each in instance_ids]
    for _ in range(3):
        await asyncio.sleep(0)  # no test waits here: the tasks get their first turns
    return tasks


async def test_those_who_ask_while_others_read_share_the_next_statement() -> None:
    statuses = _Statuses("a", "b", "c")
    reads = SharedReads(cast("Database", statuses))
    first = await _ask(reads, "a")
    others = await _ask(reads, "a", "b", "c", "b")
    statuses.gate.set()
    rows = await asyncio.gather(*first, *others)
    assert [row and row.instance_id for row in rows] == ["a", "a", "b", "c", "b"]
    assert statuses.read == [{"a"}, {"a", "b", "c"}]


async def test_a_status_stored_before_the_question_is_in_its_answer() -> None:
    statuses = _Statuses("a")
    reads = SharedReads(cast("Database", statuses))
    (before,) = await _ask(reads, "a")
    statuses.revisions["a"] = 2
    (after,) = await _ask(reads, "a")
    statuses.gate.set()
    rows = await asyncio.gather(before, after)
    assert [row and row.revision for row in rows] == [1, 2]


async def test_a_statement_that_fails_fails_for_one_caller_alone() -> None:
    statuses = _Statuses("a", "b", "c")
    statuses.failing = 2
    reads = SharedReads(cast("Database", statuses))
    (first,) = await _ask(reads, "a")
    others = await _ask(reads, "b", "c")
    statuses.gate.set()
    await first
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(outcomes[0], ConnectionError)
    assert isinstance(outcomes[1], ShownStatus)


@pytest.mark.parametrize("given", [("a",), ("a", "b")])
async def test_an_instance_without_status_has_none(given: tuple[str, ...]) -> None:
    statuses = _Statuses()
    statuses.gate.set()
    tasks = await _ask(SharedReads(cast("Database", statuses)), *given)
    assert await asyncio.gather(*tasks) == [None] * len(given)
