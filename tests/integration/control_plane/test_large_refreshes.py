"""A refresh of 2,000 flows: it begins, its progress is read in pages, and it is cancelled."""

from __future__ import annotations

from devstack.postgres import Postgres
from optaic.run.v1 import refresh_pb2, run_pb2, run_service_pb2
from support.broker import NatsAccounts
from support.large_refresh import large_refresh
from support.polling import eventually
from support.run_service import RunningRunService

_WIDTH, _LAYERS = 40, 50
_SIZE = _WIDTH * _LAYERS
_ALL = refresh_pb2.RefreshSelection(all=True)


async def _flows(run: RunningRunService, refresh_id: str) -> list[refresh_pb2.RefreshFlow]:
    request = run_service_pb2.ListRefreshFlowsRequest(refresh_id=refresh_id, page_size=700)
    found: list[refresh_pb2.RefreshFlow] = []
    while True:
        page = await run.runs.ListRefreshFlows(request)
        assert len(page.flows) <= 700
        found += page.flows
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


async def test_a_refresh_of_many_flows_begins_is_read_in_pages_and_is_cancelled(
    postgres_server: Postgres, nats_accounts: NatsAccounts
) -> None:
    del postgres_server
    async with large_refresh(nats_accounts, _WIDTH, _LAYERS) as run:
        planned = await run.runs.PlanRefresh(run_service_pb2.PlanRefreshRequest(selection=_ALL))
        assert len(planned.flows) == _SIZE
        assert [flow.level for flow in planned.flows] == sorted(list(range(_LAYERS)) * _WIDTH)
        request = run_service_pb2.SubmitRefreshRequest(selection=_ALL, max_parallel_runs=8)
        submitted = await run.runs.SubmitRefresh(request)
        assert submitted.counts.waiting == _SIZE
        get = run_service_pb2.GetRefreshRequest(refresh_id=submitted.refresh_id)

        async def has_begun() -> bool:
            listed = await run.runs.ListRuns(run_service_pb2.ListRunsRequest())
            return len(listed.runs) == 8 and (await run.runs.GetRefresh(get)).counts.running == 8

        await eventually(has_begun, 120)
        flows = await _flows(run, submitted.refresh_id)
        assert len({flow.flow.instance_id for flow in flows}) == _SIZE
        assert [flow.level for flow in flows] == sorted(flow.level for flow in flows)
        assert {flow.level for flow in flows if flow.run_id} == {0}
        cancel = run_service_pb2.CancelRefreshRequest(refresh_id=submitted.refresh_id, reason="enough")
        cancelled = await run.runs.CancelRefresh(cancel)
        assert cancelled.status == refresh_pb2.REFRESH_STATUS_CANCELLED
        assert cancelled.counts.skipped == _SIZE
        runs = (await run.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs
        assert {each.status for each in runs} == {run_pb2.RUN_STATUS_CANCELLED}
        # Whoever watches it now gets all flows, in parts.
        watch = run.runs.WatchRefresh(run_service_pb2.WatchRefreshRequest(refresh_id=submitted.refresh_id))
        parts = [len(message.flows) async for message in watch]
        assert sum(parts) == _SIZE
        assert max(parts) <= 1_000
