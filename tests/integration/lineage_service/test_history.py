"""Lineage as it was: what is recorded, how far back it reaches, and what is removed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext

from devstack.postgres import Postgres
from lineage_service import conversion
from lineage_service.config import Settings
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.probes import ProbeFact
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.reconcile.pruning import Pruner
from lineage_service.use_cases import differences, reading
from optaic.common.v1.flow_pb2 import STATUS_READY, STATUS_STALE
from optaic.lineage.v1.lineage_pb2 import CAUSE_KIND_UPSTREAM_NOT_FRESH, FlowState
from optaic.lineage.v1.lineage_service_pb2 import (
    AsOf,
    DiffLineageRequest,
    DiffLineageResponse,
    GetFlowStateRequest,
    GetLineageGraphRequest,
    GetLineageGraphResponse,
)
from servicekit.database import Database, lock_tenant
from servicekit.errors import NotFoundError, OutOfRangeError
from servicekit.ids import new_id
from servicekit.migrations import migrate, script_directory
from support.clock import FakeClock
from support.lineage_service import Lineage, lineage_database, new_tenant
from support.polling import eventually
from support.postgres import admin_url, create_bare_database

# Columns of flows that are no base facts: identity, what a propagation writes, and the order of probes.
DERIVED = {
    *(
        "tenant_id",
        "flow_id",
        "instance_id",
        "flow_kind",
        "is_fresh",
        "revision",
        "stale_revision",
        "probe_number",
    ),
}
HISTORY = "202611290210"


class Chain:
    """Three flows, each below the one before, and what happens to them."""

    def __init__(self, database: Database) -> None:
        self.clock = FakeClock()
        self.lineage = Lineage(database, new_tenant(), self.clock)
        self.keys = [FlowKey(new_id(), "refresh") for _ in range(3)]
        self.run_ids: dict[FlowKey, str] = {}

    def snapshot(self, number: int, revision: int = 1, *, is_deleted: bool = False) -> Snapshot:
        upstreams = (EdgeSpec(self.keys[number - 1], "input", 1),) if number else ()
        spec = FlowSpec("refresh", "same", upstreams)
        name = f"flow_{number}_{revision}"
        return Snapshot(self.keys[number].instance_id, revision, name, 1, (spec,), is_deleted, new_id())

    async def run(self, number: int, run_number: int = 1) -> None:
        key, run_id = self.keys[number], new_id()
        inputs = (
            (Input(self.keys[number - 1], "input", self.run_ids[self.keys[number - 1]]),) if number else ()
        )
        self.run_ids[key] = run_id
        await self.lineage.apply(
            [
                RunFact(
                    *(key, run_id, run_number, Phase.COMPLETED, self.clock.now()),
                    fingerprint="same",
                    inputs=inputs,
                    uri=f"file:///{run_id}",
                    digest=run_id,
                    event_id=new_id(),
                )
            ]
        )

    async def begin(self) -> None:
        """Define the flows and run each once."""
        await self.lineage.apply([self.snapshot(number) for number in range(3)])
        for number in range(3):
            await self.run(number)

    async def state(self, number: int, as_of: AsOf | None = None) -> FlowState:
        request = GetFlowStateRequest(flow=conversion.flow_ref(*self.keys[number]), as_of=as_of)
        return await reading.get_flow_state(self.lineage.deps, self.lineage.tenant_id, request)

    async def diff(self, number: int, before: AsOf, after: AsOf) -> DiffLineageResponse:
        flow = conversion.flow_ref(*self.keys[number])
        request = DiffLineageRequest(flow=flow, before=before, after=after)
        return await differences.diff_lineage(self.lineage.deps, self.lineage.tenant_id, request)

    async def graph(self, number: int, as_of: AsOf | None = None) -> GetLineageGraphResponse:
        request = GetLineageGraphRequest(flow=conversion.flow_ref(*self.keys[number]), as_of=as_of)
        return await reading.get_lineage_graph(self.lineage.deps, self.lineage.tenant_id, request)

    def time(self, ago: timedelta = timedelta(0)) -> AsOf:
        as_of = AsOf()
        as_of.time.FromDatetime(self.clock.now() - ago)
        return as_of

    async def count(self, table: str) -> int:
        statement = sa.text(f"select count(*) from {table} where tenant_id = :tenant_id")  # noqa: S608 - a constant of ours
        async with self.lineage.database.read(self.lineage.tenant_id) as connection:
            found = await connection.execute(statement, {"tenant_id": self.lineage.tenant_id})
            return int(found.scalar_one())


@pytest.fixture
async def database(postgres_server: Postgres) -> AsyncIterator[Database]:
    del postgres_server
    async with lineage_database() as opened:
        yield opened


async def test_a_state_as_of_a_revision_is_the_state_of_then(database: Database) -> None:
    chain = Chain(database)
    await chain.begin()
    revision, ready = await chain.lineage.revision(), await chain.state(2)
    chain.clock.advance(60)
    await chain.run(0, 2)
    assert (await chain.state(2)).status == STATUS_STALE
    then = await chain.state(2, AsOf(revision=revision))
    assert (then.status, then.as_of_revision) == (STATUS_READY, revision)
    assert then.current_version == ready.current_version
    assert then.as_of_time.ToDatetime() < chain.time().time.ToDatetime()
    assert await chain.state(2, chain.time(timedelta(seconds=1))) == then
    now = await chain.state(2, chain.time())
    assert now.as_of_revision == await chain.lineage.revision()
    assert [cause.kind for cause in now.causes] == [CAUSE_KIND_UPSTREAM_NOT_FRESH]
    assert list(now.causes) == list((await chain.state(2)).causes)


async def test_nothing_is_recorded_of_a_flow_that_merely_became_stale(database: Database) -> None:
    chain = Chain(database)
    await chain.begin()
    recorded = await chain.count("flow_history"), await chain.count("edge_history")
    await chain.lineage.invalidate(chain.keys[0])
    assert {state.is_fresh for state in (await chain.lineage.state()).values()} == {False}
    assert (await chain.count("flow_history"), await chain.count("edge_history")) == (
        recorded[0] + 1,
        recorded[1],
    )


async def test_a_repeated_definition_records_nothing(database: Database) -> None:
    chain = Chain(database)
    await chain.begin()
    recorded = await chain.count("flow_history"), await chain.count("edge_history")
    await chain.lineage.apply([chain.snapshot(2, 2)])
    assert (await chain.count("flow_history"), await chain.count("edge_history")) == recorded


async def test_a_flow_that_was_deleted_is_shown_as_it_was(database: Database) -> None:
    chain = Chain(database)
    await chain.begin()
    before, revision = await chain.graph(1), await chain.lineage.revision()
    await chain.lineage.apply([chain.snapshot(number, 2, is_deleted=True) for number in (2, 1, 0)])
    with pytest.raises(NotFoundError):
        await chain.graph(1)
    with pytest.raises(NotFoundError):
        await chain.graph(1, AsOf(revision=await chain.lineage.revision()))
    then = await chain.graph(1, AsOf(revision=revision))
    assert list(then.edges) == list(before.edges)
    for was, is_told in zip(before.flows, then.flows, strict=True):
        assert is_told.instance_name == was.instance_name
        assert is_told.current_version == was.current_version
        assert is_told.status == STATUS_READY


async def test_before_its_definition_a_flow_is_not_found(database: Database) -> None:
    chain = Chain(database)
    early = chain.time()
    chain.clock.advance(60)
    await chain.begin()
    for as_of in (AsOf(revision=0), early):
        with pytest.raises(NotFoundError):
            await chain.state(0, as_of)


async def test_a_revision_that_is_not_reached_is_refused(database: Database) -> None:
    chain = Chain(database)
    await chain.begin()
    with pytest.raises(OutOfRangeError) as refusal:
        await chain.state(0, AsOf(revision=1_000))
    assert refusal.value.reason == "REVISION_UNKNOWN"
    assert refusal.value.metadata == {"newest_revision": str(await chain.lineage.revision())}
    later = chain.time(timedelta(days=-1))
    assert (await chain.state(0, later)).as_of_revision == await chain.lineage.revision()


async def test_a_refusal_names_the_field_with_the_moment(database: Database) -> None:
    chain = Chain(database)
    await chain.begin()
    chain.clock.advance(6 * 86_400)
    await chain.run(0, 2)
    await Pruner(chain.lineage.deps, timedelta(days=5)).step()
    newest = AsOf(revision=await chain.lineage.revision())
    for wrong in (AsOf(revision=1_000), AsOf(revision=1)):
        for read, field in (
            (chain.state(0, wrong), "as_of"),
            (chain.graph(0, wrong), "as_of"),
            (chain.diff(0, wrong, newest), "before"),
            (chain.diff(0, newest, wrong), "after"),
        ):
            with pytest.raises(OutOfRangeError, match=f"^{field}: "):
                await read


async def test_a_clock_that_goes_back_hides_no_revision(database: Database) -> None:
    chain = Chain(database)
    await chain.begin()
    chain.clock.advance(-60)  # as that of another replica may
    await chain.run(0, 2)
    newest = await chain.lineage.revision()
    chain.clock.advance(120)
    assert (await chain.state(0, chain.time())).as_of_revision == newest


@pytest.mark.parametrize("what", ["definition", "run", "probe"])
async def test_a_revision_has_the_time_after_the_wait_for_the_tenants_lock(
    database: Database, what: str
) -> None:
    chain = Chain(database)
    await chain.begin()
    before = await chain.lineage.revision()
    waiting = sa.text("""
        select count(*) from pg_locks l join pg_database d on d.oid = l.database
        where d.datname = current_database() and l.locktype = 'advisory' and not l.granted
    """)
    async with database.transaction(chain.lineage.tenant_id) as holder:
        await lock_tenant(holder, chain.lineage.tenant_id)
        if what == "definition":
            change = asyncio.create_task(chain.lineage.apply([chain.snapshot(0, 2)]))
        elif what == "run":
            change = asyncio.create_task(chain.run(0, 2))
        else:
            change = asyncio.create_task(chain.lineage.probe([ProbeFact(chain.keys[0], 1, "token", 1)]))

        async def waits() -> bool:
            return bool((await holder.execute(waiting)).scalar_one())

        await eventually(waits)
        chain.clock.advance(60)
    await change
    assert await chain.lineage.revision() == before + 1
    assert (await chain.state(0, chain.time(timedelta(seconds=1)))).as_of_revision == before
    assert (await chain.state(0, chain.time())).as_of_revision == before + 1


async def test_what_is_older_than_the_retention_is_removed_and_what_is_kept_stays_right(
    database: Database,
) -> None:
    chain = Chain(database)
    await chain.begin()
    chain.clock.advance(86_400)
    await chain.run(0, 2)
    kept, expected = await chain.lineage.revision(), await chain.state(1)
    chain.clock.advance(5 * 86_400)
    await chain.run(1, 2)
    pruner = Pruner(chain.lineage.deps, timedelta(days=5))
    for _ in range(2):  # a second step finds nothing more
        await pruner.step()
    with pytest.raises(OutOfRangeError) as refusal:
        await chain.state(1, AsOf(revision=kept - 1))
    assert refusal.value.reason == "HISTORY_NOT_KEPT"
    assert refusal.value.metadata["start_revision"] == str(kept)
    with pytest.raises(OutOfRangeError):
        await chain.state(1, chain.time(timedelta(days=5, seconds=1)))
    then = await chain.state(1, AsOf(revision=kept))
    assert (then.status, list(then.causes)) == (expected.status, list(expected.causes))
    assert (await chain.state(1, chain.time(timedelta(days=5)))) == then
    assert await chain.count("revision_times") == 2
    async with database.read(chain.lineage.tenant_id) as connection:
        oldest = await connection.execute(
            sa.text("select min(until_revision) from flow_history where tenant_id = :tenant_id"),
            {"tenant_id": chain.lineage.tenant_id},
        )
        assert oldest.scalar_one() > kept


async def test_every_column_of_a_flow_is_recorded_or_derived(database: Database) -> None:
    columns: dict[str, set[str]] = {}
    expressions: dict[str, str] = {}
    async with database.read("default") as connection:
        for table in ("flows", "flow_history"):
            found = await connection.execute(
                sa.text("""
                    select a.attname, a.attgenerated <> '', pg_get_expr(d.adbin, d.adrelid) from pg_attribute a
                    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                    where a.attrelid = cast(:table as regclass) and a.attnum > 0 and not a.attisdropped
                """),
                {"table": table},
            )
            for name, is_generated, expression in found:
                columns.setdefault(table, set()).add(name)
                if is_generated:
                    expressions[table] = expression
        trigger = await connection.execute(
            sa.text("select pg_get_triggerdef(oid) from pg_trigger where tgname = 'record_flow_change'")
        )
        (fired_by,) = re.findall(r"UPDATE OF (.*?) ON", trigger.scalar_one())
    recorded = columns["flow_history"] - {"tenant_id", "flow_id", "until_revision"}
    assert recorded == columns["flows"] - DERIVED
    assert {name.strip() for name in fired_by.split(",")} == recorded - {"has_own_cause"}
    assert expressions["flows"] == expressions["flow_history"]


async def test_after_an_upgrade_history_begins_with_the_present_revision(postgres_server: Postgres) -> None:
    del postgres_server
    name = f"history_{new_id().replace('-', '')}"
    urls = await create_bare_database(name, "lineage")
    _migrate_until(urls["database_owner_url"], HISTORY)
    instance_id = new_id()
    async with await psycopg.AsyncConnection.connect(admin_url(name), autocommit=True) as connection:
        await connection.execute("insert into lineage_revisions values ('default', 7)")
        await connection.execute(
            "insert into instances (tenant_id, instance_id, revision, name, kind, is_deleted)"
            " values ('default', %s, 1, 'old', 1, false)",
            [instance_id],
        )
        await connection.execute(
            "insert into flows (tenant_id, instance_id, flow_kind, is_defined, revision)"
            " values ('default', %s, 'refresh', true, 7)",
            [instance_id],
        )
    await migrate(urls["database_owner_url"], "lineage_service")
    database = Database(Settings.model_validate(urls))
    try:
        lineage = Lineage(database, "default")
        request = GetFlowStateRequest(
            flow=conversion.flow_ref(instance_id, "refresh"), as_of=AsOf(revision=6)
        )
        with pytest.raises(OutOfRangeError) as refusal:
            await reading.get_flow_state(lineage.deps, "default", request)
        assert refusal.value.metadata["start_revision"] == "7"
        old = AsOf()
        old.time.FromSeconds(1)
        request.as_of.CopyFrom(old)
        with pytest.raises(OutOfRangeError):
            await reading.get_flow_state(lineage.deps, "default", request)
        request.as_of.revision = 7
        assert (await reading.get_flow_state(lineage.deps, "default", request)).instance_name == "old"
    finally:
        await database.close()


def _migrate_until(owner_url: str, revision: str) -> None:
    """Migrate to the state before a revision."""
    script = script_directory("lineage_service")
    before = str(script.get_revision(revision).down_revision)
    engine = sa.create_engine(owner_url, poolclass=sa.NullPool)

    def steps(current: Any, _context: Any) -> Any:
        return script._upgrade_revs(before, current)

    with engine.connect() as connection, EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(connection=connection)
        with environment.begin_transaction():
            environment.run_migrations()
