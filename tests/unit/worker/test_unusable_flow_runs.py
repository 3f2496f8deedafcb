"""Flow runs that no worker can execute, or that something goes wrong with on the way to a process: each of them ends."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from servicekit.ids import new_id
from support.polling import eventually
from worker.config import Settings
from worker.execution import Ending, Outcome
from worker.executor import Executor
from worker.guardian import Line
from worker.prefect_adapter import DueRun, FlowRunRefusedError, WorkPool
from worker.ticket import Ticket, TicketInvalidError

NOW = dt.datetime(2026, 1, 2, 16, 30, tzinfo=dt.UTC)
GIVEN: dict[str, Any] = {"tenant_id": "acme", "instance_id": new_id(), "flow_kind": "refresh"}

ODD: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["tenant_id is missing", "instance_id is missing", "flow_kind is missing"]),
    ({**GIVEN, "instance_id": 5}, ["instance_id is 5, but must be the id of an instance"]),
    ({**GIVEN, "instance_id": "prices"}, ["instance_id is 'prices'"]),
    ({**GIVEN, "instance_id": None}, ["instance_id is None"]),
    ({**GIVEN, "tenant_id": "Acme\r\nx"}, ["tenant_id is 'Acme\\r\\nx'"]),
    ({**GIVEN, "tenant_id": ["acme"]}, ["tenant_id is ['acme']"]),
    ({**GIVEN, "flow_kind": "unspecified"}, ["flow_kind is 'unspecified'", "one of refresh, "]),
    ({**GIVEN, "flow_kind": "REFRESH"}, ["flow_kind is 'REFRESH'"]),
    ({**GIVEN, "flow_kind": {}}, ["flow_kind is {}"]),
    ({**GIVEN, "run_id": "7"}, ["run_id is '7'"]),
    ({**GIVEN, "run_id": 7.5}, ["run_id is 7.5"]),
    ({**GIVEN, "start": "2024-01-01"}, ["'start' is not a parameter of this flow"]),
    ({**GIVEN, "run_id": "x" * 10_000}, ["run_id is 'xxx"]),
]


class Pool:
    """A work pool with one flow run, and what was recorded of it."""

    def __init__(self, flow_run: DueRun) -> None:
        self.flow_run = flow_run
        self.states: list[tuple[str, str]] = []

    async def ensure(self) -> None:
        """There is one."""

    async def list_due(self, _: int) -> Sequence[DueRun]:
        return [] if self.states else [self.flow_run]

    async def claim(self, _: UUID) -> None:
        """Nobody else wants it."""

    async def record_running(self, flow_run_id: UUID) -> None:
        assert flow_run_id == self.flow_run.id

    async def list_cancelling(self, _: object) -> Sequence[UUID]:
        return []

    async def record_failed(self, flow_run_id: UUID, message: str) -> None:
        assert flow_run_id == self.flow_run.id
        self.states.append(("FAILED", message))

    async def record_crashed(self, flow_run_id: UUID, message: str) -> None:
        assert flow_run_id == self.flow_run.id
        self.states.append(("CRASHED", message))


async def _start_guardian() -> Line:
    raise MemoryError


IDENTITY: dict[str, Any] = {"executor_token": "secret", "tenants": ("acme",)}


async def _execute(pool: Pool, folder: Path, **changes: Any) -> tuple[str, str]:
    """Run a worker until the flow run has ended; how it did."""
    settings = Settings(
        instance_address="127.0.0.1:9",
        run_address="127.0.0.1:9",
        data_root=str(folder),
        poll_seconds=0.01,
        worker_grace_seconds=0,
        start_patience_seconds=0,
        **{**IDENTITY, **changes},
    )
    executor = Executor(settings, cast("WorkPool", pool), _start_guardian)
    stop = asyncio.Event()
    running = asyncio.create_task(executor.run(stop))
    try:
        await eventually(lambda: pool.states, 10)
    finally:
        stop.set()
        await running
    return pool.states[0]


def _flow_run(parameters: dict[str, Any]) -> DueRun:
    return DueRun(uuid4(), parameters, NOW)


@pytest.mark.parametrize(("parameters", "said"), ODD)
async def test_a_flow_run_with_foreign_parameters_fails_with_the_reason(
    parameters: dict[str, Any], said: list[str], tmp_path: Path
) -> None:
    state, message = await _execute(Pool(_flow_run(parameters)), tmp_path)
    assert state == "FAILED"
    assert [text for text in said if text not in message] == []
    assert "optaic run submit" in message
    assert len(message) < 1000


async def test_a_worker_refuses_flow_runs_of_other_tenants(tmp_path: Path) -> None:
    pool = Pool(_flow_run(GIVEN))
    state, message = await _execute(pool, tmp_path, tenants=("rival",))
    assert state == "FAILED"
    assert "this worker serves the tenant rival, not acme" in message


def test_a_worker_serves_one_tenant_and_has_an_identity_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: dict[str, Any] = {
        "instance_address": "127.0.0.1:1",
        "run_address": "127.0.0.1:1",
        "data_root": str(tmp_path),
    }
    files: dict[str, Any] = {"tls_certificate": tmp_path / "worker.pem", "tls_key": tmp_path / "worker.key"}
    for identity in ({"executor_token": "secret"}, files):
        for tenants in ((), ("acme", "rival")):
            with pytest.raises(ValueError, match="must name exactly one tenant"):
                Settings(**addresses, **identity, tenants=tenants)
        assert Settings(**addresses, **identity, tenants=("acme",)).tenant_id == "acme"
    monkeypatch.setenv("OPTAIC_SERVICE_TOKEN", "of-the-services")
    with pytest.raises(ValueError, match="OPTAIC_EXECUTOR_TOKEN is missing"):
        Settings(**addresses, tenants=("acme",))
    assert "of-the-services" not in repr(Settings(**addresses, **IDENTITY).model_dump())


def test_the_worker_of_each_tenant_polls_a_pool_of_its_own(tmp_path: Path) -> None:
    pools = {
        tenant: Settings(
            instance_address="127.0.0.1:1",
            run_address="127.0.0.1:1",
            data_root=str(tmp_path),
            executor_token="secret",
            tenants=(tenant,),
            work_pool="shared",
        ).own_work_pool
        for tenant in ("default", "acme")
    }
    assert pools == {"default": "shared", "acme": "shared-acme"}


async def test_a_flow_run_whose_run_cannot_be_started_ends_as_failed_with_the_reason(tmp_path: Path) -> None:
    state, message = await _execute(Pool(_flow_run(GIVEN)), tmp_path)
    assert state == "FAILED"
    assert "UNAVAILABLE" in message.upper()


async def test_a_flow_run_that_prefect_lets_nobody_start_is_left_alone(tmp_path: Path) -> None:
    pool = Pool(_flow_run(GIVEN))
    asked = asyncio.Event()

    async def refuse(_: UUID) -> None:
        asked.set()
        raise FlowRunRefusedError("it was cancelled")

    pool.record_running = refuse  # type: ignore[method-assign,assignment] # this pool only
    running = asyncio.create_task(_execute(pool, tmp_path))
    await asyncio.wait_for(asked.wait(), 10)
    assert pool.states == []
    running.cancel()
    await asyncio.wait({running})


async def test_a_flow_run_that_was_ended_since_its_claim_is_executed_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[object, ...]] = []

    async def compute(*_: object) -> None:
        try:
            await asyncio.sleep(3600)  # the work of the run; it is cancelled
        except asyncio.CancelledError as error:
            ended.append(error.args)
            raise

    async def refuse(_: UUID) -> None:
        await asyncio.sleep(0)  # the execution begins meanwhile
        raise FlowRunRefusedError("it was cancelled")

    monkeypatch.setattr("worker.executor.execute_run", compute)
    pool = Pool(_flow_run(GIVEN))
    pool.record_running = refuse  # type: ignore[method-assign,assignment] # this pool only
    running = asyncio.create_task(_execute(pool, tmp_path))
    await eventually(lambda: ended)
    assert ended[0] == ("abandoned",)  # so that it is not reported as failed
    assert pool.states == []
    running.cancel()
    await asyncio.wait({running})


async def test_the_end_of_a_flow_run_is_recorded_after_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compute(*_: object) -> Ending:
        return Ending(Outcome.COMPLETED, "at once")

    pool = Pool(_flow_run(GIVEN))

    async def record_running(_: UUID) -> None:
        await asyncio.sleep(0.05)  # Prefect takes its time
        pool.states.append(("RUNNING", ""))

    async def record_end(_: UUID, ending: Ending) -> None:
        pool.states.append(("COMPLETED", ending.message))

    monkeypatch.setattr("worker.executor.execute_run", compute)
    pool.record_running = record_running  # type: ignore[method-assign,assignment] # this pool only
    pool.record_end = record_end  # type: ignore[attr-defined] # this pool only
    await _execute(pool, tmp_path)
    await eventually(lambda: len(pool.states) > 1)
    assert pool.states == [("RUNNING", ""), ("COMPLETED", "at once")]


async def test_a_worker_that_stops_says_so_of_its_flow_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compute(*_: object) -> None:
        await asyncio.sleep(3600)  # the work of the run; it is cancelled

    monkeypatch.setattr("worker.executor.execute_run", compute)
    pool = Pool(_flow_run(GIVEN))
    settings = Settings(
        instance_address="127.0.0.1:9",
        run_address="127.0.0.1:9",
        data_root=str(tmp_path),
        **IDENTITY,
        poll_seconds=0.01,
        worker_grace_seconds=0,
    )
    executor, stop = Executor(settings, cast("WorkPool", pool), _start_guardian), asyncio.Event()
    running = asyncio.create_task(executor.run(stop))
    await eventually(lambda: executor._running)
    stop.set()
    await running
    assert pool.states == [("CRASHED", "The worker was stopped while it executed the flow run.")]


async def test_a_flow_run_that_is_cancelled_in_prefect_is_given_up_without_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compute(*_: object) -> None:
        await asyncio.sleep(3600)  # the work of the run; it is cancelled

    monkeypatch.setattr("worker.executor.execute_run", compute)
    pool = Pool(_flow_run(GIVEN))

    async def list_cancelling(ids: Sequence[UUID]) -> Sequence[UUID]:
        return list(ids)

    async def record_cancelled(_: UUID) -> None:
        pool.states.append(("CANCELLED", ""))

    pool.list_cancelling = list_cancelling  # type: ignore[method-assign,assignment] # this pool only
    pool.record_cancelled = record_cancelled  # type: ignore[attr-defined] # the same
    settings = Settings(
        instance_address="127.0.0.1:9",
        run_address="127.0.0.1:9",
        data_root=str(tmp_path),
        **IDENTITY,
        poll_seconds=0.01,
        cancellation_poll_seconds=0.01,
    )
    executor, stop = Executor(settings, cast("WorkPool", pool), _start_guardian), asyncio.Event()
    running = asyncio.create_task(executor.run(stop))
    await eventually(lambda: pool.states and not executor._tasks)
    stop.set()
    await running
    assert pool.states == [("CANCELLED", "")]


async def test_a_fault_of_the_worker_itself_ends_the_flow_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: DueRun) -> Ticket:
        raise OSError("no host name")

    monkeypatch.setattr("worker.executor.make_ticket", fail)
    state, message = await _execute(Pool(_flow_run(GIVEN)), tmp_path)
    assert state == "CRASHED"
    assert "OSError; see the worker's log" in message


def test_a_flow_run_of_the_schedule_or_of_a_submission_is_accepted() -> None:
    assert not Ticket.read(GIVEN, "f", NOW).run_id
    run_id = new_id()
    assert Ticket.read({**GIVEN, "run_id": run_id}, "f", NOW).make_request().run_id == run_id
    with pytest.raises(TicketInvalidError, match="but must be"):
        Ticket.read({**GIVEN, "run_id": run_id.upper()}, "f", NOW)
