"""The state of a flow as of an earlier revision, with all of a large graph above it; SQL has filled it.

Every flow has completed another run since, so each answer comes from recorded history. The use cases run in this process:
it looks how long they hold its event loop, and how much memory they take.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg

from bench.layered_graph import fill, instance_id
from bench.report import Row
from lineage_service.config import Settings
from lineage_service.use_cases import reading
from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_service_pb2 as api
from servicekit.database import Database
from servicekit.runtime import keep_loaded, keep_memory_dense
from support.lineage_service import Lineage
from support.postgres import admin_url, service_database

_LAYERS = 110  # all of a layer is above the last flow after ten of them, so about a hundred layers are
_TICK = 0.005  # seconds
# At revision 1 all flows were at version 1, and the first one had been invalidated.
_RECORD = (
    """insert into flow_history (tenant_id, flow_id, until_revision, version, version_run_number, run_number,
        ended_run_number, outcome_run_number, completed_run_number, {columns})
    select tenant_id, flow_id, 2, 1, 1, 1, 1, 1, 1, {columns} from flows""",
    """update flow_history set invalidated_run_number = 1, invalidated_reason = 'bench'
    where flow_id = (select min(flow_id) from flows)""",
    """insert into edge_history (tenant_id, downstream_id, upstream_id, role, until_revision, since_revision, is_deletion,
        kind, is_connected, consumed_version)
    select tenant_id, downstream_id, upstream_id, role, 2, 0, false, kind, is_connected, 1 from edges""",
    """insert into versions (tenant_id, flow_id, run_number, version, run_id, uri, physical_version, digest,
        last_data_date, readers_hash, base_readers_hash, create_time)
    select tenant_id, flow_id, 1, 1, md5('first/' || flow_id)::uuid, 'file:///bench', '0', 'd', '2024-12-30', '', '', now()
    from flows""",
    "insert into lineage_revisions (tenant_id, revision) values ('default', 2)",
    "insert into revision_times (tenant_id, revision, change_time) values ('default', 1, now()), ('default', 2, now())",
)
_OTHER_COLUMNS = """
    select string_agg(h.column_name, ', ') from information_schema.columns h
    join information_schema.columns f on f.table_name = 'flows' and f.column_name = h.column_name
    where h.table_name = 'flow_history' and h.is_generated = 'NEVER' and h.column_name not in ('tenant_id', 'flow_id', 'version',
        'version_run_number', 'run_number', 'ended_run_number', 'outcome_run_number', 'completed_run_number')
"""


async def measure(above: int) -> list[Row]:
    """Return seconds, memory and how long the event loop was held, for the last flow of the graph."""
    width = above // 100
    async with service_database("lineage", "lineage_service") as urls:
        await _fill(admin_url(urls["database_url"].rsplit("/", 1)[1]), width)
        database = Database(Settings.model_validate(urls))
        deps = Lineage(database, "default").deps
        flow = flow_pb2.FlowRef(
            instance_id=instance_id(_LAYERS * width - 1), flow_kind=flow_pb2.FLOW_KIND_REFRESH
        )
        as_of = api.AsOf(revision=1)

        async def state() -> None:
            found = await reading.get_flow_state(
                deps, "default", api.GetFlowStateRequest(flow=flow, as_of=as_of)
            )
            assert not found.is_fresh
            assert found.current_version.version == 1

        async def graph() -> None:
            request = api.GetLineageGraphRequest(flow=flow, as_of=as_of)
            found = await reading.get_lineage_graph(deps, "default", request)
            assert len(found.flows) >= min(above, 10_000)

        name = f"as of a revision, {above:,} flows above"
        rows = await _rows(f"GetFlowState {name} (limit 60)", state)
        rows += await _rows(f"GetLineageGraph {name}", graph)
        await database.close()
    return rows


async def _rows(name: str, call: Callable[[], Awaitable[Any]]) -> list[Row]:
    keep_loaded()
    keep_memory_dense()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    async with longest_hold() as holds:
        await call()
    elapsed = time.perf_counter() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return [
        Row(name, elapsed, "s"),
        Row(f"{name}: more memory than ever before", grown / 1024, "MB"),
        Row(f"{name}: longest hold of the event loop (limit 50)", max(holds) * 1000, "ms"),
    ]


@contextlib.asynccontextmanager
async def longest_hold() -> AsyncIterator[list[float]]:
    """Yield a list that gets, again and again, how much longer than asked the loop let a task sleep."""
    holds: list[float] = []

    async def look() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_TICK)  # what is measured is how late it wakes
            holds.append(time.perf_counter() - began - _TICK)

    task = asyncio.create_task(look())
    try:
        yield holds
    finally:
        task.cancel()


async def _fill(url: str, width: int) -> None:
    await fill(url, _LAYERS * width, width, version=2, spread=3, step=1)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("set session_replication_role = replica")
        await connection.execute("set synchronous_commit = off")
        found = await (await connection.execute(_OTHER_COLUMNS)).fetchone()
        assert found is not None
        for statement in _RECORD:
            await connection.execute(statement.format(columns=found[0]).encode())
        await connection.execute("vacuum analyze flow_history, edge_history, versions")
