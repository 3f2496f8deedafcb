"""Runs are audited: who submitted, retried and cancelled them, and which executor ended them."""

from typing import Any

import grpc

from optaic.audit.v1 import audit_service_pb2 as api
from optaic.audit.v1.audit_pb2 import AUDIT_DECISION_UNCHANGED, AuditRecord
from optaic.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from support.run_service import RunningRunService, refused


async def records(service: RunningRunService, **filters: Any) -> list[AuditRecord]:
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub: Any = AuditServiceStub(channel)
        answer = await stub.ListAuditRecords(api.ListAuditRecordsRequest(page_size=1000, **filters))
        return [entry.record for entry in answer.entries]


def names(found: list[AuditRecord]) -> list[str]:
    return [record.method.rpartition("/")[2] for record in found]


async def test_a_submission_is_recorded_with_the_run(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    (record,) = await records(service, resource=f"runs/{run.run_id}")
    assert record.method == "optaic.run.v1.RunService/SubmitRun"
    assert (record.revision_before, record.revision_after, record.count) == (0, 1, 1)


async def test_a_repeated_submission_changes_nothing(service: RunningRunService) -> None:
    instance = service.instances.add()
    first = await service.submit(instance, request_id="4f6cf2b8")
    assert await service.submit(instance, request_id="4f6cf2b8") == first
    _, repeated = await records(service)
    assert (repeated.decision, repeated.resource) == (AUDIT_DECISION_UNCHANGED, "")


async def test_a_refused_submission_leaves_no_record(service: RunningRunService) -> None:
    instance = service.instances.add()
    await service.submit(instance)
    before = await records(service)
    async with refused("RUN_ACTIVE"):
        await service.submit(instance)
    assert await records(service) == before


async def test_a_cancellation_is_recorded_with_its_reason(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    await service.cancel(run.run_id, reason="wrong parameters")
    submitted, cancelled = await records(service, resource=f"runs/{run.run_id}")
    assert names([submitted, cancelled]) == ["SubmitRun", "CancelRun"]
    assert cancelled.reason == "wrong parameters"
    assert cancelled.revision_after == cancelled.revision_before + 1


async def test_what_the_service_does_by_itself_leaves_no_record(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    await service.dispatcher.step()
    assert names(await records(service)) == ["SubmitRun"]
    assert (await service.get(run.run_id)).run_id == run.run_id
