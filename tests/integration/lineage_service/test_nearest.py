"""The flows nearest to a flow, in random graphs with circles, are those that a walk through everything finds."""

from __future__ import annotations

import itertools

from devstack.postgres import Postgres
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.order import adjacency, distances
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.store import closures, reads
from lineage_service.use_cases.views import Present
from servicekit.ids import new_id
from support.campaigns import begin
from support.lineage_service import Lineage, lineage_database, new_tenant

_DATA, _FLOWS, _GRAPHS = 1, 14, 12


async def _apply(lineage: Lineage, edges: set[tuple[int, int]]) -> dict[int, int]:
    """Write a graph; return the ids of its flows by number."""
    keys = [FlowKey(new_id(), "refresh") for _ in range(_FLOWS)]
    snapshots = []
    for number, key in enumerate(keys):
        inputs = tuple(EdgeSpec(keys[up], f"input_{up}", _DATA) for up, down in edges if down == number)
        snapshots.append(
            Snapshot(key.instance_id, 1, f"i{number}", 1, (FlowSpec("refresh", "same", inputs),))
        )
    await lineage.apply(snapshots)
    async with lineage.database.read(lineage.tenant_id) as connection:
        ids = await reads.find_ids(connection, lineage.tenant_id, keys)
    return {number: ids[key] for number, key in enumerate(keys)}


async def test_the_nearest_flows_are_found_without_the_others(postgres_server: Postgres) -> None:
    del postgres_server
    choose = begin()
    async with lineage_database() as database:
        for _ in range(_GRAPHS):
            size = choose.randint(8, 40)
            edges = {(choose.randrange(_FLOWS), choose.randrange(_FLOWS)) for _ in range(size)}
            edges = {(up, down) for up, down in edges if up != down}
            lineage = Lineage(database, new_tenant())
            ids = await _apply(lineage, edges)
            pairs = [(ids[up], ids[down]) for up, down in edges]
            await _compare(lineage, pairs, ids[choose.randrange(_FLOWS)])


async def _compare(lineage: Lineage, pairs: list[tuple[int, int]], start: int) -> None:
    """Compare the flows around one flow with a walk through all edges."""
    async with lineage.database.read(lineage.tenant_id) as connection:
        view = Present(connection, lineage.tenant_id)
        for is_upstream, max_depth in itertools.product((True, False), (0, 1, 2, 5)):
            neighbours = adjacency((down, up) for up, down in pairs) if is_upstream else adjacency(pairs)
            reached = distances([start], neighbours, max_depth)
            whole = sorted((depth, flow_id) for flow_id, depth in reached.items())
            for enough in (1, 2, 3, 5, 8, _FLOWS):
                found = await view.list_nearest(start, enough, max_depth, is_upstream=is_upstream)
                assert found == whole[: len(found)]
                assert len(found) >= min(enough, len(whole))
        few = await closures.list_neighbours(connection, lineage.tenant_id, [start], is_upstream=True, most=3)
        assert len(few) <= 3
