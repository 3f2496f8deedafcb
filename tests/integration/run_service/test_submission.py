"""SubmitRun: admission, the one active run, numbers, idempotency."""

import asyncio
import math
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.rules.kinds import FLOWS
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.use_cases import admission, submission
from servicekit.enums import enum_number
from servicekit.errors import DomainError
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from support.run_peers import REFRESH, Answer, Check, flow_of, unavailable
from support.run_service import RunningRunService, refused


async def test_a_submitted_run_is_pending_with_everything_pinned(service: RunningRunService) -> None:
    upstream = service.instances.add()
    instance = service.instances.add(kind="SIGNAL", upstreams=[upstream])
    pinned = flow_pb2.InputVersion(
        role="input",
        instance_id=upstream.instance_id,
        flow_kind=REFRESH,
        version=3,
        version_id=new_id(),
        digest="d",
    )
    base = flow_pb2.VersionRef(version=2, version_id=new_id(), uri="file:///b")
    service.lineage.answer = lambda _: Answer(
        all_ready=True, input_versions=[pinned], base_version=base, lineage_revision=42
    )
    parameters = Struct()
    parameters.update({"start": "2022-01-01"})
    run = await service.submit(instance, parameters=parameters)
    assert run.status == run_pb2.RUN_STATUS_PENDING
    assert (run.run_number, run.attempt, run.lineage_revision) == (1, 1, 42)
    assert run.kind == run_pb2.RUN_KIND_PIPELINE
    assert run.trigger == run_pb2.RUN_TRIGGER_MANUAL
    assert run.mode == run_pb2.RUN_MODE_INCREMENTAL
    assert run.actor == "developer"
    assert list(run.input_versions) == [pinned]
    assert run.base_version == base
    assert run.compute_fingerprint == "f" * 64
    assert await service.get(run.run_id) == run
    assert await service.activity_types(run.run_id) == ["pipeline_run.submitted"]
    assert await service.outbox_types() == ["submitted"]
    assert service.lineage.requests[0].instance == instance


async def test_many_submissions_at_once_succeed_although_their_joint_read_is_too_large(
    service: RunningRunService,
) -> None:
    service.instances.most = 1
    instances = [service.instances.add() for _ in range(8)]
    runs = await asyncio.gather(*(service.submit(instance) for instance in instances))
    assert [run.instance_id for run in runs] == [instance.instance_id for instance in instances]
    assert service.instances.refused


