"""Ticks under each overlap and catch-up policy: every scheduled time gets exactly one run."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from optaic.instance.v1 import instance_pb2, schedule_pb2
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from run_service.reconcile.due_work import due_ticks
from support.run_peers import flow_of
from support.run_service import RunningRunService

_Response = run_report_service_pb2.StartRunResponse
_START = datetime(2024, 1, 2, 3, 4, tzinfo=UTC)  # the minute of the clock
LATEST, ALL, NONE = 1, 2, 3
SKIP, QUEUE_ONE, CANCEL_PREVIOUS = 1, 2, 3


def _scheduled(service: RunningRunService, *, overlap: int = 0, catch_up: int = 0) -> instance_pb2.Instance:
    instance = service.instances.add()
    instance.schedule.CopyFrom(
        schedule_pb2.Schedule(
            cron=schedule_pb2.CronSchedule(expression="* * * * *"),
            overlap_policy=overlap,  # type: ignore[arg-type]  # its number
            catch_up_policy=catch_up,  # type: ignore[arg-type]  # a number of the enum
        )
    )
    return instance


async def _tick(
    service: RunningRunService, instance: instance_pb2.Instance, minute: int = 0, flow_run_id: str = ""
) -> run_pb2.Run:
    """A tick this many minutes before the clock's start, or after it where negative."""
    request = service.request(flow_run_id or str(uuid.uuid4()))
    request.scheduled.flow.CopyFrom(flow_of(instance))
    request.scheduled.scheduled_time.CopyFrom(Timestamp(seconds=int(_START.timestamp()) - 60 * minute))
    return (await service.send(request)).run


async def _listed(service: RunningRunService, instance: instance_pb2.Instance) -> list[tuple[int, int, str]]:
    """(minute before the start, status, why) of all runs, oldest tick first."""
    request = run_service_pb2.ListRunsRequest(instance_id=instance.instance_id)
    runs = (await service.runs.ListRuns(request)).runs
    return sorted(
        (
            (int(_START.timestamp()) - run.scheduled_time.seconds) // 60
            if run.HasField("scheduled_time")
            else -1,
            run.status,
            run.error.type,
        )
        for run in runs
    )[::-1]


async def _look(service: RunningRunService, seconds: float = 6) -> None:
    service.clock.advance(seconds)
    await service.ticker.step()


async def test_the_latest_of_several_late_scheduled_times_is_run(service: RunningRunService) -> None:
    instance = _scheduled(service)
    for minute in (60, 90, 30):
        told = await _tick(service, instance, minute)
        assert (told.status, told.error.type) == (run_pb2.RUN_STATUS_PENDING, "TICK_WAITING")
    assert await _listed(service, instance) == []
    await _look(service)
    assert await _listed(service, instance) == [
        (90, run_pb2.RUN_STATUS_CANCELLED, "TICK_SUPERSEDED"),
        (60, run_pb2.RUN_STATUS_CANCELLED, "TICK_SUPERSEDED"),
        (30, run_pb2.RUN_STATUS_PENDING, ""),
    ]
    assert await service.dispatcher.step()  # by a flow run of its own
    await _look(service)
    assert len(await _listed(service, instance)) == 3


async def test_a_punctual_scheduled_run_supersedes_late_ones(service: RunningRunService) -> None:
    instance = _scheduled(service)
    await _tick(service, instance, 30)
    assert (await _tick(service, instance)).status == run_pb2.RUN_STATUS_RUNNING
    await _look(service)
    assert await _listed(service, instance) == [
        (30, run_pb2.RUN_STATUS_CANCELLED, "TICK_SUPERSEDED"),
        (0, run_pb2.RUN_STATUS_RUNNING, ""),
    ]


