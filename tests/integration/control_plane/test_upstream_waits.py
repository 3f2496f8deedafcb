"""Scheduled times that wait for their upstream flows, with the lineage of real services.

`make test` has a few days of a chain, `make test-faults` a quarter.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from optaic.instance.v1.instance_service_pb2 import PauseInstanceRequest
from optaic.run.v1 import run_pb2, run_report_service_pb2
from support.control_plane import control_plane
from support.polling import eventually
from support.scheduled_chains import ScheduledChains

_DAYS = 60 if os.environ.get("OPTAIC_FAULTS") == "full" else 3
COMPLETED, CANCELLED = run_pb2.RUN_STATUS_COMPLETED, run_pb2.RUN_STATUS_CANCELLED
_Response = run_report_service_pb2.StartRunResponse


@pytest_asyncio.fixture
async def world(postgres_server: Postgres, nats_url: str) -> AsyncIterator[ScheduledChains]:
    """The control plane; a waiting scheduled time is looked at when its upstream flows change, and rarely otherwise."""
    del postgres_server
    async with control_plane(nats_url, {"run": {"lease_seconds": 10**8}}) as plane:
        yield ScheduledChains(plane)


async def test_two_instances_scheduled_at_the_same_minute_run_one_after_the_other(
    world: ScheduledChains,
) -> None:
    prices, derived = await world.chain(2, "30 16 * * 1-5")
    await world.run.submit(prices)
    await world.execute(prices)
    await world.plane.rest()
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    await world.set_clock(time)
    waits = await world.tick(derived, time)
    assert (waits.status, waits.error.type) == (run_pb2.RUN_STATUS_PENDING, "TICK_WAITING")
    started = await world.tick(prices, time)
    assert started.status == run_pb2.RUN_STATUS_RUNNING
    assert await world.runs_of(derived) == []  # no number, no flow run, no quota
    await eventually(partial(world.waits_for, derived, [prices.name]))
    await world.complete(started)
    completed = await world.execute(derived)
    await eventually(partial(world.waits_for, derived, []))
    assert completed.status == COMPLETED
    assert completed.scheduled_time.ToDatetime(UTC) == time
    assert [each.version_id for each in completed.input_versions] == [started.run_id]


async def test_a_chain_scheduled_at_one_time_runs_in_order_every_day(world: ScheduledChains) -> None:
    chain = await world.chain(5, "30 16 * * 1-5")
    rng, time = random.Random(5), datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    for _ in range(_DAYS):
        await world.set_clock(time)
        order = rng.sample(chain, len(chain))
        for instance in order:
            run = await world.tick(instance, time)
            is_first = instance is chain[0]
            assert run.status == (run_pb2.RUN_STATUS_RUNNING if is_first else run_pb2.RUN_STATUS_PENDING)
            if is_first:
                first = run
        world.run.clock.advance(5)
        await world.complete(first)
        for instance in chain[1:]:
            world.run.clock.advance(5)
            await world.execute(instance)
        time += timedelta(days=3 if time.weekday() == 4 else 1)
    for upstream, downstream in itertools.pairwise(chain):
        runs = await world.runs_of(downstream)
        assert [run.status for run in runs] == [COMPLETED] * _DAYS
        read = [run.input_versions[0].version_id for run in runs]
        assert read == [run.run_id for run in await world.runs_of(upstream)]


async def test_an_upstream_without_a_cure_refuses_at_once(world: ScheduledChains) -> None:
    prices, derived = await world.chain(2, "30 16 * * *")
    await world.run.submit(prices)
    await world.execute(prices, is_failing=True)
    await world.plane.rest()
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    await world.set_clock(time + timedelta(seconds=1))
    await world.tick(derived, time)  # the planned time of prices can cure it
    failed = await world.tick(prices, time)
    await world.run.fail(failed.run_id, world.tokens[failed.run_id])
    run = await world.refused(derived, "UPSTREAM_NOT_READY")
    assert run.status == CANCELLED
    assert run.run_number == 0


async def test_a_pending_retry_of_an_upstream_is_awaited(world: ScheduledChains) -> None:
    retry = {"retryPolicy": {"maxRetries": 1, "delay": "60s"}}
    prices, derived = await world.chain(2, "30 16 * * *", **retry)
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    await world.set_clock(time)
    await world.tick(derived, time)
    failed = await world.tick(prices, time)
    await world.run.fail(failed.run_id, world.tokens[failed.run_id])
    await world.plane.rest()
    await world.run.ticker.step()
    assert await world.runs_of(derived) == []
    world.run.clock.advance(61)
    await world.execute(prices)
    completed = await world.execute(derived)
    assert completed.scheduled_time.ToDatetime(UTC) == time


async def test_runs_of_an_upstream_submitted_later_hold_nothing(world: ScheduledChains) -> None:
    prices, derived = await world.chain(2, "* * * * *")
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    await world.set_clock(time)
    await world.tick(derived, time)
    first = await world.tick(prices, time)
    world.run.clock.advance(61)
    await world.complete(first)
    second = await world.tick(prices, time + timedelta(minutes=1))
    assert second.status == run_pb2.RUN_STATUS_RUNNING
    completed = await world.execute(derived)
    assert completed.input_versions[0].version_id == first.run_id
    assert (await world.run.get(second.run_id)).status == run_pb2.RUN_STATUS_RUNNING


async def test_an_intermediate_flow_that_is_always_stale_starves_nobody(world: ScheduledChains) -> None:
    prices, middle, last = await world.chain(3, "* * * * *")
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    await world.set_clock(time)
    await world.tick(last, time)
    await world.tick(middle, time)
    first = await world.tick(prices, time)
    world.run.clock.advance(61)
    await world.complete(first)
    (middle_run,) = await eventually(partial(world.pending, middle))
    started = await world.run.start(
        middle_run.run_id, await eventually(partial(world.dispatched, middle_run.run_id))
    )
    second = await world.tick(prices, time + timedelta(minutes=1))
    await world.complete(second)  # the middle one is stale before it has ended
    await world.plane.rest()
    await world.run.complete(middle_run.run_id, started.fencing_token, digest=middle_run.run_id)
    completed = await world.execute(last)
    assert completed.input_versions[0].version_id == middle_run.run_id


async def test_a_paused_upstream_is_not_awaited(world: ScheduledChains) -> None:
    prices, derived = await world.chain(2, "30 16 * * *")
    await world.run.submit(prices)
    await world.execute(prices)
    await world.plane.rest()
    await world.plane.instance.instances.PauseInstance(PauseInstanceRequest(instance_id=prices.instance_id))
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    await world.set_clock(time)
    assert (await world.tick(derived, time)).status == run_pb2.RUN_STATUS_RUNNING


async def test_a_planned_time_without_a_flow_run_is_settled_by_the_grace(world: ScheduledChains) -> None:
    prices, derived = await world.chain(2, "30 16 * * *")
    await world.run.submit(prices)
    await world.execute(prices)
    await world.plane.rest()
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    await world.set_clock(time)
    assert (await world.tick(derived, time)).error.type == "TICK_WAITING"
    world.run.clock.advance(121)  # OPTAIC_TICK_GRACE_SECONDS
    completed = await world.execute(derived)
    assert completed.scheduled_time.ToDatetime(UTC) == time


async def test_a_wait_expires_and_names_what_was_waited_for(world: ScheduledChains) -> None:
    prices, derived = await world.chain(2, "30 16 * * *", maxWait="600s")
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    await world.set_clock(time)
    await world.tick(derived, time)
    await world.tick(prices, time)
    await world.plane.rest()
    world.run.clock.advance(601)
    run = await world.refused(derived, "UPSTREAM_WAIT_EXPIRED")
    assert f"{prices.name}/refresh: a run is active" in run.error.message


async def test_a_later_scheduled_time_is_merged_into_the_one_that_waits(world: ScheduledChains) -> None:
    (prices,) = await world.chain(1, "0 * * * *")
    schedule = {"cron": {"expression": "*/10 * * * *"}}
    derived = await world.plane.instance.derived(
        world.project, "often", prices.instance_id, schedule=schedule
    )
    await world.plane.rest()
    time = datetime(2024, 1, 2, 16, tzinfo=UTC)
    await world.set_clock(time)
    run = await world.tick(prices, time)
    assert (await world.tick(derived, time)).error.type == "TICK_WAITING"
    for minutes in (10, 20):
        await world.set_clock(time + timedelta(minutes=minutes))
        merged = await world.tick(derived, time + timedelta(minutes=minutes))
        assert merged.error.type == "TICK_SUPERSEDED"
        assert time.isoformat() in merged.error.message
    await world.complete(run)
    completed = await world.execute(derived)
    assert completed.scheduled_time.ToDatetime(UTC) == time
    await world.set_clock(time + timedelta(minutes=30))
    assert (await world.tick(derived, time + timedelta(minutes=30))).status == run_pb2.RUN_STATUS_RUNNING


async def test_with_catch_up_all_scheduled_times_queue(world: ScheduledChains) -> None:
    prices, derived = await world.chain(2, "* * * * *", catchUpPolicy="CATCH_UP_POLICY_ALL")
    time = datetime(2024, 1, 2, 16, tzinfo=UTC)
    await world.set_clock(time)
    run = await world.tick(prices, time)
    await world.tick(derived, time)
    await world.set_clock(time + timedelta(minutes=1))
    assert (await world.tick(derived, time + timedelta(minutes=1))).error.type == "TICK_WAITING"
    world.run.clock.advance(10)
    await world.run.ticker.step()
    await world.complete(run)
    first = await world.execute(derived)
    world.run.clock.advance(125)
    second = await world.execute(derived)
    assert [each.scheduled_time.ToDatetime(UTC) for each in (first, second)] == [
        time,
        time + timedelta(minutes=1),
    ]


@pytest.mark.parametrize("policy", ["UPSTREAM_POLICY_SKIP"])
async def test_a_schedule_may_skip_instead_of_waiting(world: ScheduledChains, policy: str) -> None:
    prices, derived = await world.chain(2, "30 16 * * *", upstreamPolicy=policy)
    time = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
    await world.set_clock(time)
    await world.tick(prices, time)
    assert (await world.tick(derived, time)).error.type == "UPSTREAM_NOT_READY"
