"""Scheduled times whose upstream flows change while run-service decides about them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2, schedule_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from support.run_peers import Answer, Check, flow_of
from support.run_service import RunningRunService

_NOW = datetime(2024, 1, 2, 3, 4, tzinfo=UTC)  # the minute of the clock


def _chain(service: RunningRunService) -> tuple[instance_pb2.Instance, instance_pb2.Instance]:
    """Add prices, whose data is late, and what is computed from them every minute."""
    prices = service.instances.add()
    derived = service.instances.add(upstreams=[prices])
    derived.schedule.CopyFrom(schedule_pb2.Schedule(cron=schedule_pb2.CronSchedule(expression="* * * * *")))
    service.lineage.upstreams = [
        lineage_pb2.FlowState(
            flow=flow_of(prices),
            instance_name=prices.name,
            status=flow_pb2.STATUS_STALE,
            freshness_status=lineage_pb2.FRESHNESS_STATUS_OVERDUE,
        )
    ]
    return prices, derived


async def _tick(service: RunningRunService, instance: instance_pb2.Instance) -> run_pb2.Run:
    request = service.request(str(uuid.uuid4()))
    request.scheduled.flow.CopyFrom(flow_of(instance))
    request.scheduled.scheduled_time.CopyFrom(Timestamp(seconds=int(_NOW.timestamp())))
    return (await service.send(request)).run


def _blocked_by(prices: instance_pb2.Instance) -> Answer:
    blocking = lineage_pb2.BlockingFlow(
        flow=flow_of(prices), instance_name=prices.name, status=flow_pb2.STATUS_ERROR, reason="run 1 failed"
    )
    return Answer(blocking=[blocking])


async def test_what_counts_as_ready_since_the_answer_refuses_nothing(service: RunningRunService) -> None:
    prices, derived = _chain(service)

    def answer(_: Check) -> Answer:
        is_first = len(service.lineage.requests) == 1
        return _blocked_by(prices) if is_first else Answer(all_ready=True)

    service.lineage.answer = answer
    assert (await _tick(service, derived)).error.type == "TICK_WAITING"
    service.clock.advance(6)
    await service.ticker.step()
    request = run_service_pb2.ListRunsRequest(instance_id=derived.instance_id)
    (run,) = (await service.runs.ListRuns(request)).runs
    assert (run.status, run.scheduled_time.ToDatetime(UTC)) == (run_pb2.RUN_STATUS_PENDING, _NOW)


async def test_what_still_blocks_refuses(service: RunningRunService) -> None:
    prices, derived = _chain(service)
    service.lineage.answer = lambda _: _blocked_by(prices)
    assert (await _tick(service, derived)).error.type == "UPSTREAM_NOT_READY"
    assert len(service.lineage.requests) == 2


async def test_a_flow_that_blocks_and_is_not_listed_is_waited_for_while_a_run_may_cure_it(
    service: RunningRunService,
) -> None:
    prices, derived = _chain(service)
    (state,) = service.lineage.upstreams
    state.freshness_status = lineage_pb2.FRESHNESS_STATUS_UNSPECIFIED
    state.outcome = lineage_pb2.FLOW_OUTCOME_SUCCEEDED
    service.lineage.answer = lambda _: Answer(blocking_count=20_000)
    assert (await _tick(service, derived)).error.type == "UPSTREAM_NOT_READY"
    service.lineage.answer = lambda _: Answer(all_ready=True)
    await service.submit(prices)  # after the scheduled time
    service.lineage.answer = lambda _: Answer(blocking_count=20_000)
    other = service.instances.add(upstreams=[prices])
    other.schedule.CopyFrom(derived.schedule)
    assert (await _tick(service, other)).error.type == "TICK_WAITING"
