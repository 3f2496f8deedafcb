"""How often a worker looks into its work pool: each look costs Prefect as much as a state of a flow run."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from servicekit.ids import new_id
from support.polling import eventually
from worker import executor as executor_module
from worker.config import Settings
from worker.execution import Ending, Outcome
from worker.executor import Executor
from worker.guardian import Line
from worker.prefect_adapter import DueRun, FlowRunNotWaitingError, FlowRunRefusedError, WorkPool

NOW = dt.datetime(2026, 1, 2, 16, 30, tzinfo=dt.UTC)


class Pool:
    """A work pool as Prefect keeps it: it lists what waits, and lets one that has ended be claimed again."""

    def __init__(self, count: int) -> None:
        given = {"tenant_id": "acme", "instance_id": new_id(), "flow_kind": "refresh"}
        self.due = {each.id: each for each in (DueRun(uuid4(), given, NOW) for _ in range(count))}
        self.states = dict.fromkeys(self.due, "SCHEDULED")
        self.looks: list[int] = []
        self.reads = 0
        self.claimed: list[UUID] = []
        self.refused: list[UUID] = []
        self.given_back: list[UUID] = []
        self.ended: list[UUID] = []
        self.after_look: Callable[[], object] = bool

    async def ensure(self) -> None:
        """There is one."""

    async def list_due(self, limit: int) -> list[DueRun]:
        found = [each for each in self.due.values() if self.states[each.id] == "SCHEDULED"][:limit]
        self.looks.append(len(found))
        self.after_look()
        return found

    async def list_waiting(self, ids: Sequence[UUID]) -> set[UUID]:
        self.reads += 1
        return {each for each in ids if self.states[each] == "SCHEDULED"}

    async def claim(self, flow_run_id: UUID) -> None:
        state = self.states[flow_run_id]
        if state in {"PENDING", "RUNNING", "CANCELLED"}:
            self.refused.append(flow_run_id)
            raise FlowRunRefusedError(f"it is {state}")
        self.states[flow_run_id] = "PENDING"
        if state != "SCHEDULED":
            raise FlowRunNotWaitingError("it had ended", uuid4())
        self.claimed.append(flow_run_id)

    async def give_back(self, flow_run_id: UUID, _: UUID) -> None:
        self.states[flow_run_id] = "COMPLETED"
        self.given_back.append(flow_run_id)

    async def record_running(self, flow_run_id: UUID) -> None:
        self.states[flow_run_id] = "RUNNING"

    async def record_end(self, flow_run_id: UUID, _: Ending) -> None:
        self.states[flow_run_id] = "COMPLETED"
        self.ended.append(flow_run_id)

    async def list_cancelling(self, _: object) -> list[UUID]:
        return []


async def _compute(*_: object) -> Ending:
    await asyncio.sleep(0)
    return Ending(Outcome.COMPLETED, "at once")


async def _drain(
    pool: Pool,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: int,
    compute: Callable[..., Awaitable[Ending]] = _compute,
) -> None:
    monkeypatch.setattr("worker.executor.execute_run", compute)
    settings: dict[str, Any] = {"executor_token": "secret", "tenants": ("acme",), "data_root": str(folder)}
    executor = Executor(
        Settings(
            instance_address="127.0.0.1:9",
            run_address="127.0.0.1:9",
            concurrency=2,
            poll_seconds=0.02,
            worker_grace_seconds=0,
            **settings,
        ),
        cast("WorkPool", pool),
        _start_guardian,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(executor.run(stop))
    await eventually(lambda: len(pool.ended) == expected)
    stop.set()
    await running


async def _start_guardian() -> Line:
    raise MemoryError


async def test_what_one_look_has_found_is_taken_without_another_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(10)
    order = [*pool.due]
    await _drain(pool, tmp_path, monkeypatch, 10)
    assert pool.claimed == order
    assert [found for found in pool.looks if found] == [10]  # which is room for two, and eight more
    assert 0 < pool.reads <= 8


async def test_what_a_look_has_just_found_is_taken_without_a_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(2)
    await _drain(pool, tmp_path, monkeypatch, 2)
    assert pool.reads == 0


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"])
async def test_a_flow_run_that_another_worker_took_or_ended_meanwhile_is_not_claimed(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(10)
    taken = {[*pool.due][number] for number in (3, 9)}

    def take() -> None:
        pool.states |= dict.fromkeys(taken, state)
        pool.after_look = bool

    pool.after_look = take
    await _drain(pool, tmp_path, monkeypatch, 8)
    assert not taken & {*pool.claimed, *pool.refused, *pool.given_back}
    assert {pool.states[each] for each in taken} == {state}


async def test_a_flow_run_that_ended_between_look_and_claim_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(2)
    ended = [*pool.due][1]

    def end() -> None:
        pool.states[ended] = "COMPLETED"

    pool.after_look = end
    await _drain(pool, tmp_path, monkeypatch, 1)
    assert (pool.given_back, pool.states[ended]) == ([ended], "COMPLETED")
    assert pool.ended == pool.claimed == [next(iter(pool.due))]


async def test_a_flow_run_that_ends_while_the_pool_is_looked_at_is_not_claimed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(1)
    (own,) = pool.due

    async def list_while_it_ends(_: int) -> list[DueRun]:
        pool.looks.append(1)
        if len(pool.looks) == 2:
            release.set()
            await eventually(lambda: pool.ended)
        return [pool.due[own]] if len(pool.looks) < 3 else []

    async def compute(*_: object) -> Ending:
        await release.wait()
        return Ending(Outcome.COMPLETED, "during the second look")

    release = asyncio.Event()
    pool.list_due = list_while_it_ends  # type: ignore[method-assign] # this pool only
    await _drain(pool, tmp_path, monkeypatch, 1, compute)
    assert len(pool.looks) >= 2
    assert (pool.claimed, pool.given_back) == ([own], [])


async def test_a_look_counts_for_a_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "_FRESH_SECONDS", -1.0)
    pool = Pool(6)
    await _drain(pool, tmp_path, monkeypatch, 6)
    assert [found for found in pool.looks if found][:2] == [6, 4]
    assert len(set(pool.claimed)) == len(pool.claimed) == 6
