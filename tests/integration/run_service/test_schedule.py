"""Flow runs that Prefect starts by schedule are adopted once, after admission."""

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import grpc

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from servicekit.status import from_rpc_error
from support.run_peers import Answer, flow_of, unavailable
from support.run_service import RunningRunService, refused

_Response = run_report_service_pb2.StartRunResponse


async def _tick(
    service: RunningRunService, instance: instance_pb2.Instance, flow_run_id: str, *, minute: int = 0
) -> _Response:
    if not instance.HasField("schedule"):
        instance.schedule.cron.expression = "* * * * *"
    request = service.request(flow_run_id)
    request.scheduled.flow.CopyFrom(flow_of(instance))
    request.scheduled.scheduled_time.FromDatetime(datetime(2024, 1, 2, 3, 3 + minute, tzinfo=UTC))
    return await service.send(request)


def _id() -> str:
    return str(uuid.uuid4())


async def test_a_scheduled_flow_run_becomes_a_run(service: RunningRunService) -> None:
    instance, flow_run_id = service.instances.add(), _id()
    started = await _tick(service, instance, flow_run_id)
    assert started.run.status == run_pb2.RUN_STATUS_RUNNING
    assert started.run.trigger == run_pb2.RUN_TRIGGER_SCHEDULE
    assert started.run.actor == "schedule"
    assert started.run.orchestrator_run_id == flow_run_id
    assert started.run.scheduled_time.ToDatetime() == datetime(2024, 1, 2, 3, 3)  # noqa: DTZ001 - protobuf's are naive UTC
    assert started.fencing_token
    assert await _tick(service, instance, flow_run_id) == started
    assert await service.outbox_types() == ["submitted", "started"]
    completed = await service.complete(started.run.run_id, started.fencing_token)
    assert completed.status == run_pb2.RUN_STATUS_COMPLETED
    assert not await service.dispatcher.step()  # it is never dispatched


async def test_concurrent_starts_adopt_once(service: RunningRunService) -> None:
    instance, flow_run_id = service.instances.add(), _id()
    answers = await asyncio.gather(*(_tick(service, instance, flow_run_id) for _ in range(10)))
    assert len({answer.run.run_id for answer in answers}) == 1
    assert len({answer.fencing_token for answer in answers}) == 1
    assert await service.outbox_types() == ["submitted", "started"]


async def test_a_scheduled_time_is_run_once(service: RunningRunService) -> None:
    instance = service.instances.add()
    answers: list[Any] = await asyncio.gather(
        *(_tick(service, instance, _id()) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(each, _Response) for each in answers) == 1
    refusals = [from_rpc_error(each) for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert {refusal.reason for refusal in refusals} == {"FENCED"}
    listed = await service.runs.ListRuns(run_service_pb2.ListRunsRequest())
    assert len(listed.runs) == 1


async def test_a_scheduled_run_refused_at_admission_is_recorded_as_cancelled(
    service: RunningRunService,
) -> None:
    instance, flow_run_id = service.instances.add(), _id()
    service.lineage.answer = lambda _: Answer(
        blocking=[
            lineage_pb2.BlockingFlow(flow=flow_of(instance), instance_name="x", status=flow_pb2.STATUS_STALE)
        ]
    )
    answer = await _tick(service, instance, flow_run_id)
    assert answer.run.status == run_pb2.RUN_STATUS_CANCELLED
    assert answer.run.error.type == "UPSTREAM_NOT_READY"
    assert answer.run.run_number == 0
    assert answer.fencing_token == ""
    assert await _tick(service, instance, flow_run_id) == answer
    assert await service.outbox_types() == ["cancelled"]
    assert await service.activity_types(answer.run.run_id) == ["pipeline_run.cancelled"]


async def test_a_scheduled_run_during_an_active_run_is_refused(service: RunningRunService) -> None:
    instance = service.instances.add()
    active = await service.submit(instance)
    answer = await _tick(service, instance, _id())
    assert answer.run.error.type == "RUN_ACTIVE"
    assert active.run_id in answer.run.error.message
    await service.cancel(active.run_id)
    following = await _tick(service, instance, _id(), minute=1)
    assert following.run.run_number == 2
    assert following.run.status == run_pb2.RUN_STATUS_RUNNING


async def test_an_undecided_admission_records_nothing(service: RunningRunService) -> None:
    instance, flow_run_id = service.instances.add(), _id()
    ready, service.lineage.answer = service.lineage.answer, unavailable
    async with refused("DEPENDENCY_UNAVAILABLE"):
        await _tick(service, instance, flow_run_id)
    service.lineage.answer = ready
    assert (await _tick(service, instance, flow_run_id)).run.status == run_pb2.RUN_STATUS_RUNNING
