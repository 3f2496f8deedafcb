"""Refreshes over all four services: a chain that is brought up to date, with failures, crashes, replicas and a graph that moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1.instance_service_pb2 import DeleteInstanceRequest
from optaic.lineage.v1.lineage_service_pb2 import InvalidateFlowRequest
from optaic.run.v1 import refresh_pb2, run_pb2, run_service_pb2
from run_service import peers_adapter
from run_service.use_cases import refresh_steps, submission
from servicekit.ids import new_id
from servicekit.interceptor import READ_TOKENS_KEY, WRITE_TOKEN_KEY
from support.control_plane import ControlPlane, control_plane, replica
from support.polling import eventually
from support.run_service import refused

ACTIVE = [run_pb2.RUN_STATUS_PENDING, run_pb2.RUN_STATUS_RUNNING]


class Chain:
    """prices -> clean -> signal, and prices -> volumes; nothing has run yet."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.instances: dict[str, instance_pb2.Instance] = {}
        self.digests: dict[str, str] = {}
        self.order: list[str] = []

    async def create(self) -> None:
        instances = self.plane.instance
        self.project = (await instances.project()).project_id
        self.instances["prices"] = await instances.prices(self.project, "prices", labels={"team": "a"})
        for name, upstream in (("clean", "prices"), ("signal", "clean"), ("volumes", "prices")):
            self.instances[name] = await instances.derived(self.project, name, self.id_of(upstream))
        await self.plane.rest()

    def id_of(self, name: str) -> str:
        return self.instances[name].instance_id

    def ref(self, name: str) -> flow_pb2.FlowRef:
        return flow_pb2.FlowRef(instance_id=self.id_of(name), flow_kind=flow_pb2.FLOW_KIND_REFRESH)

    async def submit(self, *names: str, **fields: Any) -> refresh_pb2.Refresh:
        request = run_service_pb2.SubmitRefreshRequest(
            **{
                key: fields.pop(key)
                for key in ("mode", "on_failure", "max_parallel_runs", "request_id")
                if key in fields
            }
        )
        request.selection.CopyFrom(
            refresh_pb2.RefreshSelection(instance_ids=[self.id_of(name) for name in names], **fields)
        )
        refresh: refresh_pb2.Refresh = await self.plane.run.runs.SubmitRefresh(request)
        return refresh

    async def end_active(self, outcomes: Mapping[str, str]) -> None:
        """End each active run: it fails, moves its version or leaves it."""
        run = self.plane.run
        listed = await run.runs.ListRuns(run_service_pb2.ListRunsRequest(statuses=ACTIVE))
        names = {instance.instance_id: name for name, instance in self.instances.items()}
        for each in listed.runs:
            if not each.orchestrator_run_id or each.status != run_pb2.RUN_STATUS_PENDING:
                continue
            name = names[each.instance_id]
            self.order.append(name)
            started = await run.start(each.run_id, each.orchestrator_run_id)
            outcome = outcomes.get(name, "moves")
            if outcome == "fails":
                await run.fail(each.run_id, started.fencing_token)
                continue
            if outcome == "moves":
                self.digests[name] = new_id()
            await run.complete(each.run_id, started.fencing_token, digest=self.digests[name])

    async def get(self, refresh: refresh_pb2.Refresh) -> refresh_pb2.Refresh:
        request = run_service_pb2.GetRefreshRequest(refresh_id=refresh.refresh_id)
        found: refresh_pb2.Refresh = await self.plane.run.runs.GetRefresh(request)
        return found

    async def ended(self, refresh: refresh_pb2.Refresh, **outcomes: str) -> refresh_pb2.Refresh:
        """End what becomes active until the refresh has ended."""

        async def is_ended() -> bool:
            await self.end_active(outcomes)
            return (await self.get(refresh)).status != refresh_pb2.REFRESH_STATUS_RUNNING

        await eventually(is_ended, 60)
        return await self.get(refresh)

    async def words(self, refresh: refresh_pb2.Refresh) -> dict[str, str]:
        """Return the status of each flow, or why it was skipped."""
        request = run_service_pb2.ListRefreshFlowsRequest(refresh_id=refresh.refresh_id, page_size=2)
        words: dict[str, str] = {}
        while True:
            page = await self.plane.run.runs.ListRefreshFlows(request)
            for flow in page.flows:
                skip = refresh_pb2.RefreshSkipReason.Name(flow.skip_reason).removeprefix(
                    "REFRESH_SKIP_REASON_"
                )
                status = refresh_pb2.RefreshFlowStatus.Name(flow.status).removeprefix("REFRESH_FLOW_STATUS_")
                words[flow.instance_name] = (skip if flow.skip_reason else status).lower()
            if not page.next_page_token:
                return words
            request.page_token = page.next_page_token

    async def bring_up(self) -> None:
        """Make everything READY."""
        refresh = await self.ended(await self.submit(all=True))
        assert refresh.status == refresh_pb2.REFRESH_STATUS_COMPLETED
        await self.plane.rest()
        self.order.clear()

    async def invalidate(self, name: str) -> None:
        request = InvalidateFlowRequest(flow=self.ref(name), reason="a test")
        await self.plane.lineage.stub.InvalidateFlow(request)


