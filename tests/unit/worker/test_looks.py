"""How often a worker looks into its work pool: each look costs Prefect as much as a state of a flow run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from support.polling import eventually
from support.work_pool import FakeWorkPool
from worker import executor as executor_module
from worker.config import Settings
from worker.execution import Ending, Outcome
from worker.executor import Executor
from worker.guardian import Line
from worker.prefect_adapter import DueRun, WorkPool


async def _compute(*_: object) -> Ending:
    await asyncio.sleep(0)
    return Ending(Outcome.COMPLETED, "at once")


async def _drain(
    pool: FakeWorkPool,
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
    pool = FakeWorkPool(10)
    order = [*pool.due]
    await _drain(pool, tmp_path, monkeypatch, 10)
    assert pool.claimed == order
    assert [found for found in pool.looks if found] == [10]  # which is room for two, and eight more
    assert 0 < pool.reads <= 8


async def test_what_a_look_has_just_found_is_taken_without_a_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = FakeWorkPool(2)
    await _drain(pool, tmp_path, monkeypatch, 2)
    assert pool.reads == 0


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"])
async def test_a_flow_run_that_another_worker_took_or_ended_meanwhile_is_not_claimed(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = FakeWorkPool(10)
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
    pool = FakeWorkPool(2)
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
    pool = FakeWorkPool(1)
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
    pool.list_due = list_while_it_ends  # type: ignore[method-assign,assignment] # this pool only
    await _drain(pool, tmp_path, monkeypatch, 1, compute)
    assert len(pool.looks) >= 2
    assert (pool.claimed, pool.given_back) == ([own], [])


async def test_a_look_counts_for_a_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "_FRESH_SECONDS", -1.0)
    pool = FakeWorkPool(6)
    await _drain(pool, tmp_path, monkeypatch, 6)
    assert [found for found in pool.looks if found][:2] == [6, 4]
    assert len(set(pool.claimed)) == len(pool.claimed) == 6
