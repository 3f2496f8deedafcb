"""Moves of a tenant's data: runs are held, URIs lead to the new place, and nothing else of a run changes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1.lineage_service_pb2 import CheckUpstreamFreshnessResponse
from optaic.run.v1 import data_move_service_pb2 as api
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from servicekit.status import from_rpc_error
from support.identities import caller
from support.run_service import TENANT, RunningRunService, refused, run_service

FILES, STORE = "file:///x", "s3://bucket/p"
TRAINING, INFERENCE = flow_pb2.FLOW_KIND_TRAINING, flow_pb2.FLOW_KIND_INFERENCE


@pytest_asyncio.fixture
async def rooted(postgres_server: Postgres, nats_url: str) -> AsyncIterator[RunningRunService]:
    """The service with a data root."""
    del postgres_server
    async with run_service(nats_url, data_root=FILES) as running:
        yield running


async def _begin(service: RunningRunService, **given: Any) -> api.DataMove:
    request = api.BeginDataMoveRequest(**{"from_root": FILES, "to_root": STORE, **given})
    answer: api.DataMove = await service.moves.BeginDataMove(request)
    return answer


async def _switch(service: RunningRunService, **given: Any) -> api.DataMove:
    request = api.SwitchDataMoveRequest(**{"from_root": FILES, "to_root": STORE, **given})
    answer: api.DataMove = await service.moves.SwitchDataMove(request)
    return answer


async def _end(service: RunningRunService, **given: Any) -> api.DataMove:
    meant = {"from_root": FILES, "to_root": STORE, "expected_state": api.DataMove.STATE_SWITCHED}
    answer: api.DataMove = await service.moves.EndDataMove(api.EndDataMoveRequest(**{**meant, **given}))
    return answer


async def _give_up(service: RunningRunService, **given: Any) -> api.DataMove:
    return await _end(service, expected_state=api.DataMove.STATE_HELD, **given)


async def _move(service: RunningRunService, from_root: str, to_root: str) -> None:
    for step in (_begin, _switch, _end):
        await step(service, from_root=from_root, to_root=to_root)


async def _complete(
    service: RunningRunService, instance: instance_pb2.Instance, root: str, **fields: Any
) -> run_pb2.Run:
    """Complete a run whose outputs lie below a root."""
    run = await service.submit(instance)
    started = await service.start(run.run_id)
    flow = f"{root}/{TENANT}/{run.instance_id}/refresh"
    place = f"{flow}/runs/{run.run_id}/"
    entry = run_pb2.Artifact(
        name="a", uri=f"{place}a.txt", size_bytes=1, sha256="0" * 64, media_type="text/plain"
    )
    return await service.complete(
        run.run_id,
        started.fencing_token,
        **{
            "output_version": flow_pb2.VersionRef(uri=f"{flow}/data", digest="d"),
            "outputs_uri": place,
            "artifacts": {"a": f"{place}a.txt", "data": f"{flow}/data"},
            "artifact_manifest": [entry],
            **fields,
        },
    )


def _at(run: run_pb2.Run, former: str, root: str) -> run_pb2.Run:
    """Return a run with another root in every text."""
    content = run.SerializeToString()
    moved = run_pb2.Run()
    moved.CopyFrom(run)
    assert f"{former}/{TENANT}/".encode() in content
    moved.outputs_uri = moved.outputs_uri.replace(former, root)
    moved.output_version.uri = moved.output_version.uri.replace(former, root)
    moved.base_version.uri = moved.base_version.uri.replace(former, root)
    for name, uri in run.artifacts.items():
        moved.artifacts[name] = uri.replace(former, root)
    for entry in moved.artifact_manifest:
        entry.uri = entry.uri.replace(former, root)
    for version in moved.input_versions:
        version.uri = version.uri.replace(former, root)
    return moved


async def test_a_moved_run_differs_in_its_places_only(rooted: RunningRunService) -> None:
    place = f"{FILES}/{TENANT}/{'0' * 8}-0000-4000-8000-{'0' * 12}/refresh/data"
    rooted.lineage.answer = lambda _: CheckUpstreamFreshnessResponse(
        all_ready=True,
        input_versions=[
            flow_pb2.InputVersion(role="input", uri=place),
            flow_pb2.InputVersion(uri="/elsewhere/f"),
        ],
        base_version=flow_pb2.VersionRef(uri=place, digest="d"),
    )
    before = await _complete(rooted, rooted.instances.add(), FILES)
    await _move(rooted, FILES, STORE)
    after = await rooted.get(before.run_id)
    assert after == _at(before, FILES, STORE)
    assert after.input_versions[1].uri == "/elsewhere/f"
    listed = await rooted.runs.ListRuns(run_service_pb2.ListRunsRequest())
    assert listed.runs[0].artifacts == after.artifacts
    await _move(rooted, STORE, FILES)
    assert await rooted.get(before.run_id) == before


async def test_outputs_lie_below_the_new_root_after_a_move(rooted: RunningRunService) -> None:
    await _move(rooted, FILES, STORE)
    with pytest.raises(AssertionError, match="not refused"):
        async with refused("OUTPUT_MISPLACED"):
            await _complete(rooted, rooted.instances.add(), STORE)
    async with refused("OUTPUT_MISPLACED"):
        await _complete(rooted, rooted.instances.add(), FILES)


async def test_outputs_lie_below_no_former_root_where_the_data_root_is_not_known(
    service: RunningRunService,
) -> None:
    await _move(service, FILES, STORE)
    for former in (FILES, "/x"):
        async with refused("OUTPUT_MISPLACED"):
            await _complete(service, service.instances.add(), former)
    await _complete(service, service.instances.add(), STORE)
    await _complete(service, service.instances.add(), "/y")


async def test_another_tenant_is_not_moved(rooted: RunningRunService) -> None:
    await _begin(rooted)
    other = {"metadata": caller("admin", "other")}
    found = await rooted.moves.GetDataMove(api.GetDataMoveRequest(), **other)
    assert found == api.DataMove(tenant_id="other", data_root=FILES)
    await rooted.runs.SubmitRun(
        run_service_pb2.SubmitRunRequest(instance_id=rooted.instances.add().instance_id),
        metadata=caller("researcher", "other"),
    )
    await _switch(rooted)
    assert await rooted.moves.GetDataMove(api.GetDataMoveRequest(), **other) == api.DataMove(
        tenant_id="other", data_root=FILES, active_run_count=1
    )


async def test_no_run_begins_while_data_is_moved(rooted: RunningRunService) -> None:
    instance, follower = rooted.instances.add(), rooted.instances.add()
    run = await rooted.submit(instance)
    begun = await _begin(rooted)
    assert (begun.state, begun.active_run_count, begun.actor) == (api.DataMove.STATE_HELD, 1, "admin")
    async with refused("DATA_MOVING") as errors:
        await rooted.submit(follower)
    assert errors[0].code == "UNAVAILABLE"
    async with refused("DATA_MOVING"):
        request = run_service_pb2.SubmitRunRequest(instance_id=follower.instance_id)
        await rooted.runs.BatchSubmitRuns(run_service_pb2.BatchSubmitRunsRequest(requests=[request]))
    async with refused("RUNS_ACTIVE"):
        await _switch(rooted)
    started = await rooted.start(run.run_id)  # one that was there may go on
    await rooted.complete(run.run_id, started.fencing_token)
    assert (await _switch(rooted)).state == api.DataMove.STATE_SWITCHED
    async with refused("DATA_MOVING"):
        await rooted.submit(follower)
    ended = await _end(rooted)
    assert (ended.state, ended.data_root) == (api.DataMove.STATE_UNSPECIFIED, STORE)
    assert list(ended.former_roots) == ["/x", FILES]
    await rooted.submit(follower)


async def test_a_move_that_has_not_switched_can_be_given_up(rooted: RunningRunService) -> None:
    await _begin(rooted)
    assert (await _give_up(rooted)).data_root == FILES
    assert rooted.lineage.moved == []
    await rooted.submit(rooted.instances.add())
    async with refused("DATA_MOVE_NOT_FOUND"):
        await _switch(rooted)
    assert (await _give_up(rooted)).state == api.DataMove.STATE_UNSPECIFIED


async def test_a_call_that_means_another_move_changes_nothing(rooted: RunningRunService) -> None:
    begun = await _begin(rooted)
    for step in (_begin, _switch, _end, _give_up):
        async with refused("DATA_MOVE_UNDER_WAY"):
            await step(rooted, to_root="s3://bucket/q")
        async with refused("DATA_MOVE_UNDER_WAY"):
            await step(rooted, from_root="/x")
    assert await rooted.moves.GetDataMove(api.GetDataMoveRequest()) == begun
    assert rooted.lineage.moved == []


async def test_a_move_is_ended_only_in_the_state_that_is_meant(rooted: RunningRunService) -> None:
    await _begin(rooted)
    async with refused("DATA_MOVE_UNDER_WAY"):
        await _end(rooted)
    await _switch(rooted)
    async with refused("DATA_MOVE_UNDER_WAY") as errors:
        await _give_up(rooted)
    assert "has switched" in errors[0].message
    assert (await rooted.moves.GetDataMove(api.GetDataMoveRequest())).state == api.DataMove.STATE_SWITCHED
    async with refused("INVALID_ARGUMENT"):
        await _end(rooted, expected_state=api.DataMove.STATE_UNSPECIFIED)


async def test_a_call_that_names_no_move_as_in_an_earlier_release_is_told_what_to_send(
    rooted: RunningRunService,
) -> None:
    await _begin(rooted)
    for step, names in (
        (_switch, ("from_root", "to_root")),
        (_end, ("from_root", "to_root", "expected_state")),
    ):
        async with refused("INVALID_ARGUMENT") as errors:
            await step(rooted, from_root="", to_root="", **dict.fromkeys(names[2:], 0))
        assert [each.field for each in errors[0].field_violations] == list(names)
        assert all(each.description.startswith("is required: send ") for each in errors[0].field_violations)
    assert (await rooted.moves.GetDataMove(api.GetDataMoveRequest())).state == api.DataMove.STATE_HELD


async def test_a_repeated_switch_tells_lineage_service_as_long_as_the_move_is_under_way(
    rooted: RunningRunService,
) -> None:
    await _begin(rooted)
    rooted.lineage.is_away = True
    async with refused("DEPENDENCY_UNAVAILABLE"):
        await _switch(rooted, request_id="s")
    rooted.lineage.is_away = False
    await _switch(rooted, request_id="s")
    assert rooted.lineage.moved == [(FILES, STORE)]
    await _end(rooted)
    await _move(rooted, STORE, FILES)
    told = list(rooted.lineage.moved)
    await _switch(rooted, request_id="s")
    assert rooted.lineage.moved == told, "the data has moved on since"


async def test_runs_stay_held_until_lineage_service_knows_the_new_root(rooted: RunningRunService) -> None:
    await _begin(rooted)
    rooted.lineage.is_away = True
    async with refused("DEPENDENCY_UNAVAILABLE"):
        await _switch(rooted)
    async with refused("DEPENDENCY_UNAVAILABLE"):
        await _end(rooted)
    async with refused("DATA_MOVING"):
        await rooted.submit(rooted.instances.add())
    rooted.lineage.is_away = False
    await _switch(rooted)
    await _end(rooted)
    assert rooted.lineage.moved == [(FILES, STORE)] * 2


async def test_a_request_that_comes_again_gets_the_first_answer(rooted: RunningRunService) -> None:
    first = await _begin(rooted, request_id="b")
    assert await _begin(rooted, request_id="b") == first == await _begin(rooted)
    await _switch(rooted, request_id="s")
    await _end(rooted, request_id="e")
    assert await _begin(rooted, request_id="b") == first
    assert (await _switch(rooted, request_id="s")).state == api.DataMove.STATE_SWITCHED
    found = await rooted.moves.GetDataMove(api.GetDataMoveRequest())
    assert found.state == api.DataMove.STATE_UNSPECIFIED


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"from_root": "file:///y"}, "from_root"),
        ({"from_root": "x"}, "from_root"),
        ({"to_root": "s3://bucket/p/"}, "to_root"),
        ({"to_root": "s3://bucket/../p"}, "to_root"),
        ({"to_root": "/x"}, "to_root"),
        ({"to_root": f"/x/{TENANT}"}, "to_root"),
    ],
)
async def test_a_move_names_two_places(rooted: RunningRunService, given: Any, field: str) -> None:
    async with refused("INVALID_ARGUMENT") as errors:
        await _begin(rooted, **given)
    assert [each.field for each in errors[0].field_violations] == [field]


async def test_no_root_may_lie_within_a_former_one(rooted: RunningRunService) -> None:
    await _move(rooted, FILES, STORE)
    async with refused("INVALID_ARGUMENT"):
        await _begin(rooted, from_root=STORE, to_root=f"/x/{TENANT}")
    async with refused("DATA_MOVE_UNDER_WAY"):
        await _begin(rooted, from_root=STORE, to_root="/y")
        await _begin(rooted, from_root=STORE, to_root="/z")


async def test_a_root_is_the_same_in_both_spellings(rooted: RunningRunService) -> None:
    before = await _complete(rooted, rooted.instances.add(), FILES)
    await _move(rooted, FILES, STORE)
    await _move(rooted, STORE, "/x")
    assert (await rooted.get(before.run_id)).outputs_uri == before.outputs_uri.removeprefix("file://")


async def test_of_submissions_and_a_move_at_once_none_slips_through(rooted: RunningRunService) -> None:
    instances, reasons = [rooted.instances.add() for _ in range(30)], set[str]()

    async def submit(instance: instance_pb2.Instance) -> bool:
        try:
            await rooted.submit(instance)
        except grpc.aio.AioRpcError as error:
            reasons.add(from_rpc_error(error).reason)
            return False
        return True

    tasks = [asyncio.create_task(submit(each)) for each in instances]
    begun = await _begin(rooted)
    submitted = sum(await asyncio.gather(*tasks))
    assert begun.active_run_count == submitted
    assert reasons <= {"DATA_MOVING"}


async def test_trained_versions_are_read_at_the_new_place(rooted: RunningRunService) -> None:
    model = rooted.instances.add(kind="MODEL", flow_kind=TRAINING)
    model.flows.add(flow_kind=INFERENCE, compute_fingerprint="f" * 64)
    run = await rooted.submit(model, flow_kind=TRAINING)
    started = await rooted.start(run.run_id)
    uri = f"{FILES}/{TENANT}/{model.instance_id}/training/runs/{run.run_id}/"
    entry = run_pb2.Artifact(name="m", uri=f"{uri}m", size_bytes=1, sha256="0" * 64, media_type="text/plain")
    await rooted.complete(
        run.run_id,
        started.fencing_token,
        output_version=flow_pb2.VersionRef(uri=uri, digest="d"),
        outputs_uri=uri,
        artifacts={"m": f"{uri}m"},
        artifact_manifest=[entry],
        training=run_pb2.TrainingResult(model_uri=f"{uri}m"),
    )
    await _move(rooted, FILES, STORE)
    inference = await rooted.start((await rooted.submit(model, flow_kind=INFERENCE)).run_id)
    request = run_report_service_pb2.ListTrainedVersionsRequest(
        run_id=inference.run.run_id, fencing_token=inference.fencing_token, credential=inference.credential
    )
    (version,) = (await rooted.reports.ListTrainedVersions(request)).trained_versions
    assert version.uri == uri.replace(FILES, STORE)
    assert version.artifact_manifest[0].uri == f"{version.uri}m"
    assert (await rooted.get(run.run_id)).training.model_uri == f"{version.uri}m"