@pytest.fixture
async def chain(postgres_server: Postgres, nats_url: str) -> AsyncIterator[Chain]:
    del postgres_server
    async with control_plane(nats_url, {"run": {"lease_seconds": 10**6}}) as plane:
        made = Chain(plane)
        await made.create()
        yield made


async def test_everything_runs_once_and_in_order(chain: Chain) -> None:
    refresh = await chain.ended(await chain.submit("signal", "volumes", include_upstream=True))
    assert refresh.status == refresh_pb2.REFRESH_STATUS_COMPLETED
    assert (refresh.counts.completed, refresh.counts.waiting) == (4, 0)
    assert await chain.words(refresh) == dict.fromkeys(("prices", "clean", "signal", "volumes"), "completed")
    assert (chain.order[0], sorted(chain.order)) == ("prices", ["clean", "prices", "signal", "volumes"])
    assert chain.order.index("clean") < chain.order.index("signal")
    listed = await chain.plane.run.runs.ListRuns(run_service_pb2.ListRunsRequest())
    assert {run.refresh_id for run in listed.runs} == {refresh.refresh_id}
    # Nothing is left to do.
    again = await chain.ended(await chain.submit(all=True))
    assert (again.status, await chain.words(again)) == (refresh_pb2.REFRESH_STATUS_COMPLETED, {})


async def test_unmoved_version_spares_what_is_below(chain: Chain) -> None:
    await chain.bring_up()
    await chain.invalidate("prices")
    refresh = await chain.submit("prices", include_downstream=True)
    ended = await chain.ended(refresh, prices="stays")
    assert ended.status == refresh_pb2.REFRESH_STATUS_COMPLETED
    assert await chain.words(refresh) == {
        "prices": "completed",
        "clean": "ready",
        "signal": "ready",
        "volumes": "ready",
    }
    assert chain.order == ["prices"]


async def test_forced_refresh_runs_what_is_ready(chain: Chain) -> None:
    await chain.bring_up()
    refresh = await chain.submit("signal", include_upstream=True, mode=refresh_pb2.REFRESH_MODE_FORCE)
    await chain.ended(refresh, prices="stays", clean="stays", signal="stays")
    assert chain.order == ["prices", "clean", "signal"]


async def test_failure_blocks_what_is_below_and_resuming_does_the_rest(chain: Chain) -> None:
    refresh = await chain.submit(project_id=chain.project)
    ended = await chain.ended(refresh, clean="fails")
    assert ended.status == refresh_pb2.REFRESH_STATUS_FAILED
    assert await chain.words(refresh) == {
        "prices": "completed",
        "clean": "failed",
        "signal": "blocked",
        "volumes": "completed",
    }
    await chain.plane.run.runs.ResumeRefresh(
        run_service_pb2.ResumeRefreshRequest(refresh_id=refresh.refresh_id)
    )
    chain.order.clear()
    assert (await chain.ended(refresh)).status == refresh_pb2.REFRESH_STATUS_COMPLETED
    assert chain.order == ["clean", "signal"]
    async with refused("REFRESH_NOT_RESUMABLE"):
        await chain.plane.run.runs.ResumeRefresh(
            run_service_pb2.ResumeRefreshRequest(refresh_id=refresh.refresh_id)
        )


