"""Ticks that a user cancels in Prefect before a worker claims them: exactly these are recorded as cancelled."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from optaic.instance.v1 import instance_pb2, schedule_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.pairing import FlowRunState
from run_service.ports import FlowRun
from run_service.use_cases import lost_ticks
from run_service.use_cases.admission import FoundFlow
from servicekit.errors import UnavailableError
from support.run_peers import flow_of
from support.run_service import RunningRunService, refused

NOW = datetime(2024, 1, 2, 3, 4, tzinfo=UTC)  # the minute of the clock
CANCELLED = run_pb2.RUN_STATUS_CANCELLED


def _scheduled(service: RunningRunService) -> instance_pb2.Instance:
    instance = service.instances.add()
    cron = schedule_pb2.CronSchedule(expression="* * * * *")
    instance.schedule.CopyFrom(schedule_pb2.Schedule(cron=cron))
    return instance


def _plan(service: RunningRunService, instance: instance_pb2.Instance, time: datetime) -> str:
    """A flow run as the orchestrator's clock makes it, ahead of its time."""
    return service.orchestrator.add("default", instance.instance_id, "refresh", scheduled_time=time)


def _cancel(service: RunningRunService, flow_run_id: str) -> None:
    assert service.orchestrator.flow_runs[flow_run_id] is FlowRunState.WAITING
    service.orchestrator.flow_runs[flow_run_id] = FlowRunState.CANCELLED


async def _start(
    service: RunningRunService, instance: instance_pb2.Instance, flow_run_id: str, time: datetime
) -> run_pb2.Run:
    request = service.request(flow_run_id)
    request.scheduled.flow.CopyFrom(flow_of(instance))
    request.scheduled.scheduled_time.CopyFrom(Timestamp(seconds=int(time.timestamp())))
    return (await service.send(request)).run


async def _look(service: RunningRunService, times: int = 3) -> None:
    for _ in range(times):
        service.clock.advance(10)
        await service.sweeper.step()
        await service.ender.step()


async def _listed(service: RunningRunService) -> list[tuple[int, int, str]]:
    runs = (await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs
    return [(run.run_number, run.status, run.error.type) for run in runs]


@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(0), timedelta(hours=-1)])
async def test_a_scheduled_run_cancelled_in_prefect_is_recorded_once(
    service: RunningRunService, ahead: timedelta
) -> None:
    instance = _scheduled(service)
    flow_run_id = _plan(service, instance, NOW + ahead)
    await _look(service)
    assert await _listed(service) == []
    _cancel(service, flow_run_id)
    await _look(service)
    (run,) = (await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs
    assert (run.run_number, run.status, run.error.type) == (0, CANCELLED, "TICK_CANCELLED")
    assert run.error.message == "the flow run of the scheduled time was cancelled in Prefect"
    assert run.trigger == run_pb2.RUN_TRIGGER_SCHEDULE
    assert run.orchestrator_run_id == flow_run_id
    assert run.scheduled_time.ToDatetime(UTC) == NOW + ahead
    # A user restarts the flow run in Prefect: the ended run stays ended.
    assert (await _start(service, instance, flow_run_id, NOW + ahead)).status == CANCELLED
    async with refused("FENCED"):
        await _start(service, instance, str(uuid.uuid4()), NOW + ahead)
    assert len(await _listed(service)) == 1


async def test_scheduled_runs_whose_flow_run_was_cancelled_for_another_reason_are_not_cancelled(
    service: RunningRunService,
) -> None:
    late, paused, stranger = _scheduled(service), _scheduled(service), str(uuid.uuid4())
    paused.state = instance_pb2.INSTANCE_STATE_PAUSED
    hour = timedelta(hours=1)
    flow_runs = {each.instance_id: _plan(service, each, NOW - hour) for each in (late, paused)}
    told = await _start(service, late, flow_runs[late.instance_id], NOW - hour)
    assert told.error.type == "TICK_WAITING"
    await _start(service, paused, flow_runs[paused.instance_id], NOW - hour)
    submitted = await service.submit(service.instances.add())
    await service.dispatcher.step()
    for flow_run_id in list(service.orchestrator.flow_runs):
        service.orchestrator.flow_runs[flow_run_id] = FlowRunState.CANCELLED
    other = service.orchestrator.add("default", stranger, "refresh")
    _cancel(service, other)
    await _look(service)
    assert await _listed(service) == [(1, submitted.status, ""), (0, CANCELLED, "INSTANCE_PAUSED")]
    await service.ticker.step()
    assert len(await _listed(service)) == 3
    assert (await _listed(service))[0] == (1, run_pb2.RUN_STATUS_PENDING, ""), "its turn came"
    await _look(service)
    assert len(await _listed(service)) == 3


async def test_a_scheduled_time_that_cannot_be_decided_yet_is_checked_again(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = _scheduled(service)
    _cancel(service, _plan(service, instance, NOW))
    asked: list[datetime] = []
    real = service.orchestrator.list_cancelled

    async def listed(since: datetime) -> list[FlowRun]:
        asked.append(since)
        return await real(since)

    monkeypatch.setattr(service.orchestrator, "list_cancelled", listed)

    async def be_away(*_: object) -> FoundFlow:
        raise UnavailableError("DEPENDENCY_UNAVAILABLE", "retry")

    with monkeypatch.context() as broken:
        broken.setattr(lost_ticks, "find_flow", be_away)
        service.clock.advance(600)
        await _look(service)
    assert len(set(asked)) == 1, "what is not decided stays among what is asked for"
    assert asked[0] <= NOW - timedelta(hours=23), "so does what was cancelled while nobody was here"
    await _look(service)
    assert await _listed(service) == [(0, CANCELLED, "TICK_CANCELLED")]
    assert asked[-1] > NOW, "and no more than what is new is asked for"
