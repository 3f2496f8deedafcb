"""Propagation: how long one completed run takes to make everything below it stale, events included.

Beside it, in the same run on the same rows: a bare UPDATE of as many rows.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.report import Row
from lineage_service.config import Settings
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Phase, RunFact
from lineage_service.domain.snapshots import FlowSpec, Snapshot
from servicekit.database import Database
from servicekit.ids import new_id
from support.lineage_service import Lineage, new_tenant
from support.postgres import service_database

SIZES = (10, 1_000, 100_000, 1_000_000)
_LAYER = 1_000
_WIDTH = 3  # edges into each flow of a layered graph
_START = datetime(2024, 1, 2, tzinfo=UTC)
_ROUNDS = 3

# Every flow below the origin: defined, computed at version 1 from version 1 of what is above it, fresh.
_SEED_FLOWS = sa.text("""
    insert into flows (tenant_id, instance_id, flow_kind, is_defined, version, version_run_number, run_number,
        last_run_id, last_run_time, ended_run_number, outcome_run_number, outcome, completed_run_number, is_fresh)
    select :tenant_id, gen_random_uuid(), 'refresh', true, 1, 1, 1, gen_random_uuid(), now(), 1, 1, 'succeeded',
        1, true
    from generate_series(1, :size)
""")
_SEED_INSTANCES = sa.text("""
    insert into instances (tenant_id, instance_id, revision, name, kind, is_deleted)
    select tenant_id, instance_id, 1, 'instance ' || flow_id, 1, false from flows
    where tenant_id = :tenant_id and flow_id <> :origin
""")
_SEED_FAN = sa.text("""
    insert into edges (tenant_id, downstream_id, upstream_id, role, kind, is_connected, consumed_version)
    select :tenant_id, flow_id, :origin, 'input', 1, true, 1 from flows
    where tenant_id = :tenant_id and flow_id <> :origin
""")
_SEED_LAYERS = sa.text("""
    with numbered as (
        select flow_id, row_number() over (order by flow_id) - 1 as n from flows
        where tenant_id = :tenant_id and flow_id <> :origin
    )
    insert into edges (tenant_id, downstream_id, upstream_id, role, kind, is_connected, consumed_version)
    select :tenant_id, d.flow_id, coalesce(u.flow_id, :origin), 'input_' || k, 1, true, 1
    from numbered d cross join generate_series(0, :width - 1) k
    left join numbered u on d.n >= :layer
        and u.n = (d.n / :layer - 1) * :layer + (d.n % :layer + k * 7) % :layer
""")
# One flow below the origin reads a second upstream as well.
_SEED_SECOND = sa.text("""
    insert into edges (tenant_id, downstream_id, upstream_id, role, kind, is_connected, consumed_version)
    select :tenant_id, e.downstream_id, :second, 'second', 1, true, 1 from edges e
    where e.tenant_id = :tenant_id and e.upstream_id = :origin order by e.downstream_id limit 1
""")
_BARE_UPDATE = sa.text("""
    update flows set is_fresh = :is_fresh where tenant_id = :tenant_id and flow_id = any(:flow_ids)
""")
_LIST_BELOW = sa.text("""
    select flow_id from flows where tenant_id = :tenant_id and flow_id not in (:origin, :second)
""")
_FIND = sa.text("""
    select flow_id from flows where tenant_id = :tenant_id and instance_id = cast(:instance_id as uuid)
""")
_COUNT_FRESH = sa.text("select count(*) from flows where tenant_id = :tenant_id and is_fresh")
_RESTORE = sa.text("""
    update edges e set consumed_version = u.version from flows u
    where e.tenant_id = :tenant_id and e.upstream_id in (:origin, :second)
      and u.tenant_id = :tenant_id and u.flow_id = e.upstream_id
