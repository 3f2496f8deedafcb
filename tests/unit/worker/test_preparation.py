"""What is begun while a run is started, and what is read once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from optaic.common.v1 import flow_pb2
from servicekit import context
from servicekit.ids import new_id
from support.polling import eventually
from support.worker import World, make_ticket
from support.worker_peers import TENANT, VERSION_IDS
from worker.execution import Outcome, execute_run
from worker.executor import Executor
from worker.guardian import Line
from worker.peers import connect_peers
from worker.prefect_adapter import WorkPool
from worker.preparation import Preparation

REFRESH = flow_pb2.FLOW_KIND_REFRESH


def _context() -> context.RequestContext:
    return context.RequestContext(TENANT, "worker", new_id(), context.new_traceparent())


async def test_a_guardian_that_no_run_has_taken_ends(world: World, tmp_path: Path) -> None:
    dataset = world.dataset()
    begun: list[Line] = []

    async def start() -> Line:
        begun.append(await world.guardians.start())
        return begun[0]

    async with connect_peers(world.settings(tmp_path)) as peers:
        with context.bind(_context()):
            async with Preparation(dataset.instance_id, peers, start):
                pass
    assert begun[0].orders.fileno() == begun[0].work.fileno() == -1
    await asyncio.wait_for(world.guardians.wait(), 30)


async def test_a_guardian_that_cannot_start_fails_the_run(world: World, tmp_path: Path) -> None:
    async def start() -> Line:
        raise MemoryError("no process")

    run = world.runs.submit(world.dataset(), REFRESH)
    ending = await execute_run(make_ticket(run), world.settings(tmp_path), start)
    assert (ending.outcome, ending.message) == (Outcome.FAILED, "MemoryError: no process")
    assert world.runs.stored[run.run_id].error.type == "MemoryError"


async def test_the_revision_of_the_run_counts_although_a_newer_one_was_read_ahead(
    world: World, tmp_path: Path
) -> None:
    pinned = world.dataset()
    newer = pinned.__class__()
    newer.CopyFrom(pinned)
    newer.name = "renamed"
    world.instances.put(newer)
    async with connect_peers(world.settings(tmp_path)) as peers:
        with context.bind(_context()):
            async with Preparation(pinned.instance_id, peers, world.guardians.start) as prepared:
                found = await prepared.get_instance(pinned.instance_id, 1)
                newest = await prepared.get_instance(pinned.instance_id, 2)
    assert (found.name, newest.name) == ("prices", "renamed")


async def test_a_hint_has_the_worker_look_at_once(world: World, tmp_path: Path) -> None:
    looks: list[float] = []

    class Pool:
        async def ensure(self) -> None:
            """There is one."""

        async def list_due(self, _: int) -> list[object]:
            looks.append(asyncio.get_running_loop().time())
            return []

    settings = world.settings(tmp_path, poll_seconds=3600, worker_grace_seconds=0)
    stop = asyncio.Event()
    async with connect_peers(settings) as peers:
        executor = Executor(settings, cast("WorkPool", Pool()), world.guardians.start, peers)
        running = asyncio.create_task(executor.run(stop))
        await eventually(lambda: len(looks) == 2, message="one at first, one when the stream begins")
        world.runs.hints.put_nowait(None)
        await eventually(lambda: len(looks) == 3)
        stop.set()
        await asyncio.wait_for(running, 10)
    assert len(looks) == 3


async def test_a_worker_looks_by_itself_without_hints(world: World, tmp_path: Path) -> None:
    looks: list[None] = []

    class Pool:
        async def ensure(self) -> None:
            """There is one."""

        async def list_due(self, _: int) -> list[object]:
            looks.append(None)
            return []

    settings = world.settings(tmp_path, poll_seconds=0.02, worker_grace_seconds=0)
    await world.stop()  # nobody sends a hint
    stop = asyncio.Event()
    async with connect_peers(settings) as peers:
        executor = Executor(settings, cast("WorkPool", Pool()), world.guardians.start, peers)
        running = asyncio.create_task(executor.run(stop))
        await eventually(lambda: len(looks) > 3)
        stop.set()
        await asyncio.wait_for(running, 10)


async def test_a_definition_version_is_read_once_for_each_tenant(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    get = world.definitions.GetDefinitionVersion

    async def count(request: object, grpc_context: object) -> object:
        asked.append(context.current().tenant_id)
        return await get(request, grpc_context)

    await world.stop()
    monkeypatch.setattr(world.definitions, "GetDefinitionVersion", count)
    await world.start()
    version_ids = [VERSION_IDS["delta"], VERSION_IDS["simple"]]
    async with connect_peers(world.settings(tmp_path)) as peers:
        for tenant_id in (TENANT, TENANT, "rival"):
            with context.bind(
                context.RequestContext(tenant_id, "worker", new_id(), context.new_traceparent())
            ):
                found = await peers.get_versions(version_ids)
            assert [found[each].definition_name for each in version_ids] == ["delta", "simple"]
    # For the second tenant it asks anew. Whatever tenant a call names, it is made for the tenant of the executor's token.
    assert asked == [TENANT] * 4
