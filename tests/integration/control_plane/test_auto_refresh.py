"""Flows that follow their upstream flows by themselves, with the lineage of real services and two replicas of run-service."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1.instance_service_pb2 import (
    DeleteInstanceRequest,
    PauseInstanceRequest,
    ResumeInstanceRequest,
)
from optaic.run.v1 import run_pb2
from run_service.reconcile.due_work import due_auto_refreshes
from run_service.use_cases import auto_refresh, submission
from support.control_plane import control_plane
from support.following import ALL, ANY, COMPLETED, UPSTREAM, World, numbers
from support.polling import eventually


@pytest_asyncio.fixture
async def world(postgres_server: Postgres, nats_url: str) -> AsyncIterator[World]:
    """The control plane, with leases that last."""
    del postgres_server
    settings = {"run": {"lease_seconds": 10**8, "auto_refresh_interval_seconds": 0.2}}
    async with control_plane(nats_url, settings) as plane:
        project = await plane.instance.project(f"auto-{uuid.uuid4().hex[:8]}")
        yield World(plane, project.project_id)
        assert await plane.dead_letters() == []


async def test_a_flow_runs_for_the_first_time_when_its_upstream_has_output(world: World) -> None:
    prices = await world.prices()
    derived = await world.following(prices)
    await world.rest()
    assert await world.runs_of(derived) == []
    first = await world.refresh(prices)
    run = await world.follow(derived)
    assert (run.trigger, run.actor, run.forced) == (UPSTREAM, "auto_refresh", False)
    assert [each.version_id for each in run.input_versions] == [first.run_id]
    await world.refresh(prices, digest=first.run_id)  # with equal content nothing has moved
    await world.rest()
    assert len(await world.runs_of(derived)) == 1


async def test_a_chain_of_twenty_follows_without_a_person_and_each_flow_runs_once(world: World) -> None:
    chain = [await world.prices()]
    for _ in range(20):
        chain.append(await world.following(chain[-1]))
    await world.plane.rest()
    await world.refresh(chain[0])
    for instance in chain[1:]:
        await world.follow(instance)
    await world.rest()
    assert [len(await world.runs_of(each)) for each in chain] == [1] * 21
    assert (await world.state(chain[-1])).is_fresh


async def test_a_burst_of_changes_above_makes_one_run_and_none_is_lost(world: World) -> None:
    sources = [await world.prices() for _ in range(3)]
    for source in sources:
        await world.refresh(source)
    derived = await world.following(*sources)
    pending = await world.pending(derived)  # a run is active while the upstream flows change
    for source in sources * 2:
        await world.refresh(source)
    await world.rest()
    await world.end(pending)
    second = await world.follow(derived)
    newest = {(await world.runs_of(each))[-1].run_id for each in sources}
    assert {each.version_id for each in second.input_versions} == newest
    await world.rest()
    assert len(await world.runs_of(derived)) == 2


async def test_a_flow_below_two_branches_waits_for_both_and_runs_once(world: World) -> None:
    prices = await world.prices()
    left, right = await world.following(prices), await world.following(prices)
    joined = await world.following(left, right)
    await world.plane.rest()
    for _ in range(2):
        await world.refresh(prices)
        await world.follow(left)
        await world.rest()
        before = len(await world.runs_of(joined))
        await world.follow(right)
        await world.follow(joined)
        await world.rest()
        assert len(await world.runs_of(joined)) == before + 1


async def test_any_upstream_runs_over_a_stale_one_but_never_over_a_missing_one(world: World) -> None:
    left, right = await world.prices(), await world.prices()
    derived = await world.following(left, right, mode=ANY)
    await world.refresh(left)
    await world.rest()
    assert await world.runs_of(derived) == []  # right has no version to read
    await world.refresh(right)
    await world.follow(derived)
    config = {"dataset": {"pipeline": {"definitionName": "sp500_prices", "config": {"as_of": "2021-11-30"}}}}
    await world.plane.instance.update(right.instance_id, config, "dataset.pipeline.config")
    await world.rest()
    assert len(await world.runs_of(derived)) == 1  # nothing that it reads directly has moved
    await world.refresh(left)
    forced = await world.follow(derived)
    assert (forced.forced, forced.force_reason) == (True, "auto_refresh")
    await world.rest()
    assert (await world.state(derived)).status == flow_pb2.STATUS_STALE
    assert len(await world.runs_of(derived)) == 2
    await world.refresh(right)
    last = await world.follow(derived)
    assert not last.forced
    await world.rest()
    assert (await world.state(derived)).status == flow_pb2.STATUS_READY


@pytest.mark.parametrize("ending", ["fails", "is cancelled"])
async def test_after_a_run_without_success_it_follows_only_a_change(world: World, ending: str) -> None:
    prices = await world.prices()
    await world.refresh(prices)
    derived = await world.following(prices)
    if ending == "fails":
        await world.follow(derived, is_failing=True)
    else:
        await world.run.cancel((await world.pending(derived)).run_id, reason="not now")
    await world.rest()
    assert len(await world.runs_of(derived)) == 1
    await world.refresh(prices)  # a version above it
    await world.follow(derived, is_failing=True)
    await world.rest()
    assert len(await world.runs_of(derived)) == 2
    await world.plane.instance.update(
        derived.instance_id, {"description": "x"}, "description"
    )  # its revision
    await world.follow(derived, is_failing=True)
    await world.rest()
    assert len(await world.runs_of(derived)) == 3
    await world.refresh(derived)  # somebody runs it
    await world.refresh(prices)
    await world.follow(derived)


async def test_a_paused_instance_follows_when_it_is_resumed(world: World) -> None:
    prices = await world.prices()
    derived = await world.following(prices)
    await world.plane.rest()
    instances = world.plane.instance.instances
    await instances.PauseInstance(PauseInstanceRequest(instance_id=derived.instance_id))
    await world.refresh(prices)
    await world.rest()
    assert await world.runs_of(derived) == []
    await instances.ResumeInstance(ResumeInstanceRequest(instance_id=derived.instance_id))
    await world.follow(derived)


async def test_two_runs_by_itself_keep_the_minimum_interval(world: World) -> None:
    prices = await world.prices()
    derived = await world.following(prices, interval="3600s")
    await world.refresh(prices)
    first = await world.follow(derived)
    for _ in range(3):
        await world.refresh(prices)
    await world.rest()
    assert len(await world.runs_of(derived)) == 1
    world.run.clock.advance(3600)
    second = await world.follow(derived)
    assert second.submit_time.seconds - first.submit_time.seconds >= 3600


async def test_it_can_be_switched_on_and_off_and_changes_no_fingerprint(world: World) -> None:
    prices = await world.prices()
    derived = await world.following(prices, mode="")
    await world.refresh(prices)
    await world.rest()
    assert await world.runs_of(derived) == []
    update = partial(world.plane.instance.update, derived.instance_id)
    on = await update({"autoRefresh": {"mode": ALL}}, "auto_refresh")
    assert on.flows[0].compute_fingerprint == derived.flows[0].compute_fingerprint
    await world.follow(derived)
    await update({"autoRefresh": {"mode": "MODE_OFF"}}, "auto_refresh.mode")
    await world.rest()
    assert (await world.state(derived)).is_fresh
    await world.refresh(prices)
    await world.rest()
    assert len(await world.runs_of(derived)) == 1


async def test_two_replicas_follow_a_change_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = await world.prices()
    await world.refresh(prices)
    deps = world.run.app.deps
    submit = auto_refresh._submit
    arrived: list[None] = []
    both = asyncio.Event()

    async def meet(*arguments: Any) -> None:
        arrived.append(None)
        if len(arrived) == 2:
            both.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(both.wait(), 20)
        await submit(*arguments)

    monkeypatch.setattr(auto_refresh, "_submit", meet)
    derived = await world.following(prices)
    key = ("default", derived.instance_id, "refresh")
    await eventually(lambda: len(arrived) == 1, 20)  # the loop has decided; so does another replica
    await auto_refresh.follow_upstreams(deps, key)
    await world.follow(derived)
    await world.rest()
    assert len(arrived) >= 2  # one that decides again finds the run
    assert len(await world.runs_of(derived)) == 1


async def test_a_process_that_dies_between_its_writes_leaves_the_change_to_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = await world.prices()
    await world.refresh(prices)
    insert = submission.insert_run
    died: list[None] = []

    class _Died(Exception):  # noqa: N818 - a death, and no error of ours
        pass

    async def die(*_: Any) -> Any:
        died.append(None)
        raise _Died  # after the row of the flow was written

    monkeypatch.setattr(auto_refresh, "insert_run", die)
    derived = await world.following(prices)
    await eventually(lambda: bool(died), 20)
    assert await world.runs_of(derived) == []
    monkeypatch.setattr(auto_refresh, "insert_run", insert)
    world.run.clock.advance(world.run.app.deps.settings.auto_refresh_claim_seconds)
    await due_auto_refreshes(world.run.app.deps).step()  # another replica
    await world.follow(derived)
    await world.rest()
    assert len(await world.runs_of(derived)) == 1


async def test_a_scheduled_time_waits_for_an_upstream_flow_that_follows(world: World) -> None:
    prices = await world.prices()
    derived = await world.following(prices, interval=f"{37 * 3600}s")
    timing = {"cron": {"expression": "30 11,16 * * *"}}
    top = await world.plane.instance.derived(
        world.project, f"t{next(numbers)}", derived.instance_id, schedule=timing
    )
    await world.refresh(prices)
    pending = await world.pending(derived)
    await world.run.cancel(pending.run_id)  # somebody stops it: nothing makes it READY by itself
    await world.rest()
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    world.run.clock.advance((time - world.run.clock.now()).total_seconds())
    refused = await world.tick(top, time)
    assert refused.error.type in {"UPSTREAM_NOT_READY", "MISSING_INPUT"}
    await world.refresh(derived)
    await world.refresh(top)
    await world.refresh(prices)
    await world.rest()
    world.run.clock.advance(19 * 3600)
    told = await world.tick(top, time + timedelta(hours=19))
    assert told.error.type == "TICK_WAITING"
    assert (await world.runs_of(derived))[
        -1
    ].status == COMPLETED  # it only will follow, when its interval is over
    world.run.clock.advance(5 * 3600)
    await world.follow(derived)
    run = await world.pending(top)
    assert run.trigger == run_pb2.RUN_TRIGGER_SCHEDULE


async def test_a_deleted_instance_is_not_followed_up(world: World) -> None:
    prices = await world.prices()
    derived = await world.following(prices)
    await world.plane.rest()
    await world.plane.instance.instances.DeleteInstance(
        DeleteInstanceRequest(instance_id=derived.instance_id)
    )
    await world.rest()
    async with world.run.app.deps.database.infra() as connection:
        rows = await connection.exec_driver_sql("select from auto_refreshes")
        assert rows.first() is None