""")
_RESET = sa.text("update flows set is_fresh = true where tenant_id = :tenant_id")


def _completed(flow: FlowKey, number: int) -> RunFact:
    run_id = new_id()
    return RunFact(
        flow, run_id, number, Phase.COMPLETED, _START, fingerprint="same", digest=run_id, event_id=new_id()
    )


class Graph:
    """An origin with flows below it, all fresh, and a second upstream of one of them."""

    def __init__(self, database: Database, size: int, *, is_layered: bool) -> None:
        self._database = database
        self._size = size
        self._is_layered = is_layered
        self._lineage = Lineage(database, new_tenant())
        self._origin = FlowKey(new_id(), "refresh")
        self._second = FlowKey(new_id(), "refresh")
        self._runs = 1
        self._scope: dict[str, object] = {}

    async def seed(self) -> None:
        """Create the graph."""
        tenant = {"tenant_id": self._lineage.tenant_id}
        origin = await self._add(self._origin, "origin")
        self._scope = {**tenant, "origin": origin, "second": 0}
        async with self._database.transaction(self._lineage.tenant_id) as connection:
            await connection.execute(_SEED_FLOWS, {**tenant, "size": self._size})
            await connection.execute(_SEED_INSTANCES, self._scope)
            layers = {**self._scope, "width": _WIDTH, "layer": min(_LAYER, max(self._size // 10, 1))}
            await connection.execute(
                _SEED_LAYERS if self._is_layered else _SEED_FAN, layers if self._is_layered else self._scope
            )
        self._scope["second"] = await self._add(self._second, "second")
        async with self._database.transaction(self._lineage.tenant_id) as connection:
            await connection.execute(_SEED_SECOND, self._scope)

    async def _add(self, flow: FlowKey, name: str) -> int:
        """Define a flow without upstreams and complete its first run; return its id."""
        spec = FlowSpec("refresh", "same", ())
        await self._lineage.apply([Snapshot(flow.instance_id, 1, name, 1, (spec,))])
        await self._lineage.apply([_completed(flow, 1)])
        async with self._database.read(self._lineage.tenant_id) as connection:
            parameters = {"tenant_id": self._lineage.tenant_id, "instance_id": flow.instance_id}
            return int((await connection.execute(_FIND, parameters)).scalar_one())

    async def propagate(self) -> tuple[float, float, float]:
        """Complete two runs of the origin and one of the second upstream, each with new content; return how long each took.

        After the first everything below is stale, so that the others reach their direct dependants alone.
        """
        elapsed, again = await self._complete(self._origin), await self._complete(self._origin)
        second = await self._complete(self._second)
        async with self._database.transaction(self._lineage.tenant_id) as connection:
            fresh = (await connection.execute(_COUNT_FRESH, self._scope)).scalar_one()
            assert fresh == 2, f"{fresh} flows are fresh, only the two upstreams should be"
            for statement in (_RESTORE, _RESET, sa.text("delete from outbox")):
                await connection.execute(statement, self._scope)
        return elapsed, again, second

    async def _complete(self, flow: FlowKey) -> float:
        self._runs += 1
        began = time.perf_counter()
        await self._lineage.apply([_completed(flow, self._runs)])
        return time.perf_counter() - began

    async def update_bare(self) -> float:
        """Update as many rows and nothing else; return how long it took until the commit."""
        async with self._database.read(self._lineage.tenant_id) as connection:
            below = list((await connection.execute(_LIST_BELOW, self._scope)).scalars())
        began = time.perf_counter()
        async with self._database.transaction(self._lineage.tenant_id) as connection:
            await self._set(connection, below, is_fresh=False)
        elapsed = time.perf_counter() - began
        async with self._database.transaction(self._lineage.tenant_id) as connection:
            await self._set(connection, below, is_fresh=True)
        return elapsed

    async def _set(self, connection: AsyncConnection, flow_ids: list[int], *, is_fresh: bool) -> None:
        parameters = {**self._scope, "flow_ids": flow_ids, "is_fresh": is_fresh}
        await connection.execute(_BARE_UPDATE, parameters)


async def measure(largest: int) -> list[Row]:
    """Measure both shapes of all sizes up to the largest; the session's PostgreSQL must be running."""
    rows = []
    async with service_database("lineage", "lineage_service") as urls:
        database = Database(Settings.model_validate(urls))
        for size in (each for each in SIZES if each <= largest):
            for is_layered in (False, True):
                graph = Graph(database, size, is_layered=is_layered)
                await graph.seed()
                await _vacuum(urls["database_owner_url"])
                bare = statistics.median([await graph.update_bare() for _ in range(_ROUNDS)])
                both = [await graph.propagate() for _ in range(_ROUNDS)]
                elapsed, again, second = (statistics.median(each) for each in zip(*both, strict=True))
                shape = "layers" if is_layered else "fan"
                name = f"propagation to {size:,} descendants, {shape}"
                rows.append(Row(f"{name} (bare UPDATE)", elapsed * 1000, "ms", bare * 1000, elapsed / bare))
                rows.append(Row(f"{name}, all stale already, the origin again", again * 1000, "ms"))
                rows.append(Row(f"{name}, all stale already, a second upstream", second * 1000, "ms"))
        await database.close()
    return rows


async def _vacuum(owner_url: str) -> None:
    """Do what autovacuum would have done by now."""
    url = owner_url.replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("vacuum analyze flows, edges, versions, instances")
