"""What an actor with a role in one project learns of another: the status of the flows that its own depend on, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from optaic.common.v1.flow_pb2 import (
    FLOW_KIND_REFRESH,
    STATUS_NOT_INITIALIZED,
    STATUS_READY,
    FlowRef,
)
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.lineage.v1 import lineage_service_pb2 as lineage_api
from optaic.run.v1 import refresh_pb2, run_pb2
from optaic.run.v1 import run_service_pb2 as run_api
from optaic.status.v1 import status_service_pb2 as status_api
from servicekit.status import from_rpc_error
from support.broker import NatsAccounts
from support.confined import ME, World, becomes
from support.control_plane import control_plane
from support.methods import channel_to

pytestmark = pytest.mark.asyncio(loop_scope="module")


def flow(instance_id: str) -> FlowRef:
    return FlowRef(instance_id=instance_id, flow_kind=FLOW_KIND_REFRESH)


class Chain(World):
    """theirs -> reader -> their_reader -> late, where `reader` and `late` are in the actor's project."""

    theirs: instance_pb2.Instance
    reader: instance_pb2.Instance
    their_reader: instance_pb2.Instance
    late: instance_pb2.Instance
    run: run_pb2.Run
    secrets: tuple[str, ...] = ()

    async def connect(self) -> None:
        service = self.plane.instance
        self.theirs = await service.prices(self.other, "secret_prices")
        self.reader = await service.derived(self.mine, "reader", self.theirs.instance_id)
        self.their_reader = await service.derived(self.other, "secret_reader", self.reader.instance_id)
        self.late = await service.derived(self.mine, "late", self.their_reader.instance_id)
        await self.plane.rest()
        first = await self.compute(self.theirs, "secret digest 1")
        self.run = await self.compute(self.reader, "r1")
        second = await self.compute(self.theirs, "secret digest 2")
        self.secrets = (
            "secret",
            self.other,
            self.theirs.instance_id,
            self.their_reader.instance_id,
            first.run_id,
            second.run_id,
        )
        await self.grant("maintainer", self.mine)
        await becomes(self.status(self.other_instance), "NOT_FOUND")
        await becomes(self.lineage(self.theirs.instance_id), "NOT_FOUND")
        await self.plane.rest()

    async def compute(self, instance: instance_pb2.Instance, digest: str) -> run_pb2.Run:
        run = await self.plane.run.submit(instance)
        started = await self.plane.run.start(run.run_id)
        done = await self.plane.run.complete(run.run_id, started.fencing_token, digest=digest)
        await self.plane.rest()
        return done

    def tells(self, answer: Any) -> list[str]:
        return [each for each in self.secrets if each in str(answer)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chain(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[Chain]:
    del postgres_server
    nats_url = nats_accounts.take()
    async with control_plane(nats_url) as plane, channel_to(plane, "instance") as channel:
        found = Chain(plane, channel, nats_url)
        await found.prepare()
        await found.connect()
        yield found


async def refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def test_every_answer_about_an_instance_tells_nothing_of_other_projects(chain: Chain) -> None:
    instances, runs = chain.plane.instance.instances, chain.plane.run.runs
    lineage, status = chain.plane.lineage.stub, chain.plane.status.stub
    mine = [chain.reader.instance_id, chain.late.instance_id]
    asked: list[Any] = [
        instances.ListInstances(instance_api.ListInstancesRequest(), metadata=ME),
        instances.ListProjects(instance_api.ListProjectsRequest(), metadata=ME),
        instances.BatchGetInstances(instance_api.BatchGetInstancesRequest(instance_ids=mine), metadata=ME),
        runs.ListRuns(run_api.ListRunsRequest(), metadata=ME),
        runs.ListRuns(run_api.ListRunsRequest(instance_ids=mine), metadata=ME),
        runs.GetRun(run_api.GetRunRequest(run_id=chain.run.run_id), metadata=ME),
        runs.WatchRun(run_api.WatchRunRequest(run_id=chain.run.run_id), metadata=ME).read(),
        runs.ListActivities(run_api.ListActivitiesRequest(run_id=chain.run.run_id), metadata=ME),
        runs.ListRunLogs(run_api.ListRunLogsRequest(run_id=chain.run.run_id), metadata=ME),
        runs.WatchRunLogs(run_api.WatchRunLogsRequest(run_id=chain.run.run_id), metadata=ME).read(),
        runs.GetRunTraceback(run_api.GetRunTracebackRequest(run_id=chain.run.run_id), metadata=ME),
        status.ListInstanceStatuses(status_api.ListInstanceStatusesRequest(), metadata=ME),
        status.BatchGetInstanceStatuses(
            status_api.BatchGetInstanceStatusesRequest(instance_ids=mine), metadata=ME
        ),
        lineage.GetExecutionOrder(
            lineage_api.GetExecutionOrderRequest(flows=[flow(each) for each in mine]), metadata=ME
        ),
    ]
    for each in mine:
        asked += [
            instances.GetInstance(instance_api.GetInstanceRequest(instance_id=each), metadata=ME),
            instances.ListInstanceRevisions(
                instance_api.ListInstanceRevisionsRequest(instance_id=each), metadata=ME
            ),
            status.GetInstanceStatus(status_api.GetInstanceStatusRequest(instance_id=each), metadata=ME),
            status.GetFlowStatus(status_api.GetFlowStatusRequest(flow=flow(each)), metadata=ME),
            status.GetStatusHistory(status_api.GetStatusHistoryRequest(instance_id=each), metadata=ME),
            lineage.GetFlowState(lineage_api.GetFlowStateRequest(flow=flow(each)), metadata=ME),
            lineage.ListUpstreams(lineage_api.ListUpstreamsRequest(flow=flow(each)), metadata=ME),
            lineage.ListDownstreams(lineage_api.ListDownstreamsRequest(flow=flow(each)), metadata=ME),
            lineage.PreviewImpact(lineage_api.PreviewImpactRequest(flows=[flow(each)]), metadata=ME),
            lineage.GetLineageGraph(lineage_api.GetLineageGraphRequest(flow=flow(each)), metadata=ME),
            lineage.ExplainStaleness(lineage_api.ExplainStalenessRequest(flow=flow(each)), metadata=ME),
            lineage.CheckUpstreamFreshness(
                lineage_api.CheckUpstreamFreshnessRequest(flow=flow(each)), metadata=ME
            ),
        ]
    empty = 0
    for each in asked:
        answer = await each
        assert chain.tells(answer) == [], answer
        empty += not str(answer)
    # Nothing depends on `late`, neither flow is fresh, and the run has neither a log nor a traceback.
    assert empty <= 5


async def test_the_past_tells_no_more_than_the_present(chain: Chain) -> None:
    lineage, saw = chain.plane.lineage.stub, lineage_api.AsOf(revision=chain.run.lineage_revision)
    late = flow(chain.late.instance_id)
    request = lineage_api.GetLineageGraphRequest(flow=late, as_of=saw)
    graph = await lineage.GetLineageGraph(request, metadata=ME)
    assert chain.tells(graph) == []
    assert [(each.hidden, each.instance_name) for each in graph.flows] == [
        (False, "late"),
        (True, ""),
        (False, "reader"),
        (True, ""),
    ]
    difference = await lineage.DiffLineage(lineage_api.DiffLineageRequest(flow=late, before=saw), metadata=ME)
    assert chain.tells(difference) == []
    assert {(each.hidden, each.instance_name) for each in difference.flows} == {(True, ""), (False, "reader")}
    for each in difference.flows:
        if each.hidden:
            assert not each.HasField("before")
            assert not each.HasField("after")
        else:
            assert each.edges
            assert all(edge.hidden and not edge.upstream_name for edge in each.edges)
    for theirs in (chain.theirs, chain.their_reader):
        request = lineage_api.GetLineageGraphRequest(flow=flow(theirs.instance_id), as_of=saw)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await lineage.GetLineageGraph(request, metadata=ME)
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watch_tells_the_statuses_of_the_actors_project_only(chain: Chain) -> None:
    watch = chain.plane.status.stub.WatchInstanceStatuses(
        status_api.WatchInstanceStatusesRequest(), metadata=ME
    )
    seen = []
    while (response := await watch.read()).HasField("instance_status"):
        assert chain.tells(response) == []
        seen.append(response.instance_status.instance_name)
    watch.cancel()
    assert sorted(seen) == ["late", "reader", "sp500_prices"]


async def test_a_graph_shows_hidden_flows_with_their_status(chain: Chain) -> None:
    graph = await chain.plane.lineage.stub.GetLineageGraph(
        lineage_api.GetLineageGraphRequest(flow=flow(chain.late.instance_id)), metadata=ME
    )
    assert [(each.hidden, each.instance_name) for each in graph.flows] == [
        (False, "late"),
        (True, ""),
        (False, "reader"),
        (True, ""),
    ]
    assert [each.status for each in graph.flows if each.hidden] == [STATUS_NOT_INITIALIZED, STATUS_READY]
    known = {each.flow.instance_id for each in graph.flows}
    assert len(graph.edges) == 3
    for edge in graph.edges:
        assert edge.hidden
        assert {edge.upstream.instance_id, edge.downstream.instance_id} <= known
    page = await chain.plane.lineage.stub.ListUpstreams(
        lineage_api.ListUpstreamsRequest(flow=flow(chain.late.instance_id), page_size=1), metadata=ME
    )
    following = await chain.plane.lineage.stub.ListUpstreams(
        lineage_api.ListUpstreamsRequest(
            flow=flow(chain.late.instance_id), page_size=5, page_token=page.next_page_token
        ),
        metadata=ME,
    )
    assert [each.hidden for each in (*page.flows, *following.flows)] == [True, False, True]


async def test_what_blocks_a_run_is_named_only_where_it_may_be_read(chain: Chain) -> None:
    request = run_api.SubmitRunRequest(instance_id=chain.late.instance_id)
    error = await refusal(chain.plane.run.runs.SubmitRun(request, metadata=ME))
    assert error.reason == "UPSTREAM_NOT_READY"
    told = {each.subject: (each.type, each.description) for each in error.preconditions}
    assert told["hidden"] == ("NOT_INITIALIZED", "it is in a project that you may not read")
    assert told["reader/refresh"][0] == "STALE"
    assert chain.tells(f"{error.message} {told} {error.metadata}") == []
    assert "hidden is NOT_INITIALIZED" in error.message
    everything = await refusal(chain.plane.run.runs.SubmitRun(request))
    assert "secret_reader/refresh" in everything.message  # for whoever may read all of it, nothing changes


async def test_what_blocks_a_run_of_a_batch_is_named_only_where_it_may_be_read(chain: Chain) -> None:
    request = run_api.BatchSubmitRunsRequest(
        requests=[run_api.SubmitRunRequest(instance_id=chain.late.instance_id)] * 2
    )
    answer = await chain.plane.run.runs.BatchSubmitRuns(request, metadata=ME)
    assert [each.refusal.reason for each in answer.results] == ["UPSTREAM_NOT_READY"] * 2
    assert chain.tells(str(answer)) == []
    for each in answer.results:
        told = {blocking.subject: blocking.description for blocking in each.refusal.blocking}
        assert told["hidden"] == "it is in a project that you may not read"
        assert "hidden is NOT_INITIALIZED" in each.refusal.message
    hidden = run_api.BatchSubmitRunsRequest(
        requests=[
            run_api.SubmitRunRequest(instance_id=chain.late.instance_id),
            run_api.SubmitRunRequest(instance_id=chain.theirs.instance_id),
        ]
    )
    answer = await chain.plane.run.runs.BatchSubmitRuns(hidden, metadata=ME)
    assert [each.refusal.reason for each in answer.results] == ["UPSTREAM_NOT_READY", "INSTANCE_NOT_FOUND"]
    assert chain.theirs.instance_id in answer.results[1].refusal.message  # as the caller named it


async def test_a_deletion_is_blocked_by_hidden_dependants_and_takes_none_of_them_along(chain: Chain) -> None:
    instances = chain.plane.instance.instances
    for cascade in (False, True):
        request = instance_api.DeleteInstanceRequest(instance_id=chain.reader.instance_id, cascade=cascade)
        error = await refusal(instances.DeleteInstance(request, metadata=ME))
        assert error.reason == "HAS_DEPENDANTS"
        assert [(each.subject, each.description) for each in error.preconditions] == [
            ("hidden", "it is in a project that you may not read")
        ]
        assert chain.tells(f"{error.message} {error.preconditions} {error.metadata}") == []
    preview = await instances.PreviewDeletion(
        instance_api.PreviewDeletionRequest(
            delete_instance=instance_api.DeleteInstanceRequest(
                instance_id=chain.reader.instance_id, cascade=True
            )
        ),
        metadata=ME,
    )
    assert [(each.hidden, each.name) for each in preview.instances] == [
        (False, "late"),
        (True, ""),
        (False, "reader"),
    ]
    assert chain.tells(preview) == []
    whole = instance_api.DeleteProjectRequest(project_id=chain.mine, cascade=True)
    error = await refusal(instances.DeleteProject(whole, metadata=ME))
    assert chain.tells(f"{error.message} {error.preconditions}") == []
    removed = await instances.DeleteInstance(
        instance_api.DeleteInstanceRequest(instance_id=chain.late.instance_id, validate_only=True),
        metadata=ME,
    )
    assert removed.instance_id == chain.late.instance_id


async def test_an_actor_with_a_role_in_both_projects_may_delete_across_them(chain: Chain) -> None:
    instances = chain.plane.instance.instances
    request = instance_api.DeleteInstanceRequest(
        instance_id=chain.reader.instance_id, cascade=True, validate_only=True
    )
    await chain.grant("viewer", chain.other)
    await becomes(chain.get(chain.other_instance), "OK")
    error = await refusal(instances.DeleteInstance(request, metadata=ME))
    assert [each.subject for each in error.preconditions] == ["secret_reader"]  # readable, so it is named
    await chain.grant("researcher", chain.other)
    await becomes(lambda: instances.DeleteInstance(request, metadata=ME), "OK")
    await chain.revoke(chain.other)
    await becomes(chain.get(chain.other_instance), "NOT_FOUND")


async def test_a_refresh_runs_nothing_of_other_projects_and_tells_nothing_of_them(chain: Chain) -> None:
    runs = chain.plane.run.runs
    above = refresh_pb2.RefreshSelection(instance_ids=[chain.late.instance_id], include_upstream=True)
    plan = await runs.PlanRefresh(run_api.PlanRefreshRequest(selection=above), metadata=ME)
    assert [(each.instance_name, each.reason) for each in plan.flows] == [("reader", ""), ("late", "")]
    selection = refresh_pb2.RefreshSelection(instance_ids=[chain.late.instance_id])
    submitted = await runs.SubmitRefresh(run_api.SubmitRefreshRequest(selection=selection), metadata=ME)
    request = run_api.WatchRefreshRequest(refresh_id=submitted.refresh_id)
    seen = [each async for each in runs.WatchRefresh(request, metadata=ME)]
    assert seen[-1].refresh.status == refresh_pb2.REFRESH_STATUS_FAILED
    listed = run_api.ListRefreshFlowsRequest(refresh_id=submitted.refresh_id)
    (late,) = (await runs.ListRefreshFlows(listed, metadata=ME)).flows
    assert late.status == refresh_pb2.REFRESH_FLOW_STATUS_BLOCKED
    assert "that you may read" in late.reason
    assert chain.tells([*seen, late]) == []
    everything = refresh_pb2.RefreshSelection(all=True)
    error = await refusal(runs.SubmitRefresh(run_api.SubmitRefreshRequest(selection=everything), metadata=ME))
    assert error.code == "PERMISSION_DENIED"
    # Nobody's refresh of the whole tenant is theirs to see.
    theirs = refresh_pb2.RefreshSelection(instance_ids=[chain.theirs.instance_id])
    whole = await runs.SubmitRefresh(run_api.SubmitRefreshRequest(selection=theirs))
    for method, request_type in (
        (runs.GetRefresh, run_api.GetRefreshRequest),
        (runs.CancelRefresh, run_api.CancelRefreshRequest),
        (runs.ResumeRefresh, run_api.ResumeRefreshRequest),
        (runs.ListRefreshFlows, run_api.ListRefreshFlowsRequest),
    ):
        refused = await refusal(method(request_type(refresh_id=whole.refresh_id), metadata=ME))
        assert refused.reason == "REFRESH_NOT_FOUND"
    found = await runs.ListRefreshes(run_api.ListRefreshesRequest(), metadata=ME)
    assert [each.refresh_id for each in found.refreshes] == [submitted.refresh_id]
