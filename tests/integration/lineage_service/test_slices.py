"""What has many rows is read in slices or parts; it is the same as what is read at once."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest

from devstack.postgres import Postgres
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.past import Base, stale_flows
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.store import closures, history, reads
from servicekit.database import Database
from servicekit.direct import DirectConnection
from servicekit.ids import new_id
from support.lineage_service import Lineage, lineage_database, new_tenant

_DATA = 1


def _reading_all_before(flow: FlowKey, before: list[FlowKey]) -> Snapshot:
    edges = tuple(EdgeSpec(each, f"input_{number}", _DATA) for number, each in enumerate(before))
    return Snapshot(flow.instance_id, 1, "x", 1, (FlowSpec("refresh", "same", edges),))


async def _read(database: Database, tenant: str, flows: list[FlowKey]) -> list[Any]:
    async with database.read(tenant) as connection:
        ids = await reads.find_ids(connection, tenant, flows)
        first, *_, last = (ids[flow] for flow in flows)
        found: list[Any] = [
            sorted(await closures.list_closure(connection, tenant, [last], is_upstream=True)),
            sorted(await closures.list_closure(connection, tenant, [first], is_upstream=False)),
            await reads.list_edges_among(connection, tenant, list(ids.values())),
            sorted(map(astuple, await reads.list_flows(connection, tenant, ids.values()))),
        ]
        for load in (reads.load_causes_graph, reads.load_direct_graph):
            graph = await load(connection, tenant, [last])
            edges = [edge for flow in graph.flows.values() for edge in graph.edges_into(flow)]
            found += [sorted(map(astuple, graph.flows.values())), sorted(edges)]
        return found


async def test_what_is_read_in_slices_is_what_is_read_at_once(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    del postgres_server
    async with lineage_database() as database:
        tenant = new_tenant()
        flows = [FlowKey(new_id(), "refresh") for _ in range(5)]
        snapshots = [_reading_all_before(flow, flows[:number]) for number, flow in enumerate(flows)]
        await Lineage(database, tenant).apply(snapshots)
        whole = await _read(database, tenant, flows)
        assert [len(each) for each in whole] == [10, 10, 10, 5, 5, 10, 5, 4]
        for size in (1, 2, 5, 9):
            monkeypatch.setattr(reads, "_SLICE", size)
            assert await _read(database, tenant, flows) == whole


@pytest.mark.parametrize(("few", "expected"), [(9, ["fetch", "stream"]), (2, ["fetch", "stream", "stream"])])
async def test_admission_that_has_shown_many_rows_is_read_again_through_a_cursor_at_once(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch, few: int, expected: list[str]
) -> None:
    del postgres_server
    async with lineage_database() as database:
        lineage = Lineage(database, new_tenant())
        flows = [FlowKey(new_id(), "refresh") for _ in range(5)]
        snapshots = [_reading_all_before(flow, flows[:number]) for number, flow in enumerate(flows)]
        await lineage.apply(snapshots)
        whole = await lineage.check(flows[-1])
        evaluations: list[str] = []

        def note(owner: type, name: str) -> None:
            method = getattr(owner, name)

            def noting(*arguments: Any, **options: Any) -> Any:
                if any(each is reads._GET_ADMISSIONS for each in arguments):
                    evaluations.append(name)
                return method(*arguments, **options)

            monkeypatch.setattr(owner, name, noting)

        note(Database, "fetch")
        note(DirectConnection, "execute")
        note(DirectConnection, "stream")
        monkeypatch.setattr(reads, "_SLICE", 2)
        monkeypatch.setattr(reads, "_FEW", few)
        found = await lineage.check(flows[-1])
        assert [each.flow.key for each in found.blocking] == [each.flow.key for each in whole.blocking]
        assert evaluations == expected


async def _read_past(database: Database, tenant: str, flows: list[FlowKey]) -> list[Any]:
    """Return what decided freshness at the first revision, and what followed from it, read for the last flow."""
    async with database.read(tenant) as connection:
        ids = await reads.find_ids(connection, tenant, flows)
        base = Base()
        for flow in (flows[2], flows[-1]):  # what is above the first of them is known when the second is read
            await history.add_to_base(connection, tenant, 1, [ids[flow]], base)
        below = await history.list_downstream_pairs(connection, tenant, 1, [ids[flows[0]]])
        return [sorted(base.versions.items()), sorted(base.pairs()), sorted(stale_flows(base)), sorted(below)]


async def test_the_past_that_is_read_in_parts_is_what_is_read_at_once(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    del postgres_server
    async with lineage_database() as database:
        tenant = new_tenant()
        flows = [FlowKey(new_id(), "refresh") for _ in range(6)]
        snapshots = [_reading_all_before(flow, flows[:number]) for number, flow in enumerate(flows)]
        await Lineage(database, tenant).apply(snapshots)
        whole = await _read_past(database, tenant, flows)
        assert [len(each) for each in whole] == [6, 15, 6, 15]
        for part, characters in ((1, 1), (2, 3), (5, 7)):
            monkeypatch.setattr(history, "_PART", part)
            monkeypatch.setattr(history, "_SLICE", characters)
            assert await _read_past(database, tenant, flows) == whole
