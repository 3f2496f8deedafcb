"""BatchSubmitRuns: each run is admitted by itself, and what is admitted is recorded together, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from integration.run_service.test_audit import records
from integration.run_service.test_room import limited
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.rules.kinds import FLOWS
from optaic.run.v1 import run_pb2, run_service_pb2
from servicekit.enums import enum_number
from servicekit.ids import new_id
from support.run_peers import Answer, Check, flow_of, unavailable
from support.run_service import RunningRunService, refused

pytestmark = pytest.mark.usefixtures("postgres_server")


def request_of(instance: instance_pb2.Instance, **fields: Any) -> run_service_pb2.SubmitRunRequest:
    return run_service_pb2.SubmitRunRequest(instance_id=instance.instance_id, **fields)


async def submit(
    service: RunningRunService, *requests: run_service_pb2.SubmitRunRequest, request_id: str = ""
) -> list[run_service_pb2.SubmitRunResult]:
    answer = await service.runs.BatchSubmitRuns(
        run_service_pb2.BatchSubmitRunsRequest(requests=requests, request_id=request_id)
    )
    results = list(answer.results)
    assert all(each.HasField("run") != each.HasField("refusal") for each in results)
    return results


def words(results: list[run_service_pb2.SubmitRunResult]) -> list[str]:
    return ["submitted" if each.HasField("run") else each.refusal.reason for each in results]


async def test_a_run_of_a_batch_is_recorded_as_one_that_was_submitted_alone(
    service: RunningRunService,
) -> None:
    kinds = [(kind, flow) for kind, flows in FLOWS.items() for flow in flows]
    instances = [
        service.instances.add(kind=kind.upper(), flow_kind=enum_number(flow_pb2.FlowKind, flow))
        for kind, flow in kinds
    ]
    parameters = Struct()
    parameters.update({"start": "2022-01-01"})
    requests = [request_of(each) for each in instances]
    requests[0] = request_of(
        instances[0], parameters=parameters, mode=run_pb2.RUN_MODE_FULL, force=True, force_reason="r"
    )
    together = await submit(service, *requests)
    assert words(together) == ["submitted"] * len(kinds)
    for request, result in zip(requests, together, strict=True):
        assert await service.get(result.run.run_id) == result.run
        (record,) = await records(service, resource=f"runs/{result.run.run_id}")
        assert record.method == "optaic.run.v1.RunService/BatchSubmitRuns"
        assert (record.revision_before, record.revision_after, record.count) == (0, 1, 1)
        assert record.reason == request.force_reason
    for request, result in zip(requests, together, strict=True):
        run = result.run
        assert await service.dispatched(run.run_id)
        await service.cancel(run.run_id)
        alone = await service.runs.SubmitRun(request)
        assert await service.activity_types(alone.run_id) == (await service.activity_types(run.run_id))[:1]
        for each in (run, alone):
            for name in ("run_id", "run_number", "submit_time"):
                each.ClearField(name)
        assert alone == run
    assert (await service.outbox_types()).count("submitted") == 2 * len(kinds)


async def test_each_request_gets_its_own_refusal_and_keeps_no_other_back(service: RunningRunService) -> None:
    ready, blocked, gone, twice, active, forced = (service.instances.add() for _ in range(6))
    await service.submit(active)
    gone.state = instance_pb2.INSTANCE_STATE_DELETING
    missing = instance_pb2.Instance(instance_id=new_id())

    def answer(check: Check) -> Answer:
        if check.flow.instance_id != blocked.instance_id:
            return Answer(all_ready=True)
        stale = flow_pb2.STATUS_STALE
        flow = lineage_pb2.BlockingFlow(
            flow=flow_of(ready), instance_name="prices", reason="it is stale", status=stale
        )
        return Answer(blocking=[flow] * 30)

    service.lineage.answer = answer
    unknown = Struct()
    unknown.update({"nothing": 1})
    results = await submit(
        service,
        request_of(missing),
        request_of(ready),
        request_of(blocked),
        request_of(gone),
        request_of(twice),
        request_of(twice),
        request_of(active),
        request_of(forced, force=True),
        request_of(forced, parameters=unknown),
        request_of(forced, flow_kind=flow_pb2.FLOW_KIND_TRAINING),
    )
    assert words(results) == [
        "INSTANCE_NOT_FOUND",
        "submitted",
        "UPSTREAM_NOT_READY",
        "INSTANCE_DELETING",
        "submitted",
        "RUN_ACTIVE",
        "RUN_ACTIVE",
        "FORCE_REASON_REQUIRED",
        "INVALID_ARGUMENT",
        "FLOW_NOT_FOUND",
    ]
    refusals = [each.refusal for each in results]
    assert results[4].run.run_id in refusals[5].message
    assert (len(refusals[2].blocking), refusals[2].omitted_blocking) == (20, 10)
    assert refusals[2].blocking[0].description == "it is stale"
    assert refusals[2].code == 9
    assert [each.field for each in refusals[8].violations] == ["parameters.nothing"]


async def test_a_flow_that_was_refused_once_in_a_batch_may_run_by_a_later_request(
    service: RunningRunService,
) -> None:
    instance = service.instances.add()
    results = await submit(service, request_of(instance, force=True), request_of(instance))
    assert words(results) == ["FORCE_REASON_REQUIRED", "submitted"]


async def test_a_repeated_batch_gets_the_first_answer(service: RunningRunService) -> None:
    instances = [service.instances.add() for _ in range(3)]
    batch = [request_of(each) for each in (*instances, instances[0])]
    first = await submit(service, *batch, request_id="b1")
    assert words(first) == ["submitted"] * 3 + ["RUN_ACTIVE"]
    service.lineage.answer = unavailable
    assert await submit(service, *batch, request_id="b1") == first
    assert await service.outbox_types() == ["submitted"] * 3
    async with refused("REQUEST_ID_REUSED"):
        await service.runs.BatchSubmitRuns(_request(batch[:2], "b1"))


async def test_ten_equal_batches_at_once_submit_each_run_once(service: RunningRunService) -> None:
    batch = [request_of(service.instances.add()) for _ in range(5)]
    answers = await asyncio.gather(*(submit(service, *batch, request_id="b2") for _ in range(10)))
    assert all(answer == answers[0] for answer in answers)
    assert words(answers[0]) == ["submitted"] * 5
    assert await service.outbox_types() == ["submitted"] * 5


async def test_a_batch_without_any_run_is_not_remembered(service: RunningRunService) -> None:
    instance = service.instances.add()
    run = await service.submit(instance)
    assert words(await submit(service, request_of(instance), request_id="b3")) == ["RUN_ACTIVE"]
    await service.cancel(run.run_id)
    assert words(await submit(service, request_of(instance), request_id="b3")) == ["submitted"]


async def test_batches_and_single_submissions_race_for_flows_and_each_gets_one_run(
    service: RunningRunService,
) -> None:
    instances = [service.instances.add() for _ in range(12)]
    batches = [
        submit(service, *(request_of(each) for each in order)) for order in (instances, instances[::-1]) * 3
    ]
    singles = [service.submit(each) for each in instances]
    answers, alone = await asyncio.gather(
        asyncio.gather(*batches), asyncio.gather(*singles, return_exceptions=True)
    )
    results = [result for answer in answers for result in answer]
    runs = [result.run for result in results if result.HasField("run")]
    runs += [each for each in alone if isinstance(each, run_pb2.Run)]
    assert Counter(run.instance_id for run in runs) == {each.instance_id: 1 for each in instances}
    assert set(words(results)) <= {"submitted", "RUN_ACTIVE", "CONCURRENT_UPDATE"}


async def test_nothing_is_submitted_while_lineage_service_is_away(service: RunningRunService) -> None:
    service.lineage.answer = unavailable
    batch = [request_of(service.instances.add()) for _ in range(2)]
    async with refused("DEPENDENCY_UNAVAILABLE"):
        await service.runs.BatchSubmitRuns(_request(batch, "b4"))
    assert await service.outbox_types() == []


@pytest.mark.parametrize("fields", [{"request_id": "x"}, {"validate_only": True}])
async def test_what_belongs_to_the_call_is_refused_within_a_request(
    service: RunningRunService, fields: dict[str, Any]
) -> None:
    batch = [request_of(service.instances.add()), request_of(service.instances.add(), **fields)]
    async with refused("INVALID_ARGUMENT") as errors:
        await service.runs.BatchSubmitRuns(_request(batch, ""))
    assert [each.field for each in errors[0].field_violations] == [f"requests[1].{next(iter(fields))}"]
    assert await service.outbox_types() == []


async def test_a_batch_fills_the_room_of_its_tenant_and_no_more(nats_url: str) -> None:
    async with limited(nats_url, 4) as service:
        batch = [request_of(service.instances.add()) for _ in range(6)]
        results = await submit(service, *batch, request_id="b5")
        assert words(results) == ["submitted"] * 4 + ["TOO_MANY_ACTIVE_RUNS"] * 2


def _request(
    batch: list[run_service_pb2.SubmitRunRequest], request_id: str
) -> run_service_pb2.BatchSubmitRunsRequest:
    return run_service_pb2.BatchSubmitRunsRequest(requests=batch, request_id=request_id)
