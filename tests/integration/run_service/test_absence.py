"""Absence of the service: when it restarts the timeouts of runs, and when it does not."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from optaic.run.v1 import run_pb2
from run_service.domain.pairing import FlowRunState
from run_service.store import queues
from support.run_service import RunningRunService


async def _claimed(service: RunningRunService) -> tuple[run_pb2.Run, str]:
    """A run whose flow run a worker has claimed; the worker died."""
    run = await service.submit(service.instances.add())
    await service.dispatcher.step()
    flow_run_id = (await service.get(run.run_id)).orchestrator_run_id
    service.orchestrator.flow_runs[flow_run_id] = FlowRunState.CLAIMED
    return run, flow_run_id


async def test_a_slow_comparison_does_not_count_as_absence(service: RunningRunService) -> None:
    run, first = await _claimed(service)
    real = service.orchestrator.get_states

    async def be_slow(flow_run_ids: Collection[str]) -> dict[str, FlowRunState]:
        service.clock.advance(20)
        return await real(flow_run_ids)

    service.orchestrator.get_states = be_slow  # type: ignore[method-assign] # a slow one
    for _ in range(5):
        service.clock.advance(5)
        await service.observer.step()
    assert (await service.get(run.run_id)).orchestrator_run_id != first, "it is dispatched again"


async def test_claims_do_not_expire_while_the_database_is_unavailable(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker can start a run while the database is unavailable, and every step of the observer fails."""
    run, first = await _claimed(service)

    async def fail(*_: object) -> None:
        raise OSError("no database")

    for _ in range(4):
        service.clock.advance(5)
        await service.observer.step()
    with monkeypatch.context() as broken:
        broken.setattr(queues, "list_expired_dispatches", fail)
        for _ in range(12):
            service.clock.advance(5)
            with pytest.raises(OSError, match="no database"):
                await service.observer.step()
    for _ in range(4):
        service.clock.advance(5)
        await service.observer.step()
    assert (await service.get(run.run_id)).orchestrator_run_id == first
    for _ in range(4):
        service.clock.advance(5)
        await service.observer.step()
    assert (await service.get(run.run_id)).orchestrator_run_id != first


async def test_giving_up_many_runs_does_not_count_as_absence(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [await service.submit(service.instances.add()) for _ in range(4)]
    for run in runs:
        await service.start(run.run_id)
    await service.leases.step()
    real = queues.lock_expired_leases

    async def be_slow(connection: Any, tenant_id: str, run_ids: Collection[str], now: Any) -> list[str]:
        service.clock.advance(20)
        return await real(connection, tenant_id, run_ids, now)

    monkeypatch.setattr(queues, "lock_expired_leases", be_slow)
    monkeypatch.setattr("run_service.reconcile.leases._BATCH", 1)
    await service.pass_time(31)
    for _ in range(len(runs)):
        await service.leases.step()
    statuses = [(await service.get(run.run_id)).status for run in runs]
    assert statuses == [run_pb2.RUN_STATUS_FAILED] * len(runs)
