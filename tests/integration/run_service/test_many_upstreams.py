"""Runs of a flow with more blocking upstream flows than an answer lists."""

from __future__ import annotations

import json

import grpc
import pytest

from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.use_cases import admission
from servicekit.ids import new_id
from servicekit.status import DETAILS_KEY, from_rpc_error
from support.gateway import gateway_of
from support.run_peers import REFRESH, Answer, Check, flow_of
from support.run_service import RunningRunService

_LISTED, _COUNT = 10_000, 20_000


def _blocked(*, missing: int = 0) -> Answer:
    """Return an answer that lists some of the flows that block."""
    return Answer(
        blocking_count=_COUNT,
        missing_input_count=missing,
        blocking=[
            lineage_pb2.BlockingFlow(
                flow=flow_pb2.FlowRef(instance_id=new_id(), flow_kind=REFRESH),
                instance_name=f"upstream_{number}",
                status=flow_pb2.STATUS_STALE,
                reason="stale: prices moved from version 1 to version 2; " * 5,
            )
            for number in range(_LISTED)
        ],
    )


async def test_a_refusal_fits_into_the_metadata_of_any_client(service: RunningRunService) -> None:
    answer = _blocked()
    service.lineage.answer = lambda _: answer
    derived = service.instances.add(upstreams=[service.instances.add()])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.submit(derived)
    error = from_rpc_error(caught.value)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "UPSTREAM_NOT_READY")
    assert error.metadata["blocking"] == str(_COUNT)
    assert "upstream_0/refresh is STALE" in error.message
    assert f"({_COUNT} in all)" in error.message
    assert error.preconditions
    trailers = dict(caught.value.trailing_metadata() or ())
    assert len(trailers[DETAILS_KEY]) < 8192  # what clients take by default
    addresses = dict.fromkeys(("instance", "run", "lineage", "status"), service.address)
    async with gateway_of(addresses) as gateway:
        body = {"instance_id": derived.instance_id}
        response = await gateway.post("/optaic.run.v1.RunService/SubmitRun", body)
    assert response.status_code == 400
    assert "UPSTREAM_NOT_READY" in json.dumps(response.json())


async def test_force_is_refused_although_no_missing_input_is_listed(service: RunningRunService) -> None:
    answer = _blocked(missing=2)
    service.lineage.answer = lambda _: answer
    derived = service.instances.add(upstreams=[service.instances.add()])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.submit(derived, force=True, force_reason="try")
    error = from_rpc_error(caught.value)
    assert (error.reason, error.metadata["blocking"]) == ("MISSING_INPUT", "2")
    answer.missing_input_count = 0
    run = await service.submit(derived, force=True, force_reason="try")
    assert run.status == run_pb2.RUN_STATUS_PENDING


async def test_all_runs_are_told_that_lineage_does_not_know_part_by_part(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_MOST_EVENTS", 2)
    upstreams = [service.instances.add() for _ in range(7)]
    for upstream in upstreams:
        run = await service.submit(upstream)
        started = await service.start(run.run_id)
        await service.complete(run.run_id, started.fencing_token)
    derived = service.instances.add(upstreams=upstreams)
    told: set[str] = set()

    def answer(request: Check) -> Answer:
        """Know what was told, and list three of the flows that block."""
        told.update(event.completed.run.instance_id for event in request.run_events)
        blocking = [each for each in upstreams if each.instance_id not in told]
        return Answer(
            all_ready=not blocking,
            blocking_count=len(blocking),
            blocking=[
                lineage_pb2.BlockingFlow(
                    flow=flow_of(each), status=flow_pb2.STATUS_NOT_INITIALIZED, is_missing_input=True
                )
                for each in blocking[:3]
            ],
        )

    service.lineage.answer = answer
    service.lineage.requests.clear()
    run = await service.submit(derived)
    assert run.status == run_pb2.RUN_STATUS_PENDING
    assert [len(request.run_events) for request in service.lineage.requests] == [0, 2, 2, 2, 1]


async def test_each_run_of_a_batch_is_told_by_itself_what_lineage_does_not_know(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_MOST_EVENTS", 1)
    runs = {}
    for upstream in (service.instances.add(), service.instances.add()):
        run = await service.submit(upstream)
        started = await service.start(run.run_id)
        await service.complete(run.run_id, started.fencing_token)
        runs[run.run_id] = upstream
    upstreams = [runs[run_id] for run_id in sorted(runs)]
    # What is told of one may come after the answer about the other: the second run is left out there at first.
    derived = [service.instances.add(upstreams=upstreams), service.instances.add(upstreams=upstreams[1:])]
    told: dict[str, set[str]] = {each.instance_id: set() for each in derived}

    def answer(request: Check) -> Answer:
        """Know of each flow what was told with it."""
        known = told[request.flow.instance_id]
        known.update(event.completed.run.instance_id for event in request.run_events)
        wanted = upstreams if request.flow.instance_id == derived[0].instance_id else upstreams[1:]
        blocking = [
            lineage_pb2.BlockingFlow(
                flow=flow_of(each), status=flow_pb2.STATUS_NOT_INITIALIZED, is_missing_input=True
            )
            for each in wanted
            if each.instance_id not in known
        ]
        return Answer(all_ready=not blocking, blocking_count=len(blocking), blocking=blocking)

    service.lineage.answer = answer
    batch = run_service_pb2.BatchSubmitRunsRequest(
        requests=[run_service_pb2.SubmitRunRequest(instance_id=each.instance_id) for each in derived],
        request_id="each-is-told",
    )
    results = (await service.runs.BatchSubmitRuns(batch)).results
    assert [result.HasField("run") for result in results] == [True, True]