async def test_stop_on_failure_starts_nothing_more(chain: Chain) -> None:
    refresh = await chain.submit(
        labels={"team": "a"},
        include_downstream=True,
        on_failure=refresh_pb2.REFRESH_FAILURE_POLICY_STOP,
    )
    await chain.ended(refresh, prices="fails")
    words = await chain.words(refresh)
    assert words == {"prices": "failed", "clean": "stopped", "volumes": "stopped", "signal": "stopped"}


async def test_flow_below_an_upstream_outside_the_refresh_is_blocked(chain: Chain) -> None:
    refresh = await chain.ended(await chain.submit("signal"))
    assert await chain.words(refresh) == {"signal": "blocked"}
    assert refresh.status == refresh_pb2.REFRESH_STATUS_FAILED


async def test_active_run_is_joined(chain: Chain) -> None:
    run = await chain.plane.run.submit(chain.instances["prices"])
    refresh = await chain.submit("clean", include_upstream=True)

    async def is_joined() -> bool:
        request = run_service_pb2.ListRefreshFlowsRequest(refresh_id=refresh.refresh_id)
        flows = (await chain.plane.run.runs.ListRefreshFlows(request)).flows
        return bool(flows[0].is_joined and flows[0].run_id == run.run_id)

    await eventually(is_joined, 30)
    ended = await chain.ended(refresh)
    assert (ended.status, chain.order) == (refresh_pb2.REFRESH_STATUS_COMPLETED, ["prices", "clean"])


async def test_cancelled_refresh_cancels_its_runs_alone(chain: Chain) -> None:
    refresh = await chain.submit("clean", include_upstream=True, request_id="once")
    assert (
        await chain.submit("clean", include_upstream=True, request_id="once")
    ).refresh_id == refresh.refresh_id
    listed = run_service_pb2.ListRunsRequest(statuses=ACTIVE)

    async def is_active() -> bool:
        return bool((await chain.plane.run.runs.ListRuns(listed)).runs)

    await eventually(is_active, 30)
    request = run_service_pb2.CancelRefreshRequest(refresh_id=refresh.refresh_id, reason="enough")
    cancelled = await chain.plane.run.runs.CancelRefresh(request)
    assert (cancelled.status, cancelled.cancel_reason) == (refresh_pb2.REFRESH_STATUS_CANCELLED, "enough")
    assert not await is_active()
    assert await chain.words(refresh) == {"prices": "cancelled", "clean": "cancelled"}
    async with refused("REFRESH_ENDED"):
        await chain.plane.run.runs.CancelRefresh(request)


async def test_deleted_flow_and_new_edge_are_followed(chain: Chain) -> None:
    refresh = await chain.submit("signal", "volumes", include_upstream=True)
    request = DeleteInstanceRequest(instance_id=chain.id_of("volumes"))
    await chain.plane.instance.instances.DeleteInstance(request)
    added = await chain.plane.instance.prices(chain.project, "added")
    chain.instances["added"] = added
    # The dataset that it now reads has not been planned before.
    await chain.plane.instance.update(
        chain.id_of("signal"),
        {"upstreamRefs": [{"resourceId": added.instance_id, "role": "input"}]},
        "upstream_refs",
    )
    await chain.plane.rest()
    await chain.ended(refresh)
    assert await chain.words(refresh) == {
        "prices": "completed",
        "clean": "completed",
        "added": "completed",
        "signal": "completed",
        "volumes": "deleted",
    }


async def test_watch_tells_every_change_until_the_end(chain: Chain) -> None:
    refresh = await chain.submit("clean", include_upstream=True)
    seen: dict[str, list[int]] = {}
    revisions = []

    async def watch() -> None:
        request = run_service_pb2.WatchRefreshRequest(refresh_id=refresh.refresh_id)
        async for change in chain.plane.run.runs.WatchRefresh(request):
            revisions.append(change.refresh.revision)
            for flow in change.flows:
                seen.setdefault(flow.instance_name, []).append(flow.status)

    watching = asyncio.create_task(watch())
    await chain.ended(refresh)
    await asyncio.wait_for(watching, 30)
    assert revisions == sorted(revisions)
    assert {name: statuses[-1] for name, statuses in seen.items()} == dict.fromkeys(
        ("prices", "clean"), refresh_pb2.REFRESH_FLOW_STATUS_COMPLETED
    )


