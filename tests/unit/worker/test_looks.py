"""How often a worker looks into its work pool: each look costs Prefect as much as a state of a flow run."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from servicekit.ids import new_id
from support.polling import eventually
from worker import executor as executor_module
from worker.config import Settings
from worker.execution import Ending, Outcome
from worker.executor import Executor
from worker.guardian import Line
from worker.prefect_adapter import FlowRunRefusedError, WorkPool

NOW = dt.datetime(2026, 1, 2, 16, 30, tzinfo=dt.UTC)


class Pool:
    """A work pool from which each flow run is listed until it is claimed."""

    def __init__(self, count: int) -> None:
        given = {"tenant_id": "acme", "instance_id": new_id(), "flow_kind": "refresh"}
        self.due = {
            each.id: each
            for each in (
                FlowRun(flow_id=uuid4(), parameters=given, expected_start_time=NOW) for _ in range(count)
            )
        }
        self.looks: list[int] = []
        self.claimed: list[UUID] = []
        self.ended: list[UUID] = []
        self.taken: set[UUID] = set()  # by another worker, after they were listed

    async def ensure(self) -> None:
        """There is one."""

    async def list_due(self, limit: int) -> list[FlowRun]:
        found = [*self.due.values()][:limit]
        self.looks.append(len(found))
        return found

    async def claim(self, flow_run: FlowRun) -> None:
        self.due.pop(flow_run.id, None)
        if flow_run.id in self.taken:
            raise FlowRunRefusedError("another worker has it")
        self.claimed.append(flow_run.id)

    async def record_running(self, flow_run_id: UUID) -> None:
        """It is of no interest here."""

    async def record_end(self, flow_run_id: UUID, _: Ending) -> None:
        self.ended.append(flow_run_id)

    async def list_cancelling(self, _: object) -> list[UUID]:
        return []


async def _drain(pool: Pool, folder: Path, monkeypatch: pytest.MonkeyPatch, expected: int) -> None:
    async def compute(*_: object) -> Ending:
        await asyncio.sleep(0)
        return Ending(Outcome.COMPLETED, "at once")

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


async def test_a_flow_run_that_another_worker_took_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(10)
    pool.taken = {[*pool.due][number] for number in (3, 9)}
    await _drain(pool, tmp_path, monkeypatch, 8)
    assert not pool.taken & set(pool.claimed)


async def test_a_look_counts_for_a_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "_FRESH_SECONDS", -1.0)
    pool = Pool(6)
    await _drain(pool, tmp_path, monkeypatch, 6)
    assert [found for found in pool.looks if found][:2] == [6, 4]
    assert len(set(pool.claimed)) == len(pool.claimed) == 6
