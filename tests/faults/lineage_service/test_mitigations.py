"""Every mitigation on, and off: without it the anomaly it prevents must show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.store import flows, propagation
from lineage_service.use_cases import facts as use_cases
from servicekit.database import Connection, Database
from servicekit.ids import new_id
from support.lineage_service import Lineage, lineage_database, new_tenant
from support.lineage_world import START
from support.polling import eventually


@pytest.fixture
async def database(postgres_server: object) -> AsyncIterator[Database]:
    del postgres_server
    async with lineage_database() as opened:
        yield opened


def snapshot(key: FlowKey, *upstreams: FlowKey, revision: int = 1, config: str = "") -> Snapshot:
    specs = tuple(EdgeSpec(upstream, "input", 1) for upstream in upstreams)
    return Snapshot(
        key.instance_id, revision, "name", 1, (FlowSpec(key.flow_kind, config, specs),), event_id=new_id()
    )


def completed(key: FlowKey, number: int, *inputs: Input, config: str = "") -> RunFact:
    run_id = new_id()
    return RunFact(
        key, run_id, number, Phase.COMPLETED, START, fingerprint=config, inputs=inputs, digest=run_id,
        event_id=new_id(),
    )  # fmt: skip


def new_flow() -> FlowKey:
    return FlowKey(new_id(), "refresh")


async def _race(database: Database, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let an upstream go stale while its downstream is connected to it; return the downstream's freshness.

    The one reads before the other has committed, wherever nothing makes it wait.
    """
    lineage = Lineage(database, new_tenant())
    upstream, downstream = new_flow(), new_flow()
    await lineage.apply([snapshot(upstream), snapshot(downstream)])
    first = completed(upstream, 1)
    await lineage.apply([first])
    # It has read version 1 already and is only to be connected: fresh, if the upstream is.
    await lineage.apply([completed(downstream, 1, Input(upstream, "input", first.run_id))])
    assert {state.is_fresh for state in (await lineage.state()).values()} == {True}

    decided, go_on = asyncio.Event(), asyncio.Event()
    find_stale = propagation.find_stale

    async def find_stale_slowly(*arguments: Any) -> list[propagation.Reach]:
        found = await find_stale(*arguments)
        if not decided.is_set():
            decided.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(propagation, "find_stale", find_stale_slowly)
    connecting = asyncio.create_task(lineage.apply([snapshot(downstream, upstream, revision=2)]))
    await decided.wait()
    moving = asyncio.create_task(lineage.apply([completed(upstream, 2)]))
    await eventually(lambda: _waits_or_is_done(database, moving))
    go_on.set()
    await asyncio.gather(connecting, moving)
    return (await lineage.state())[downstream].is_fresh


async def _waits_or_is_done(database: Database, task: asyncio.Task[None]) -> bool:
    if task.done():
        return True
    waiting = sa.text("select count(*) from pg_locks where locktype = 'advisory' and not granted")
    async with database.infra() as connection:
        return bool((await connection.execute(waiting)).scalar_one())


async def test_two_concurrent_propagations_lose_no_staleness(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await _race(database, monkeypatch)


async def test_without_the_tenants_lock_staleness_is_lost(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_lock(_connection: Connection, _tenant_id: str) -> None:
        """Switch the mitigation off."""

    counter = iter(range(100, 200))

    async def no_counter(_connection: Connection, _tenant_id: str, _now: datetime) -> int:
        """Hand out revisions without the row lock, which would serialize as well."""
        return next(counter)

    async def start_without_counter(
        connection: Connection, tenant_id: str, _now: datetime, keys: Iterable[FlowKey]
    ) -> tuple[int, dict[FlowKey, flows.FoundFlow]]:
        return next(counter), await flows.find_progress(connection, tenant_id, keys)

    monkeypatch.setattr(use_cases, "lock_tenant", no_lock)
    monkeypatch.setattr(flows, "next_revision", no_counter)
    monkeypatch.setattr(flows, "start_revision", start_without_counter)
    assert await _race(database, monkeypatch)


async def _delete_then_be_late(lineage: Lineage) -> set[FlowKey]:
    key = new_flow()
    old = snapshot(key, revision=2)
    run = completed(key, 1)
    deletion = Snapshot(key.instance_id, 3, "name", 1, old.flows, is_deleted=True, event_id=new_id())
    await lineage.apply([snapshot(key)])
    await lineage.apply([deletion])
    await _after_deletion(lineage)
    await lineage.apply([old, run])
    return set(await lineage.state())


async def _after_deletion(lineage: Lineage) -> None:
    """Replaced where the mitigation is switched off."""


async def test_a_late_event_cannot_resurrect_a_deleted_flow(database: Database) -> None:
    assert await _delete_then_be_late(Lineage(database, new_tenant())) == set()


async def test_without_the_tombstone_a_late_event_resurrects_the_flow(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drop_tombstone(lineage: Lineage) -> None:
        async with database.transaction(lineage.tenant_id) as connection:
            await connection.execute(sa.text("delete from flows"))
            await connection.execute(sa.text("delete from instances"))

    monkeypatch.setitem(globals(), "_after_deletion", drop_tombstone)
    assert len(await _delete_then_be_late(Lineage(database, new_tenant()))) == 1


async def test_a_run_that_completes_late_is_numbered_before_the_newer_one(database: Database) -> None:
    """Whoever read the newer version before the older was known has still read the current one."""
    lineage = Lineage(database, new_tenant())
    upstream, downstream = new_flow(), new_flow()
    await lineage.apply([snapshot(upstream), snapshot(downstream, upstream)])
    older, newer = completed(upstream, 1), completed(upstream, 2)
    await lineage.apply([newer])
    await lineage.apply([completed(downstream, 1, Input(upstream, "input", newer.run_id))])
    await lineage.apply([older])
    state = await lineage.state()
    assert (state[upstream].version, state[upstream].version_id) == (2, newer.run_id)
    assert state[downstream].is_fresh
    assert state[downstream].consumed == {(upstream, "input"): 2}
