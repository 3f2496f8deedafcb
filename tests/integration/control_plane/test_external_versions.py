"""Data that another system writes, over all four services: a refresh skips it, and what reads it follows its reports."""

from __future__ import annotations

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.lineage.v1.lineage_service_pb2 import GetFlowStateRequest
from optaic.run.v1 import refresh_pb2, run_pb2, run_service_pb2
from support.control_plane import ControlPlane, control_plane
from support.polling import eventually

EXTERNAL = {"definitionName": "external"}
DATASET = {"pipeline": EXTERNAL, "store": {**EXTERNAL, "config": {"url": "/exports/held.parquet"}}}


async def _refresh(plane: ControlPlane, instance_id: str) -> dict[str, int]:
    """Refresh an instance and what is above it, complete the runs, and return why each flow was skipped, or its status."""
    selection = refresh_pb2.RefreshSelection(instance_ids=[instance_id], include_upstream=True)
    runs = plane.run.runs
    refresh = await runs.SubmitRefresh(run_service_pb2.SubmitRefreshRequest(selection=selection))

    async def is_ended() -> bool:
        listed = await runs.ListRuns(run_service_pb2.ListRunsRequest(statuses=[run_pb2.RUN_STATUS_PENDING]))
        for each in listed.runs:
            if each.orchestrator_run_id:
                started = await plane.run.start(each.run_id, each.orchestrator_run_id)
                await plane.run.complete(each.run_id, started.fencing_token)
        request = run_service_pb2.GetRefreshRequest(refresh_id=refresh.refresh_id)
        found: refresh_pb2.Refresh = await runs.GetRefresh(request)
        return found.status != refresh_pb2.REFRESH_STATUS_RUNNING

    await eventually(is_ended, 60)
    request = run_service_pb2.ListRefreshFlowsRequest(refresh_id=refresh.refresh_id)
    flows = (await runs.ListRefreshFlows(request)).flows
    return {flow.instance_name: flow.skip_reason or flow.status for flow in flows}


async def test_what_reads_it_is_blocked_until_a_version_is_reported_and_stale_after_the_next(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with control_plane(nats_url, {"run": {"lease_seconds": 10**6}}) as plane:
        project = (await plane.instance.project()).project_id
        held = await plane.instance.create({"projectId": project, "name": "held", "dataset": DATASET})
        reader = await plane.instance.derived(project, "reader", held.instance_id)
        await plane.rest()
        assert await _refresh(plane, reader.instance_id) == {
            "held": refresh_pb2.REFRESH_SKIP_REASON_EXTERNAL,
            "reader": refresh_pb2.REFRESH_FLOW_STATUS_BLOCKED,
        }
        report = run_service_pb2.ReportExternalVersionRequest(instance_id=held.instance_id)
        report.external_version = "v1"
        await plane.run.runs.ReportExternalVersion(report)
        await plane.rest()
        done = await _refresh(plane, reader.instance_id)
        assert done["reader"] == refresh_pb2.REFRESH_FLOW_STATUS_COMPLETED
        await plane.rest()
        flow = flow_pb2.FlowRef(instance_id=reader.instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
        state = await plane.lineage.stub.GetFlowState(GetFlowStateRequest(flow=flow))
        assert state.status == flow_pb2.STATUS_READY
        report.external_version = "v2"
        await plane.run.runs.ReportExternalVersion(report)
        await plane.rest()
        state = await plane.lineage.stub.GetFlowState(GetFlowStateRequest(flow=flow))
        (cause,) = state.causes
        assert (state.status, cause.from_version, cause.to_version) == (flow_pb2.STATUS_STALE, 1, 2)
