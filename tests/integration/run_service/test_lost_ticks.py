"""Ticks of a schedule whose flow run was claimed, lost or cancelled before it started."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from optaic.instance.v1 import instance_pb2, schedule_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.pairing import FlowRunState
from run_service.store import endings
from support.run_peers import flow_of
from support.run_service import RunningRunService, refused
from support.workshop import Workshop


def _scheduled(service: RunningRunService, catch_up: int = 0) -> instance_pb2.Instance:
    instance = service.instances.add()
    instance.schedule.CopyFrom(
        schedule_pb2.Schedule(
            cron=schedule_pb2.CronSchedule(expression="* * * * *"),
            catch_up_policy=catch_up,  # type: ignore[arg-type]  # its number
        )
    )
    return instance


async def _runs(service: RunningRunService) -> list[run_pb2.Run]:
    return list((await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs)


def _tick(service: RunningRunService, instance: instance_pb2.Instance, state: FlowRunState) -> str:
    flow_run_id = service.orchestrator.add(
        "default",
        instance.instance_id,
        "refresh",
        scheduled_time=datetime(2024, 1, 2, 3, 4, tzinfo=UTC),
    )
    service.orchestrator.flow_runs[flow_run_id] = state
    return flow_run_id


async def _start_tick(service: RunningRunService, instance: instance_pb2.Instance, flow_run_id: str) -> None:
    request = service.request(flow_run_id)
    request.scheduled.flow.CopyFrom(flow_of(instance))
    request.scheduled.scheduled_time.FromDatetime(datetime(2024, 1, 2, 3, 4, tzinfo=UTC))
    await service.send(request)


@pytest.mark.parametrize("state", [FlowRunState.CLAIMED, FlowRunState.RUNNING])
async def test_a_scheduled_run_claimed_but_not_started_is_run_by_another_flow_run(
    workshop: Workshop, state: FlowRunState
) -> None:
    service = workshop.service
    instance = _scheduled(service)
    lost = _tick(service, instance, state)
    await workshop.pass_time(29)
    assert await _runs(service) == []
    assert service.orchestrator.flow_runs[lost] is state
    await workshop.pass_time(10)
    (run,) = await _runs(service)
    assert (run.status, run.trigger) == (run_pb2.RUN_STATUS_COMPLETED, run_pb2.RUN_TRIGGER_SCHEDULE)
    assert run.scheduled_time.ToDatetime() == datetime(2024, 1, 2, 3, 4)  # noqa: DTZ001 - protobuf's are naive UTC
    assert run.orchestrator_run_id != lost
    assert service.orchestrator.flow_runs[lost] is FlowRunState.CANCELLED
    async with refused("FENCED"):
        await _start_tick(service, instance, lost)
    assert len(await _runs(service)) == 1


async def test_a_lost_scheduled_run_that_starts_late_is_fenced(workshop: Workshop) -> None:
    service = workshop.service
    instance = _scheduled(service)
    lost = _tick(service, instance, FlowRunState.CLAIMED)
    await service.sweeper.step()
    service.clock.advance(31)
    await service.sweeper.step()
    async with refused("FENCED"):
        await _start_tick(service, instance, lost)
    assert await _runs(service) == []
    async with service.app.deps.database.transaction("default") as connection:
        assert await endings.is_ending(connection, "default", lost)


async def test_a_lost_scheduled_run_is_missed_without_catch_up(workshop: Workshop) -> None:
    service = workshop.service
    lost = _tick(service, _scheduled(service, catch_up=3), FlowRunState.CLAIMED)
    await workshop.pass_time(40)
    (run,) = await _runs(service)
    assert (run.run_number, run.status, run.error.type) == (
        0,
        run_pb2.RUN_STATUS_CANCELLED,
        "TICK_MISSED",
    )
    assert service.orchestrator.flow_runs[lost] is FlowRunState.CANCELLED


async def test_a_scheduled_run_cancelled_in_prefect_before_its_start_is_recorded_as_cancelled(
    workshop: Workshop,
) -> None:
    service = workshop.service
    lost = _tick(service, _scheduled(service), FlowRunState.CANCELLING)
    await workshop.pass_time(2)
    (run,) = await _runs(service)
    assert (run.status, run.error.type) == (run_pb2.RUN_STATUS_CANCELLED, "TICK_CANCELLED")
    assert service.orchestrator.flow_runs[lost] is FlowRunState.CANCELLED