async def test_fifty_submits_of_one_flow_make_one_run(service: RunningRunService) -> None:
    instance = service.instances.add()
    results = await asyncio.gather(*(service.submit(instance) for _ in range(50)), return_exceptions=True)
    runs = [result for result in results if isinstance(result, run_pb2.Run)]
    assert len(runs) == 1
    refusals = [from_rpc_error(r) for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert len(refusals) == 49
    assert {refusal.reason for refusal in refusals} == {"RUN_ACTIVE"}
    assert {refusal.code for refusal in refusals} == {"ALREADY_EXISTS"}
    assert {refusal.metadata["run_id"] for refusal in refusals} == {runs[0].run_id}
    assert await service.outbox_types() == ["submitted"]


@pytest.mark.parametrize(
    ("kind", "flow_kind"),
    [(kind, flow) for kind, flows in FLOWS.items() for flow in flows],
)
async def test_every_flow_of_every_kind_is_admitted(
    service: RunningRunService, kind: str, flow_kind: str
) -> None:
    number = enum_number(flow_pb2.FlowKind, flow_kind)
    instance = service.instances.add(kind=kind.upper(), flow_kind=number)
    run = await service.submit(instance)
    assert (run.flow_kind, run.status) == (number, run_pb2.RUN_STATUS_PENDING)


async def test_a_backtest_pins_the_revision_of_its_optimizer_and_no_version(
    service: RunningRunService,
) -> None:
    instance = service.instances.add(kind="BACKTEST", flow_kind=flow_pb2.FLOW_KIND_BACKTEST)
    edge = instance.flows[0].upstreams.add(
        role="optimizer", kind=instance_pb2.EDGE_KIND_SCHEMA, upstream_revision=7
    )
    edge.upstream.instance_id, edge.upstream.flow_kind = new_id(), flow_pb2.FLOW_KIND_OPTIMIZE
    instance.upstream_refs.add(resource_id=edge.upstream.instance_id, role="optimizer", name="mvo")
    run = await service.submit(instance)
    (pinned,) = [each for each in run.input_versions if each.role == "optimizer"]
    assert pinned == flow_pb2.InputVersion(
        role="optimizer",
        instance_id=edge.upstream.instance_id,
        flow_kind=flow_pb2.FLOW_KIND_OPTIMIZE,
        instance_name="mvo",
        instance_revision=7,
    )
    assert (await service.get(run.run_id)).input_versions == run.input_versions


async def test_numbers_of_a_flow_have_no_gaps(service: RunningRunService) -> None:
    instance = service.instances.add()
    for number in (1, 2, 3):
        run = await service.submit(instance)
        async with refused("RUN_ACTIVE"):
            await service.submit(instance)
        assert run.run_number == number
        await service.cancel(run.run_id)


async def test_admission_is_repeated_if_another_run_completed_meanwhile(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = service.instances.add()

    async def overtaken(*arguments: Any, must_compare: bool) -> admission.Admission:
        answer = await admission.admit(*arguments, must_compare=must_compare)
        monkeypatch.setattr(submission, "admit", admission.admit)
        await service.cancel((await service.submit(instance)).run_id)
        service.lineage.requests.clear()
        return answer

    monkeypatch.setattr(submission, "admit", overtaken)
    assert (await service.submit(instance)).run_number == 2
    assert service.lineage.requests[-1].run_events  # the second answer rests on the run in between


async def test_submit_is_unavailable_if_other_runs_keep_completing_during_admission(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = service.instances.add()

    ask = admission._ask

    async def outdated(*arguments: Any, must_compare: bool) -> list[admission._Answered]:
        (answered,) = await ask(*arguments, must_compare=must_compare)
        assert isinstance(answered, admission._Answered)
        return [answered._replace(run_number=1)]

    await service.cancel((await service.submit(instance)).run_id)
    monkeypatch.setattr(admission, "_ask", outdated)
    async with refused("CONCURRENT_UPDATE"):
        await service.submit(instance)
    assert await service.outbox_types() == ["submitted", "cancelled"]


async def test_concurrent_submits_of_many_flows_are_all_admitted(service: RunningRunService) -> None:
    instances = [service.instances.add() for _ in range(30)]
    runs = await asyncio.gather(*(service.submit(instance) for instance in instances))
    assert {run.run_number for run in runs} == {1}
    assert len({run.run_id for run in runs}) == 30


async def test_a_missing_instance_does_not_refuse_concurrent_submissions(
    service: RunningRunService,
) -> None:
    known = [service.instances.add() for _ in range(10)]
    unknown = [instance_pb2.Instance(instance_id=new_id()) for _ in range(10)]
    results = await asyncio.gather(
        *(service.submit(instance) for pair in zip(known, unknown, strict=True) for instance in pair),
        return_exceptions=True,
    )
    assert [run.instance_id for run in results if isinstance(run, run_pb2.Run)] == [
        instance.instance_id for instance in known
    ]
    refusals = [from_rpc_error(r) for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert [refusal.reason for refusal in refusals] == ["INSTANCE_NOT_FOUND"] * 10


async def test_a_repeated_request_gets_the_first_answer(service: RunningRunService) -> None:
    instance = service.instances.add()
    first = await service.submit(instance, request_id="r1")
    assert await service.submit(instance, request_id="r1") == first
    await service.cancel(first.run_id)
    assert await service.submit(instance, request_id="r1") == first

    def not_ready(_: Check) -> Answer:
        return Answer(all_ready=False, blocking=[lineage_pb2.BlockingFlow(flow=flow_of(instance))])

    service.lineage.answer = not_ready
    assert await service.submit(instance, request_id="r1") == first
    del service.instances.by_id[instance.instance_id]
    assert await service.submit(instance, request_id="r1") == first


async def test_concurrent_repetitions_of_a_request_make_one_run(service: RunningRunService) -> None:
    instance = service.instances.add()
    runs = await asyncio.gather(*(service.submit(instance, request_id="r1") for _ in range(20)))
    assert len({run.run_id for run in runs}) == 1


async def test_a_request_id_with_another_payload_is_refused(service: RunningRunService) -> None:
    await service.submit(service.instances.add(), request_id="r1")
    async with refused("REQUEST_ID_REUSED"):
        await service.submit(service.instances.add(), request_id="r1")


async def test_a_refused_request_is_not_remembered(service: RunningRunService) -> None:
    instance = service.instances.add()
    first = await service.submit(instance)
    async with refused("RUN_ACTIVE"):
        await service.submit(instance, request_id="r1")
    await service.cancel(first.run_id)
    assert (await service.submit(instance, request_id="r1")).run_number == 2


def _blocked(upstream_ref: flow_pb2.FlowRef, *, is_missing: bool) -> Answer:
    status = flow_pb2.STATUS_NOT_INITIALIZED if is_missing else flow_pb2.STATUS_STALE
    blocking = lineage_pb2.BlockingFlow(
        flow=upstream_ref, instance_name="prices", status=status, reason="why", is_missing_input=is_missing
    )
    return Answer(all_ready=False, blocking=[blocking])


async def test_upstreams_that_are_not_ready_refuse_with_every_flow(service: RunningRunService) -> None:
    upstream = service.instances.add()
    instance = service.instances.add(kind="SIGNAL", upstreams=[upstream])
    service.lineage.answer = lambda _: _blocked(flow_of(upstream), is_missing=False)
    async with refused("UPSTREAM_NOT_READY") as errors:
        await service.submit(instance)
    (violation,) = errors[0].preconditions
    assert (violation.type, violation.subject, violation.description) == ("STALE", "prices/refresh", "why")
    assert errors[0].code == "FAILED_PRECONDITION"
    assert errors[0].metadata["blocking"] == "1"
    assert await service.outbox_types() == []

    async with refused("FORCE_REASON_REQUIRED"):
        await service.submit(instance, force=True)
    run = await service.submit(instance, force=True, force_reason="month end")
    assert run.forced
    assert run.force_reason == "month end"
    async with refused("RUN_ACTIVE"):
        await service.submit(instance, force=True, force_reason="month end")


async def test_a_run_records_which_data_above_it_was_late(service: RunningRunService) -> None:
    upstream = service.instances.add()
    instance = service.instances.add(kind="SIGNAL", upstreams=[upstream])
    late = flow_pb2.LateInput(
        flow=flow_of(upstream),
        instance_name="prices",
        expected_data_date="2026-11-27",
        last_data_date="2026-11-25",
    )
    service.lineage.answer = lambda _: Answer(all_ready=True, late_inputs=[late])
    run = await service.submit(instance)
    assert list(run.late_inputs) == [late]
    assert not run.forced
    assert list((await service.get(run.run_id)).late_inputs) == [late]


async def test_force_never_overrides_a_missing_input(service: RunningRunService) -> None:
    upstream = service.instances.add()
    instance = service.instances.add(kind="SIGNAL", upstreams=[upstream])
    service.lineage.answer = lambda _: _blocked(flow_of(upstream), is_missing=True)
    async with refused("UPSTREAM_NOT_READY"):
        await service.submit(instance)
    async with refused("MISSING_INPUT"):
        await service.submit(instance, force=True, force_reason="x")


async def test_bad_requests_are_refused_with_their_reason(service: RunningRunService) -> None:
    async with refused("INSTANCE_NOT_FOUND") as errors:
        await service.runs.SubmitRun(run_service_pb2.SubmitRunRequest(instance_id=new_id()))
    assert errors[0].code == "NOT_FOUND"
    instance = service.instances.add()
    async with refused("FLOW_NOT_FOUND"):
        await service.submit(instance, flow_kind=flow_pb2.FLOW_KIND_BACKTEST)
    async with refused("INVALID_ARGUMENT"):
        await service.runs.SubmitRun(run_service_pb2.SubmitRunRequest(instance_id="no uuid"))
    async with refused("INSTANCE_DELETING"):
        await service.submit(service.instances.add(state="DELETING"))
    assert (await service.submit(service.instances.add(state="PROVISIONING"))).run_number == 1


async def test_submit_is_unavailable_while_another_service_is_down(service: RunningRunService) -> None:
    service.lineage.answer = unavailable
    instance = service.instances.add()
    errors: list[DomainError]
    async with refused("DEPENDENCY_UNAVAILABLE") as errors:
        await service.submit(instance)
    assert errors[0].code == "UNAVAILABLE"
    assert await service.outbox_types() == []


async def test_validate_only_records_nothing(service: RunningRunService) -> None:
    instance = service.instances.add()
    run = await service.submit(instance, validate_only=True, request_id="r1")
    assert run.run_id == ""
    assert run.instance_id == instance.instance_id
    listed = await service.runs.ListRuns(run_service_pb2.ListRunsRequest())
    assert not listed.runs
    await service.submit(instance)
    async with refused("RUN_ACTIVE"):
        await service.submit(instance, validate_only=True)


async def test_events_that_lineage_may_lack_are_sent_along(service: RunningRunService) -> None:
    """The upstream has completed, but the first answer of lineage-service was computed before that."""
    upstream = service.instances.add()
    instance = service.instances.add(kind="SIGNAL", upstreams=[upstream])
    run = await service.submit(upstream)
    started = await service.start(run.run_id)
    completed = await service.complete(run.run_id, started.fencing_token, digest="new")
    known = lineage_pb2.BlockingFlow(
        flow=flow_of(upstream), instance_name="up", status=flow_pb2.STATUS_RUNNING, run_number=1
    )

    def answer(request: Check) -> Answer:
        if not request.run_events:
            return Answer(all_ready=False, blocking=[known])
        pinned = flow_pb2.InputVersion(
            instance_id=upstream.instance_id,
            flow_kind=REFRESH,
            version=1,
            version_id=run.run_id,
            digest="new",
        )
        return Answer(all_ready=True, input_versions=[pinned])

    service.lineage.requests.clear()
    service.lineage.answer = answer
    admitted = await service.submit(instance)
    assert admitted.input_versions[0].version_id == run.run_id
    first, second = service.lineage.requests
    assert not first.run_events
    (attached,) = second.run_events
    sent = attached.completed.run
    assert (sent.run_id, sent.output_version) == (completed.run_id, completed.output_version)
    assert await service.outbox_types() == ["submitted", "started", "completed", "submitted"]


async def test_an_old_output_of_the_flow_itself_is_noticed(service: RunningRunService) -> None:
    """The base version of an incremental run is never older than the newest completed run."""
    instance = service.instances.add()
    run = await service.submit(instance)
    started = await service.start(run.run_id)
    await service.complete(run.run_id, started.fencing_token, digest="new")
    service.lineage.requests.clear()
    await service.submit(instance)  # the stub knows of no run at all
    assert [len(request.run_events) for request in service.lineage.requests] == [0, 0, 1]


async def test_an_answer_that_rests_on_all_runs_is_not_asked_again(service: RunningRunService) -> None:
    instance = service.instances.add()
    run = await service.submit(instance)
    started = await service.start(run.run_id)
    await service.complete(run.run_id, started.fencing_token, digest="new")
    service.lineage.requests.clear()
    known = Answer(all_ready=True, base_version=flow_pb2.VersionRef(version=1, version_id=run.run_id))
    known.known_runs.add(run_number=1).flow.CopyFrom(flow_of(instance))
    service.lineage.answer = lambda _: known
    await service.submit(instance)
    assert len(service.lineage.requests) == 1


async def test_an_unknown_parameter_of_the_flow_is_refused_by_name(service: RunningRunService) -> None:
    instance = service.instances.add()
    parameters = Struct()
    parameters.update({"as_of": "2022-01-01", "end": math.nan, "data_date": "soon", "start": "2022-01-01"})
    async with refused("INVALID_ARGUMENT") as refusals:
        await service.submit(instance, parameters=parameters)
    fields = [violation.field for violation in refusals[0].field_violations]
    assert fields == ["parameters.as_of", "parameters.data_date", "parameters.end"]
    assert not (await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs


async def test_only_a_full_run_pins_column_types_again(service: RunningRunService) -> None:
    instance = service.instances.add()
    cases: list[tuple[dict[str, Any], run_pb2.RunMode.ValueType]] = [
        ({"repin_types": True}, run_pb2.RUN_MODE_INCREMENTAL),
        ({"repin_types": "yes"}, run_pb2.RUN_MODE_FULL),
        ({"repin_types": True, "start": "2022-01-01"}, run_pb2.RUN_MODE_FULL),
    ]
    for given, mode in cases:
        parameters = Struct()
        parameters.update(given)
        async with refused("INVALID_ARGUMENT") as refusals:
            await service.submit(instance, parameters=parameters, mode=mode)
        assert [item.field for item in refusals[0].field_violations] == ["parameters.repin_types"]
    parameters = Struct()
    parameters.update({"repin_types": True})
    run = await service.submit(instance, parameters=parameters, mode=run_pb2.RUN_MODE_FULL)
    assert run.parameters["repin_types"] is True
