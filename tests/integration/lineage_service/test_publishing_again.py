"""The upgrade that changed the causes of staleness: flows that are not fresh are published again after it."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from devstack.postgres import Postgres
from lineage_service.config import Settings
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from servicekit.database import Database
from servicekit.ids import new_id
from servicekit.migrations import script_directory
from support.lineage_service import Lineage, new_tenant
from support.postgres import service_database

REVISION = "202611272010"


def _upgrade(owner_url: str) -> set[bool]:
    """Run the migration again; return whether row-level security is still forced on its tables afterwards."""
    script = script_directory("lineage_service").get_revision(REVISION)
    engine = sa.create_engine(owner_url)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        script.module.upgrade()
        forced = connection.execute(
            sa.text(
                "select relforcerowsecurity from pg_class where relname in ('flows', 'lineage_revisions')"
            )
        )
        found = set(forced.scalars())
    engine.dispose()
    return found


async def test_a_flow_that_is_not_fresh_gets_a_newer_revision_than_other_services_have(
    postgres_server: Postgres,
) -> None:
    del postgres_server
    async with service_database("lineage", "lineage_service") as urls:
        database = Database(Settings.model_validate(urls))
        lineages = [Lineage(database, new_tenant()) for _ in range(2)]
        worlds = []
        for lineage in lineages:
            prices, signal = FlowKey(new_id(), "refresh"), FlowKey(new_id(), "refresh")
            edge = EdgeSpec(prices, "input", 1)
            await lineage.apply(
                [Snapshot(prices.instance_id, 1, "prices", 1, (FlowSpec("refresh", "a", ()),))]
            )
            await lineage.apply(
                [Snapshot(signal.instance_id, 1, "signal", 1, (FlowSpec("refresh", "a", (edge,)),))]
            )
            runs = [new_id() for _ in range(3)]
            reads = (Input(prices, "input", runs[0]),)
            for flow, number, run_id, inputs in (
                (prices, 1, runs[0], ()),
                (signal, 1, runs[1], reads),
                (prices, 2, runs[2], ()),
            ):
                fact = RunFact(
                    flow, run_id, number, Phase.COMPLETED, None,
                    fingerprint="a", inputs=inputs, digest=run_id, event_id=new_id(),
                )  # fmt: skip
                await lineage.apply([fact])
            worlds.append((prices, signal))
        before = [await lineage.states() for lineage in lineages]
        told = [max(message.revision for message in await lineage.messages()) for lineage in lineages]
        assert await asyncio.to_thread(_upgrade, urls["database_owner_url"]) == {True}
        for lineage, (prices, signal), known, newest in zip(lineages, worlds, before, told, strict=True):
            after = await lineage.states()
            assert after[prices].flow.revision == known[prices].flow.revision
            assert after[signal].flow.revision == newest + 1
            assert not after[signal].flow.is_fresh
            assert [cause.message for cause in after[signal].causes] == [
                "prices moved from version 1 to version 2"
            ]
            await lineage.invalidate(prices)
            assert min(message.revision for message in await lineage.messages(newest)) == newest + 2
        await database.close()