async def test_all_late_scheduled_times_are_run_in_order(service: RunningRunService) -> None:
    instance = _scheduled(service, catch_up=ALL)
    for minute in (30, 90, 60):
        await _tick(service, instance, minute)
    assert (await _tick(service, instance)).error.type == "TICK_WAITING"  # behind them
    order = []
    for _ in range(4):
        await _look(service)
        await _look(service)  # the next one's turn comes when this one has ended
        (active,) = (
            run
            for run in (
                await service.runs.ListRuns(run_service_pb2.ListRunsRequest(instance_id=instance.instance_id))
            ).runs
            if run.status == run_pb2.RUN_STATUS_PENDING
        )
        order.append((int(_START.timestamp()) - active.scheduled_time.seconds) // 60)
        await service.cancel(active.run_id)
    assert order == [90, 60, 30, 0]
    assert len(await _listed(service, instance)) == 4


async def test_late_scheduled_times_may_be_dropped(service: RunningRunService) -> None:
    instance = _scheduled(service, catch_up=NONE)
    assert (await _tick(service, instance, 30)).error.type == "TICK_MISSED"
    assert (await _tick(service, instance, 1)).status == run_pb2.RUN_STATUS_RUNNING


async def test_one_scheduled_run_waits_for_the_active_run(service: RunningRunService) -> None:
    instance = _scheduled(service, overlap=QUEUE_ONE)
    active = await _tick(service, instance, 1)
    assert (await _tick(service, instance, 0)).error.type == "TICK_WAITING"
    assert (await _tick(service, instance, -1)).error.type == "TICK_SKIPPED"
    await _look(service)
    assert len(await _listed(service, instance)) == 2
    await service.cancel(active.run_id)
    await _look(service)
    assert await _listed(service, instance) == [
        (1, run_pb2.RUN_STATUS_CANCELLED, "CANCELLED"),
        (0, run_pb2.RUN_STATUS_PENDING, ""),
        (-1, run_pb2.RUN_STATUS_CANCELLED, "TICK_SKIPPED"),
    ]


async def test_the_previous_run_is_cancelled_for_the_next(service: RunningRunService) -> None:
    instance = _scheduled(service, overlap=CANCEL_PREVIOUS)
    first = await service.submit(instance)
    second = await _tick(service, instance)
    assert second.status == run_pb2.RUN_STATUS_RUNNING
    assert (await service.get(first.run_id)).status == run_pb2.RUN_STATUS_CANCELLED
    await _tick(service, instance, -1)
    assert (await service.get(second.run_id)).status == run_pb2.RUN_STATUS_CANCELLED


async def test_a_paused_instance_runs_manually_but_not_on_schedule(service: RunningRunService) -> None:
    instance = _scheduled(service)
    late = await _tick(service, instance, 30)
    instance.state = instance_pb2.INSTANCE_STATE_PAUSED
    assert (await _tick(service, instance)).error.type == "INSTANCE_PAUSED"
    await _look(service)
    assert late.error.type == "TICK_WAITING"
    assert [why for _, _, why in await _listed(service, instance)] == ["INSTANCE_PAUSED", "INSTANCE_PAUSED"]
    assert (await service.submit(instance)).status == run_pb2.RUN_STATUS_PENDING


async def test_each_scheduled_time_gets_one_run_even_if_its_flow_run_starts_twice(
    service: RunningRunService,
) -> None:
    """Two replicas look at the same time, and several flow runs start for the same ticks."""
    for catch_up in (LATEST, ALL):
        instance = _scheduled(service, catch_up=catch_up)
        flow_runs = {minute: str(uuid.uuid4()) for minute in (90, 60, 30)}
        for _ in range(2):
            await asyncio.gather(
                *(_tick(service, instance, minute, one) for minute, one in flow_runs.items()),
                *(_tick(service, instance, minute) for minute in flow_runs),
            )
        replicas = [service.ticker, due_ticks(service.app.deps)]
        for _ in range(8):
            service.clock.advance(40)  # also past a claim of a replica that died
            await asyncio.gather(*(replica.step() for replica in replicas))
            request = run_service_pb2.ListRunsRequest(instance_id=instance.instance_id)
            for run in (await service.runs.ListRuns(request)).runs:
                if run.status == run_pb2.RUN_STATUS_PENDING:
                    await service.cancel(run.run_id)
        listed = await _listed(service, instance)
        assert [minute for minute, _, _ in listed] == [90, 60, 30]
        whys = [why for _, _, why in listed]
        assert whys == (["CANCELLED"] * 3 if catch_up == ALL else [*["TICK_SUPERSEDED"] * 2, "CANCELLED"])


async def test_a_waiting_scheduled_run_of_a_deleted_instance_is_dropped(service: RunningRunService) -> None:
    instance = _scheduled(service)
    await _tick(service, instance, 30)
    del service.instances.by_id[instance.instance_id]
    await _look(service)
    service.instances.by_id[instance.instance_id] = instance
    await _look(service)
    assert await _listed(service, instance) == []