async def test_crash_after_any_write_doubles_and_loses_nothing(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second time a step dies right after it has submitted a run, or before."""
    submit, store, count = submission.submit_once, refresh_steps._store, 0

    async def dying_submit(*arguments: Any, **fields: Any) -> run_pb2.Run:
        nonlocal count
        count += 1
        if count % 3 == 1:
            raise RuntimeError("died before it has submitted the run")
        return await submit(*arguments, **fields)

    async def dying_store(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count % 2 == 1:
            raise RuntimeError("died before it has stored which run it is")
        await store(*arguments)

    monkeypatch.setattr(refresh_steps, "submit_once", dying_submit)
    monkeypatch.setattr(refresh_steps, "_store", dying_store)
    refresh = await chain.submit("signal", "volumes", include_upstream=True)

    async def is_ended() -> bool:
        chain.plane.run.clock.advance(11)  # so that what a dead step has claimed is due again
        await chain.end_active({})
        return (await chain.get(refresh)).status != refresh_pb2.REFRESH_STATUS_RUNNING

    await eventually(is_ended, 60)
    assert (await chain.get(refresh)).status == refresh_pb2.REFRESH_STATUS_COMPLETED
    assert sorted(chain.order) == ["clean", "prices", "signal", "volumes"]


async def test_two_replicas_act_once(chain: Chain) -> None:
    async with replica(chain.plane):
        refreshes = [await chain.submit(all=True) for _ in range(3)]
        for refresh in refreshes:
            assert (await chain.ended(refresh)).status == refresh_pb2.REFRESH_STATUS_COMPLETED
        assert sorted(chain.order) == ["clean", "prices", "signal", "volumes"]
        for refresh in refreshes:
            # A run that has ended before the refresh looks leaves it nothing to join.
            assert set((await chain.words(refresh)).values()) <= {"completed", "ready"}


async def test_refusals(chain: Chain) -> None:
    runs = chain.plane.run.runs
    async with refused("INVALID_ARGUMENT"):
        await chain.submit()
    async with refused("INVALID_ARGUMENT"):
        await chain.submit("prices", all=True)
    async with refused("INSTANCE_NOT_FOUND"):
        await runs.SubmitRefresh(
            run_service_pb2.SubmitRefreshRequest(
                selection=refresh_pb2.RefreshSelection(instance_ids=[new_id()])
            )
        )
    for call, request in (
        (runs.GetRefresh, run_service_pb2.GetRefreshRequest),
        (runs.ListRefreshFlows, run_service_pb2.ListRefreshFlowsRequest),
        (runs.CancelRefresh, run_service_pb2.CancelRefreshRequest),
        (runs.ResumeRefresh, run_service_pb2.ResumeRefreshRequest),
    ):
        async with refused("REFRESH_NOT_FOUND"):
            await call(request(refresh_id=new_id()))


async def test_no_read_of_another_service_waits_for_the_event_of_a_refresh(chain: Chain) -> None:
    request = run_service_pb2.SubmitRefreshRequest()
    request.selection.instance_ids.append(chain.id_of("prices"))
    call = chain.plane.run.runs.SubmitRefresh(request)
    await call
    assert WRITE_TOKEN_KEY not in {key for key, _ in await call.trailing_metadata()}


async def test_plan_records_nothing(chain: Chain) -> None:
    request = run_service_pb2.PlanRefreshRequest(
        selection=refresh_pb2.RefreshSelection(instance_ids=[chain.id_of("signal")], include_upstream=True)
    )
    plan = await chain.plane.run.runs.PlanRefresh(request)
    assert [(flow.instance_name, flow.level, flow.reason) for flow in plan.flows] == [
        ("prices", 0, "never ran"),
        ("clean", 1, "never ran"),
        ("signal", 2, "never ran"),
    ]
    listed = await chain.plane.run.runs.ListRefreshes(run_service_pb2.ListRefreshesRequest())
    assert list(listed.refreshes) == []


async def test_plan_says_that_what_the_caller_wrote_has_not_arrived(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_adapter, "_LONGEST_PLAN_WAIT", 0.5)
    request = run_service_pb2.PlanRefreshRequest(selection=refresh_pb2.RefreshSelection(all=True))
    plan = chain.plane.run.runs.PlanRefresh
    async with refused("READ_TOKENS_PENDING"):
        await plan(request, metadata=((READ_TOKENS_KEY, f"run/{new_id()}"),))
