"""When a worker claims a flow run that run-service names, and when it looks into its work pool instead."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from optaic.common.v1 import flow_pb2
from optaic.run.v1.run_report_service_pb2 import DispatchedRun
from servicekit.ids import new_id
from support.polling import eventually
from support.work_pool import GIVEN, FakeWorkPool
from worker import executor as executor_module
from worker import named_runs
from worker.config import Settings
from worker.execution import Ending, Outcome
from worker.executor import Executor
from worker.guardian import Line
from worker.named_runs import PoolViews, read_named
from worker.peers import Peers
from worker.prefect_adapter import WorkPool

QUEUE = uuid4()
RUN_ID = new_id()


def _name(flow_run_id: UUID, queue_id: UUID = QUEUE, run_id: str = RUN_ID) -> DispatchedRun:
    flow = flow_pb2.FlowRef(instance_id=str(GIVEN["instance_id"]), flow_kind=flow_pb2.FLOW_KIND_REFRESH)
    return DispatchedRun(
        orchestrator_run_id=str(flow_run_id), run_id=run_id, flow=flow, work_queue_id=str(queue_id)
    )


class Told:
    """run-service, as far as it names flow runs."""

    def __init__(self) -> None:
        self.hints: asyncio.Queue[DispatchedRun | None] = asyncio.Queue()

    async def watch_dispatches(self, _: str) -> AsyncIterator[DispatchedRun | None]:
        """Yield what the test tells."""
        yield None
        while True:
            yield await self.hints.get()


@dataclass
class World:
    """A worker that looks by itself only at first, its pool, and what tells it of flow runs."""

    executor: Executor
    pool: FakeWorkPool
    told: Told
    tickets: list[str]  # the ids of the runs that were executed
    release: asyncio.Event  # set: runs end at once

    def tell(self, flow_run_id: UUID, run_id: str = RUN_ID) -> None:
        """Name a flow run."""
        self.told.hints.put_nowait(_name(flow_run_id, run_id=run_id))

    async def see_free_queues(self) -> None:
        """Let the worker have a view of the pool, for which it needs a name."""
        self.tell(self.pool.add())
        await eventually(lambda: self.executor._views.is_free(QUEUE) and self.pool.ended)


def _settings(folder: Path) -> Settings:
    identity: dict[str, Any] = {"executor_token": "secret", "tenants": ("acme",)}
    return Settings(
        instance_address="127.0.0.1:9",
        run_address="127.0.0.1:9",
        data_root=str(folder),
        concurrency=2,
        poll_seconds=3600,
        worker_grace_seconds=0,
        **identity,
    )


async def _start_guardian() -> Line:
    raise MemoryError


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with _running(tmp_path, monkeypatch) as running:
        yield running


@asynccontextmanager
async def _running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async def compute(ticket: Any, *_: object) -> Ending:
        made.tickets.append(ticket.run_id)
        await made.release.wait()
        return Ending(Outcome.COMPLETED, "at once")

    monkeypatch.setattr(executor_module, "execute_run", compute)
    monkeypatch.setattr(named_runs, "_VALID_SECONDS", 3600.0)
    pool, told = FakeWorkPool(0), Told()
    pool.free_queues = {QUEUE}
    executor = Executor(_settings(folder), cast("WorkPool", pool), _start_guardian, cast("Peers", told))
    made = World(executor, pool, told, [], asyncio.Event())
    made.release.set()
    stop = asyncio.Event()
    running = asyncio.create_task(executor.run(stop))
    try:
        await eventually(lambda: len(pool.looks) == 2, message="one at first, one when the stream begins")
        yield made
    finally:
        stop.set()
        await running


VIEWS = ("none", "old", "not free", "free")
NAMES = ("new", "under way", "taken before", "without a run", "not understood")


@pytest.mark.parametrize(
    ("view", "name", "has_room", "may_others_wait"),
    list(itertools.product(VIEWS, NAMES, (True, False), (True, False))),
)
async def test_a_named_flow_run_is_claimed_only_if_nothing_speaks_against_it(
    view: str,
    name: str,
    has_room: bool,
    may_others_wait: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor = Executor(_settings(tmp_path), cast("WorkPool", FakeWorkPool(0)), _start_guardian)
    begun: list[UUID] = []
    monkeypatch.setattr(executor, "_begin", lambda flow_run_id, _: begun.append(flow_run_id))
    flow_run_id, views = uuid4(), executor._views
    views._free = {QUEUE} if view != "not free" else {uuid4()}
    age = {"none": float("inf"), "old": 2.1}.get(view, 0.0)
    views._view_time = time.monotonic() - age
    if name == "under way":
        executor._begun.add(flow_run_id)
    if name == "taken before":
        executor._named.append(flow_run_id)
    if not has_room:
        executor._tasks = dict.fromkeys((uuid4(), uuid4()), cast("Any", None))
    executor._may_others_wait = may_others_wait
    told = _name(flow_run_id, run_id="" if name == "without a run" else RUN_ID)
    if name == "not understood":
        told.orchestrator_run_id = "of another orchestrator"
    is_taken = executor._take_named(told, "acme")
    assert is_taken is ((view, name, has_room, may_others_wait) == ("free", "new", True, False))
    assert begun == [flow_run_id] * is_taken


@pytest.mark.parametrize(
    "change",
    [
        {"orchestrator_run_id": "x"},
        {"work_queue_id": ""},
        {"run_id": "7"},
        {"flow": flow_pb2.FlowRef(instance_id="prices", flow_kind=flow_pb2.FLOW_KIND_REFRESH)},
        {"flow": flow_pb2.FlowRef(instance_id=RUN_ID)},
        {"flow": flow_pb2.FlowRef(instance_id=RUN_ID, flow_kind=99)},  # type: ignore[arg-type] # of a later release
    ],
)
def test_a_name_with_a_value_that_means_nothing_names_no_run(change: dict[str, Any]) -> None:
    told = _name(uuid4())
    for field in change:
        told.ClearField(cast("Any", field))
    told.MergeFrom(DispatchedRun(**change))
    assert read_named(told, "acme") is None


def test_a_named_flow_run_has_the_ticket_of_its_run() -> None:
    flow_run_id = uuid4()
    named = read_named(_name(flow_run_id), "acme")
    assert named is not None
    request = named.ticket.make_request()
    assert (named.flow_run_id, named.queue_id) == (flow_run_id, QUEUE)
    assert (request.run_id, request.orchestrator_run_id) == (RUN_ID, str(flow_run_id))
    assert named.ticket.tenant_id == "acme"


async def test_the_first_name_brings_a_view_and_later_ones_need_no_look(world: World) -> None:
    await world.see_free_queues()
    assert (len(world.pool.looks), world.pool.views) == (3, 1)
    for _ in range(3):
        run_id = new_id()
        world.tell(world.pool.add(), run_id)
        await eventually(lambda: len(world.pool.ended) == len(world.pool.due))
        assert world.tickets[-1] == run_id
    assert len(world.pool.looks) == 3


async def test_a_name_told_twice_is_claimed_once(world: World) -> None:
    await world.see_free_queues()
    flow_run_id = world.pool.add()
    world.tell(flow_run_id)
    world.tell(flow_run_id)
    await eventually(lambda: len(world.pool.ended) == 2)
    world.tell(flow_run_id)
    await eventually(lambda: len(world.pool.looks) >= 4, message="it looks instead")
    await eventually(lambda: not world.executor._tasks)
    assert world.pool.claimed.count(flow_run_id) == 1
    assert (world.pool.refused, world.pool.given_back) == ([], [])


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED"])
async def test_a_late_name_of_a_flow_run_that_has_ended_executes_nothing(world: World, state: str) -> None:
    await world.see_free_queues()
    flow_run_id = world.pool.add()
    world.pool.states[flow_run_id] = state
    world.tell(flow_run_id)
    await eventually(lambda: world.pool.given_back == [flow_run_id] and not world.executor._tasks)
    assert len(world.tickets) == 1  # of the first name
    assert flow_run_id not in world.pool.claimed


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELLED"])
async def test_a_named_flow_run_that_another_has_or_somebody_has_cancelled_is_left_alone(
    world: World, state: str
) -> None:
    await world.see_free_queues()
    flow_run_id = world.pool.add()
    world.pool.states[flow_run_id] = state
    world.tell(flow_run_id)
    await eventually(lambda: world.pool.refused == [flow_run_id] and not world.executor._tasks)
    assert (len(world.tickets), world.pool.states[flow_run_id]) == (1, state)


async def test_a_named_flow_run_overtakes_none_that_waits(world: World) -> None:
    await world.see_free_queues()
    world.release.clear()
    waiting = [world.pool.add() for _ in range(4)]
    for flow_run_id in waiting[:2]:
        world.tell(flow_run_id)
    await eventually(lambda: len(world.executor._tasks) == 2)
    world.tell(waiting[3])  # there is no room
    world.release.set()
    newest = world.pool.add()
    world.tell(newest)
    await eventually(lambda: len(world.pool.ended) == 6)
    assert world.pool.claimed[1:] == [*waiting, newest]


async def test_a_lost_name_is_made_up_for_by_a_look(world: World) -> None:
    await world.see_free_queues()
    lost = world.pool.add()
    world.told.hints.put_nowait(None)
    await eventually(lambda: world.pool.claimed[-1] == lost)


async def test_a_named_flow_run_whose_claim_fails_is_looked_for_at_once(world: World) -> None:
    await world.see_free_queues()
    world.pool.failures = 1
    world.tell(flow_run_id := world.pool.add())
    await eventually(lambda: world.pool.ended[-1] == flow_run_id)


async def test_a_worker_that_stops_takes_no_named_flow_run(world: World) -> None:
    await world.see_free_queues()
    world.executor._is_stopping = True  # it is in a look, and its streams still name flow runs
    world.tell(flow_run_id := world.pool.add())
    await eventually(lambda: flow_run_id in world.pool.claimed, message="the loop still looks here")
    assert flow_run_id not in world.executor._named


async def test_views_end_with_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_runs, "_PAUSE_SECONDS", 0.0)
    pool = FakeWorkPool(0)
    views = PoolViews(cast("WorkPool", pool))
    looking = asyncio.create_task(views.run())
    await asyncio.sleep(0)
    assert pool.views == 0
    views.note_name()
    await eventually(lambda: pool.views > 2, message="they go on for a while")
    monkeypatch.setattr(named_runs, "_LAST_SECONDS", -1.0)
    await eventually(lambda: not views._named.is_set())
    seen = pool.views
    views.note_name()
    await eventually(lambda: pool.views == seen + 1)
    looking.cancel()
    await asyncio.wait({looking})


async def test_a_view_that_fails_leaves_the_last_one_which_grows_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(named_runs, "_PAUSE_SECONDS", 0.0)
    pool, failures = FakeWorkPool(0), 0
    pool.free_queues = {QUEUE}
    views = PoolViews(cast("WorkPool", pool))

    async def fail() -> set[UUID]:
        nonlocal failures
        failures += 1
        raise OSError("away")

    looking = asyncio.create_task(views.run())
    views.note_name()
    await eventually(lambda: views.is_free(QUEUE))
    pool.list_free_queues = fail  # type: ignore[method-assign] # this pool only
    await eventually(lambda: failures > 1)
    assert views.is_free(QUEUE)
    monkeypatch.setattr(named_runs, "_VALID_SECONDS", -1.0)
    assert not views.is_free(QUEUE)
    looking.cancel()
    await asyncio.wait({looking})
