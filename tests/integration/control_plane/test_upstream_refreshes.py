"""Scheduled times that have what is stale above them refreshed (`upstream_policy` REFRESH), with the lineage of real services."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1.instance_pb2 import Project
from optaic.instance.v1.instance_service_pb2 import CreateProjectRequest
from optaic.lineage.v1 import lineage_pb2
from optaic.lineage.v1.lineage_service_pb2 import InvalidateFlowRequest
from optaic.rules.events import REFRESH_ENDED, REFRESH_SUBMITTED
from optaic.run.v1 import refresh_pb2, run_events_pb2, run_pb2, run_service_pb2
from run_service.store import ticks as tick_store
from run_service.use_cases import upstream_refreshes
from support.control_plane import control_plane, replica
from support.polling import eventually
from support.scheduled_chains import ScheduledChains

COMPLETED, FAILED = refresh_pb2.REFRESH_STATUS_COMPLETED, refresh_pb2.REFRESH_STATUS_FAILED
T = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
_DAILY: dict[str, Any] = {
    "cron": {"expression": "30 16 * * *"},
    "upstreamPolicy": "UPSTREAM_POLICY_REFRESH",
}

_EXTERNAL = {"definitionName": "external"}
EXTERNAL = {"pipeline": _EXTERNAL, "store": {**_EXTERNAL, "config": {"url": "/exports/held.parquet"}}}


class World(ScheduledChains):
    """prices -> clean, which nobody schedules, and signals below them that refresh them."""

    async def create(self, *signals: str) -> None:
        instances = self.plane.instance
        self.project = (await instances.project()).project_id
        self.prices = await instances.prices(self.project, "prices")
        self.clean = await instances.derived(self.project, "clean", self.prices.instance_id)
        self.signals = [await self.signal(name) for name in signals]
        await self.plane.rest()

    async def signal(self, name: str, project: str = "") -> instance_pb2.Instance:
        return await self.plane.instance.derived(
            project or self.project, name, self.clean.instance_id, schedule=_DAILY
        )

    async def come(self, signals: Iterable[instance_pb2.Instance]) -> None:
        """Let a scheduled time of each come."""
        await self.set_clock(T)
        for signal in signals:
            assert (await self.tick(signal, T)).error.type == "TICK_WAITING"
        self.run.clock.advance(2)

    async def refresh_ids(self) -> set[str]:
        """Return the refreshes that the waiting scheduled times have submitted or joined; empty while one has none."""
        database = self.run.app.deps.database
        async with database.read("default") as connection:
            ids = [
                await tick_store.get_refresh_id(connection, ("default", each.instance_id, "refresh"), T)
                for each in self.signals
            ]
        return set(ids) if all(ids) else set()

    async def refreshes(self, *statuses: refresh_pb2.RefreshStatus.ValueType) -> list[refresh_pb2.Refresh]:
        """Return the refreshes, newest first."""
        request = run_service_pb2.ListRefreshesRequest(statuses=statuses)
        return list((await self.run.runs.ListRefreshes(request)).refreshes)

    async def numbers(self) -> list[int]:
        """Return how many runs prices and clean have had."""
        return [len(await self.runs_of(each)) for each in (self.prices, self.clean)]

    async def pending_after_claims(self, instance: instance_pb2.Instance) -> list[run_pb2.Run]:
        """Have what a dead step has claimed looked at again; return the pending run of an instance, if there is one."""
        self.run.clock.advance(31)
        return await self.pending(instance)


@pytest_asyncio.fixture
async def world(postgres_server: Postgres, nats_url: str) -> AsyncIterator[World]:
    del postgres_server
    async with control_plane(nats_url, {"run": {"lease_seconds": 10**8}}) as plane:
        yield World(plane)


async def test_what_is_stale_above_is_refreshed_and_then_the_scheduled_time_is_run(world: World) -> None:
    await world.create("signal")
    (signal,), told = world.signals, list[tuple[str, bytes]]()

    async def note(message: Msg) -> None:
        if ".refresh_" in message.subject:
            told.append((message.subject, message.data))

    await world.run.nats.subscribe("optaic.default.run.v1.>", cb=note)
    await world.come(world.signals)
    await eventually(partial(world.waits_for, signal, ["clean", "prices"]))
    await world.execute(world.prices)
    clean = await world.execute(world.clean)
    completed = await world.execute(signal)
    assert completed.scheduled_time.ToDatetime(UTC) == T
    assert [each.version_id for each in completed.input_versions] == [clean.run_id]
    (refresh,) = await eventually(partial(world.refreshes, COMPLETED))
    assert (refresh.actor, clean.actor, clean.refresh_id) == ("schedule", "schedule", refresh.refresh_id)
    assert list(refresh.selection.instance_ids) == [signal.instance_id]
    assert refresh.counts.completed == 2
    await world.plane.rest()
    await eventually(lambda: len(told) == 2)
    (_, submitted), (_, ended) = told
    assert [subject.split(".")[4] for subject, _ in told] == [REFRESH_SUBMITTED, REFRESH_ENDED]
    assert run_events_pb2.RefreshSubmitted.FromString(submitted).refresh.counts.waiting == 2
    assert run_events_pb2.RefreshEnded.FromString(ended).refresh == refresh


async def test_a_scheduled_time_reads_what_is_above_it_only_when_its_refresh_is_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create("signal")
    (signal,), peers = world.signals, world.run.app.deps.peers
    looks, list_upstreams = itertools.count(), peers.list_upstreams

    async def counting(flow: flow_pb2.FlowRef) -> list[lineage_pb2.FlowState]:
        next(looks)
        return await list_upstreams(flow)

    await world.come(world.signals)
    await eventually(world.refresh_ids)
    monkeypatch.setattr(peers, "list_upstreams", counting)
    await world.execute(world.prices)
    await eventually(partial(world.waits_for, signal, ["clean"]))
    for _ in range(3):
        world.run.clock.advance(16)
        await world.run.ticker.step()
    await eventually(partial(world.pending, world.clean))
    assert next(looks) == 0
    await world.execute(world.clean)
    await world.execute(signal)
    assert next(looks) > 1


async def test_a_failure_above_refuses_and_is_not_refreshed_again(world: World) -> None:
    await world.create("signal")
    (signal,) = world.signals
    await world.come(world.signals)
    await world.execute(world.prices, is_failing=True)
    refused = await world.refused(signal, "UPSTREAM_NOT_READY")
    assert "prices" in refused.error.message
    assert (await eventually(partial(world.refreshes, FAILED)))[0].counts.blocked == 1
    assert len(await world.refreshes()) == 1
    assert await world.numbers() == [1, 0]


async def test_scheduled_times_of_one_moment_share_what_they_refresh(world: World) -> None:
    await world.create("one", "two", "three")
    await world.come(world.signals)
    await world.execute(world.prices)
    clean = await world.execute(world.clean)
    for signal in world.signals:
        completed = await world.execute(signal)
        assert [each.version_id for each in completed.input_versions] == [clean.run_id]
    assert await world.numbers() == [1, 1]


async def test_a_shared_failure_is_not_repeated_by_those_who_share_it(world: World) -> None:
    await world.create("one", "two", "three")
    await world.come(world.signals)
    assert len(await eventually(world.refresh_ids)) == 1
    await world.execute(world.prices, is_failing=True)
    for signal in world.signals:
        await world.refused(signal, "UPSTREAM_NOT_READY")
    assert await world.numbers() == [1, 0]


async def test_two_replicas_submit_one_refresh(world: World) -> None:
    await world.create("signal")
    async with replica(world.plane):
        await world.come(world.signals)
        for _ in range(10):
            world.run.clock.advance(3)  # both look at it
            await world.run.ticker.step()
        await world.execute(world.prices)
        await world.execute(world.clean)
        await world.execute(world.signals[0])
    assert len(await world.refreshes()) == 1
    assert await world.numbers() == [1, 1]


@pytest.mark.parametrize(
    ("module", "name", "is_after"),
    [
        (upstream_refreshes, "insert_refresh", False),
        (upstream_refreshes, "insert_refresh", True),
        (tick_store, "set_refresh_id", True),
        (tick_store, "keep_waiting", False),
        (tick_store, "delete_tick", True),
    ],
)
async def test_a_death_between_two_writes_loses_and_doubles_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, is_after: bool
) -> None:
    await world.create("signal")
    calls, original = itertools.count(), getattr(module, name)

    async def dying(*arguments: Any, **named: Any) -> Any:
        is_first = next(calls) == 0
        if is_first and not is_after:
            raise RuntimeError("died before the write")
        answer = await original(*arguments, **named)
        if is_first:
            raise RuntimeError("died after the write, before the commit")
        return answer

    monkeypatch.setattr(module, name, dying)
    await world.come(world.signals)
    await eventually(partial(world.pending_after_claims, world.prices), 60)
    await world.execute(world.prices)
    await world.execute(world.clean)
    (run,) = await eventually(partial(world.pending_after_claims, world.signals[0]), 60)
    assert run.scheduled_time.ToDatetime(UTC) == T
    assert next(calls) >= 2
    assert len(await world.refreshes()) == 1
    assert await world.numbers() == [1, 1]


async def test_a_scheduled_time_runs_nothing_of_another_project(world: World) -> None:
    await world.create()
    request = CreateProjectRequest(project=Project(name="elsewhere"))
    project = (await world.plane.instance.instances.CreateProject(request)).project_id
    signal = await world.signal("signal", project)
    await world.plane.rest()
    await world.set_clock(T)
    run = await world.tick(signal, T)
    assert (run.status, run.error.type) == (run_pb2.RUN_STATUS_CANCELLED, "UPSTREAM_NOT_READY")
    assert await world.refreshes() == []


async def test_a_scheduled_time_refreshes_nothing_that_another_system_writes(world: World) -> None:
    instances = world.plane.instance
    world.project = (await instances.project()).project_id
    world.prices = await instances.create({"projectId": world.project, "name": "held", "dataset": EXTERNAL})
    world.clean = await instances.derived(world.project, "clean", world.prices.instance_id)
    signal = await world.signal("signal")
    await world.plane.rest()
    await world.set_clock(T)
    run = await world.tick(signal, T)
    assert (run.status, run.error.type) == (run_pb2.RUN_STATUS_CANCELLED, "UPSTREAM_NOT_READY")
    assert await world.refreshes() == []
    report = run_service_pb2.ReportExternalVersionRequest(instance_id=world.prices.instance_id)
    report.external_version = "v1"
    await world.run.runs.ReportExternalVersion(report)
    await world.plane.rest()
    next_day = T + timedelta(days=1)
    await world.set_clock(next_day)
    assert (await world.tick(signal, next_day)).error.type == "TICK_WAITING"
    world.run.clock.advance(2)
    await world.execute(world.clean)
    assert (await world.execute(signal)).scheduled_time.ToDatetime(UTC) == next_day
    assert await world.numbers() == [1, 1]


async def test_a_refresh_that_waits_for_room_says_so(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    settings = {"lease_seconds": 10**8, "tenant_refreshes": 1}
    async with control_plane(nats_url, {"run": settings}) as plane:
        world = World(plane)
        await world.create("signal")
        busy = await plane.instance.prices(world.project, "busy")
        patience = {"schedule": {**_DAILY, "maxWait": "3600s"}}
        hasty = await plane.instance.derived(world.project, "hasty", world.clean.instance_id, **patience)
        await plane.rest()
        selection = refresh_pb2.RefreshSelection(instance_ids=[busy.instance_id])
        await world.run.runs.SubmitRefresh(run_service_pb2.SubmitRefreshRequest(selection=selection))
        await world.come([world.signals[0], hasty])
        reason = "it is not READY; its refresh waits for room (OPTAIC_TENANT_REFRESHES)"
        for instance in (world.signals[0], hasty):
            await eventually(partial(world.waits_because, instance, {reason}))
        world.run.clock.advance(3600)
        assert (
            f"prices/refresh: {reason}" in (await world.refused(hasty, "UPSTREAM_WAIT_EXPIRED")).error.message
        )
        await world.execute(busy)
        world.run.clock.advance(60)
        await world.execute(world.prices)
        await world.execute(world.clean)
        await world.execute(world.signals[0])


async def test_only_flows_that_a_refresh_may_run_count_against_its_limit(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with control_plane(nats_url, {"run": {"lease_seconds": 10**8, "refresh_flows": 1}}) as plane:
        world, instances = World(plane), plane.instance
        await world.create("refused")
        request = CreateProjectRequest(project=Project(name="elsewhere"))
        elsewhere = (await instances.instances.CreateProject(request)).project_id
        source = await instances.prices(elsewhere, "source")
        others = [await instances.derived(elsewhere, name, source.instance_id) for name in ("a", "b", "c")]
        for each in (source, *others, source):  # so that the others are stale
            await plane.rest()
            await world.run.submit(each)
            await world.execute(each)
        ids = [each.instance_id for each in others]
        mixed = await instances.derived(world.project, "mixed", *ids)
        signal = await instances.derived(world.project, "signal", mixed.instance_id, schedule=_DAILY)
        await plane.rest()
        await world.come([*world.signals, signal])
        refused = await world.refused(world.signals[0], "TOO_MANY_FLOWS")
        assert "more than 1 flows to bring up to date" in refused.error.message
        assert "above the scheduled time" in refused.error.message
        # It waits for nothing but its own project, and ends when admission has refused that.
        await world.refused(signal, "UPSTREAM_NOT_READY")
        (refresh,) = await world.refreshes()
        assert list(refresh.selection.instance_ids) == [signal.instance_id]
        assert (refresh.status, refresh.counts.blocked) == (FAILED, 1)


async def test_a_waiting_scheduled_time_is_not_refused_while_somebody_refreshes(world: World) -> None:
    await world.create()
    schedule = {"cron": {"expression": "30 16 * * *"}}
    signal = await world.plane.instance.derived(
        world.project, "waits", world.clean.instance_id, schedule=schedule
    )
    await world.plane.rest()
    await world.set_clock(T)
    selection = refresh_pb2.RefreshSelection(instance_ids=[world.clean.instance_id], include_upstream=True)
    await world.run.runs.SubmitRefresh(run_service_pb2.SubmitRefreshRequest(selection=selection))
    assert (await world.tick(signal, T)).error.type == "TICK_WAITING"
    await world.execute(world.prices)
    await world.execute(world.clean)
    await world.execute(signal)
    assert len(await world.refreshes()) == 1


async def test_a_refresh_wakes_the_loop_of_scheduled_times_only_if_one_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create("signal")
    deps, wakes = world.run.app.deps, itertools.count()
    wake_ticker = deps.wake_ticker

    def counting() -> None:
        next(wakes)
        wake_ticker()

    monkeypatch.setattr(deps, "wake_ticker", counting)
    selection = refresh_pb2.RefreshSelection(instance_ids=[world.clean.instance_id], include_upstream=True)
    await world.run.runs.SubmitRefresh(run_service_pb2.SubmitRefreshRequest(selection=selection))
    await world.execute(world.prices)
    await world.execute(world.clean)
    await eventually(partial(world.refreshes, COMPLETED))
    assert next(wakes) == 0
    invalidated = InvalidateFlowRequest(
        flow=flow_pb2.FlowRef(instance_id=world.prices.instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH),
        reason="wrong prices",
    )
    await world.plane.lineage.stub.InvalidateFlow(invalidated)
    await world.plane.rest()
    await world.come(world.signals)
    await world.execute(world.prices)
    await world.execute(world.clean)
    await world.execute(world.signals[0])
    assert next(wakes) > 1


async def test_a_cancelled_refresh_is_not_repeated(world: World) -> None:
    await world.create("signal")
    await world.come(world.signals)
    await eventually(partial(world.pending, world.prices))
    (refresh,) = await world.refreshes()
    request = run_service_pb2.CancelRefreshRequest(refresh_id=refresh.refresh_id, reason="enough")
    await world.run.runs.CancelRefresh(request)
    await world.refused(world.signals[0], "UPSTREAM_NOT_READY")
    assert len(await world.refreshes()) == 1
