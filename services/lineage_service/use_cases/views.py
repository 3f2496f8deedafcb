"""The graph as it is, and as it was at an earlier revision; both answer the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Protocol

from lineage_service.domain.causes import Cause, Graph, state_causes
from lineage_service.domain.errors import flow_not_found, history_not_kept, revision_unknown
from lineage_service.domain.flows import Edge, Flow
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.order import adjacency, distances
from lineage_service.domain.past import Base, Moment, stale_flows
from lineage_service.domain.snapshots import SCHEMA
from lineage_service.store import closures, history, reads
from optaic.lineage.v1.lineage_service_pb2 import AsOf
from servicekit import awake, off_loop
from servicekit.database import Connection

_BYTES_OF_A_FLOW, _BYTES_OF_AN_EDGE, _BYTES_OF_A_PAIR = 300, 50, 16  # about


@dataclass(frozen=True)
class State:
    """A flow with the causes of its staleness."""

    flow: Flow
    causes: list[Cause]


class View(Protocol):
    """A snapshot of a tenant's graph."""

    async def find_flow(self, key: FlowKey) -> int:
        """Return the id of a flow.

        Raises:
            NotFoundError: FLOW_NOT_FOUND.
        """

    async def list_states(self, flow_ids: Sequence[int]) -> list[State]:
        """Return the states of flows, in the order of the ids."""

    async def list_nearest(
        self, flow_id: int, enough: int, max_depth: int, *, is_upstream: bool
    ) -> list[tuple[int, int]]:
        """Return (distance, flow id) of upstream flows, or of downstream flows, nearest first: `enough` of them, or all."""

    async def list_schema_neighbours(self, flow_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Return (upstream, downstream) pairs for all edges of kind SCHEMA that begin or end at the flows."""

    async def list_edges_among(self, flow_ids: Sequence[int]) -> list[Edge]:
        """Return the edges whose two ends are both in the list of flows, those of kind SCHEMA included."""


@dataclass(frozen=True)
class Present:
    """The graph as it is."""

    connection: Connection
    tenant_id: str

    async def find_flow(self, key: FlowKey) -> int:
        """Return the id of a flow.

        Raises:
            NotFoundError: FLOW_NOT_FOUND.
        """
        flow = await reads.get_flow(self.connection, self.tenant_id, key)
        if flow is None:
            raise flow_not_found(key)
        return flow.flow_id

    async def list_states(self, flow_ids: Sequence[int]) -> list[State]:
        """Return the states of flows, in the order of the ids."""
        flows = await reads.list_flows(self.connection, self.tenant_id, flow_ids)
        states = {flow.flow_id: State(flow, []) for flow in flows}
        stale = [flow.flow_id for flow in flows if not flow.is_fresh]
        if stale:  # a fresh flow has no cause to look for
            graph = await reads.load_direct_graph(self.connection, self.tenant_id, stale)
            states |= {state.flow.flow_id: state for state in await _states(graph, stale)}
        return [states[flow_id] for flow_id in flow_ids]

    async def list_nearest(
        self, flow_id: int, enough: int, max_depth: int, *, is_upstream: bool
    ) -> list[tuple[int, int]]:
        """Return (distance, flow id) of upstream flows, or of downstream flows, nearest first: `enough` of them, or all.

        Those as far away as the last flow that was read are all known, because what lies before it has been read.
        """
        most = enough + 1  # with the flow itself
        while True:
            neighbours = await closures.list_neighbours(
                self.connection, self.tenant_id, [flow_id], is_upstream=is_upstream, most=most
            )
            size = len(neighbours) * _BYTES_OF_AN_EDGE
            depths = await off_loop.run_if_large(size, distances, [flow_id], neighbours, max_depth)
            farthest = depths.get(next(reversed(neighbours)))
            if len(neighbours) < most or farthest is None:  # there are no more, or they are too far away
                return _nearest_first(depths)
            known = {found: depth for found, depth in depths.items() if depth <= farthest}
            if len(known) >= enough or farthest == max_depth:
                return _nearest_first(known)
            most *= 4

    async def list_schema_neighbours(self, flow_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Return (upstream, downstream) pairs for all edges of kind SCHEMA that begin or end at the flows."""
        return await reads.list_schema_neighbours(self.connection, self.tenant_id, flow_ids)

    async def list_edges_among(self, flow_ids: Sequence[int]) -> list[Edge]:
        """Return the edges whose two ends are both in the list of flows, those of kind SCHEMA included."""
        return await reads.list_edges_among(self.connection, self.tenant_id, flow_ids)


@dataclass
class Past:
    """The graph as it was at a revision; `open_past` makes it.

    It keeps what was read already, because several questions concern the same flows.
    """

    connection: Connection
    tenant_id: str
    moment: Moment
    _base: Base = field(default_factory=Base)
    _edges: dict[int, list[Edge]] = field(default_factory=dict)  # by downstream

    async def find_flow(self, key: FlowKey) -> int:
        """Return the id of a flow.

        Raises:
            NotFoundError: FLOW_NOT_FOUND: no instance defined it then.
        """
        found = await history.find_flow(self.connection, self.tenant_id, self.moment.revision, key)
        if found is None:
            raise flow_not_found(key)
        return found

    async def list_states(self, flow_ids: Sequence[int]) -> list[State]:
        """Return the states of flows, in the order of the ids; their freshness is computed from all that was above them."""
        edges = await self._list_edges_into(flow_ids)
        members = {*flow_ids, *(edge.upstream_id for edge in edges)}
        revision, base = self.moment.revision, self._base
        await history.add_to_base(self.connection, self.tenant_id, revision, members, base)
        size = len(base.versions) * _BYTES_OF_AN_EDGE
        stale = await awake.compute(self.connection, off_loop.run_if_large(size, stale_flows, base))
        flows = await history.list_flows(self.connection, self.tenant_id, revision, members, members - stale)
        graph = await off_loop.run_if_large(len(edges) * _BYTES_OF_AN_EDGE, Graph, flows, edges)
        return await _states(graph, flow_ids)

    async def list_nearest(
        self, flow_id: int, enough: int, max_depth: int, *, is_upstream: bool
    ) -> list[tuple[int, int]]:
        """Return (distance, flow id) of all upstream flows, or of all downstream flows, nearest first."""
        del enough  # freshness of then is computed from all that was above
        pairs = await self._list_closure(flow_id, is_upstream=is_upstream)

        def order() -> list[tuple[int, int]]:
            neighbours = adjacency((down, up) for up, down in pairs) if is_upstream else adjacency(pairs)
            return _nearest_first(distances([flow_id], neighbours, max_depth))

        size = len(pairs) * _BYTES_OF_A_PAIR
        return await awake.compute(self.connection, off_loop.run_if_large(size, order))

    async def _list_closure(self, flow_id: int, *, is_upstream: bool) -> list[tuple[int, int]]:
        """Return (upstream, downstream) pairs for all edges above a flow, or for all edges below it."""
        revision = self.moment.revision
        if not is_upstream:
            return await history.list_downstream_pairs(self.connection, self.tenant_id, revision, [flow_id])
        self._base = Base()  # of this flow only
        await history.add_to_base(self.connection, self.tenant_id, revision, [flow_id], self._base)
        size = len(self._base.upstream_ids) * _BYTES_OF_AN_EDGE
        return await awake.compute(self.connection, off_loop.run_if_large(size, self._base.pairs))

    async def list_schema_neighbours(self, flow_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Return (upstream, downstream) pairs for all edges of kind SCHEMA that begin or end at the flows."""
        above = [
            (edge.upstream_id, edge.downstream_id)
            for edge in await self._list_edges_into(flow_ids)
            if edge.kind == SCHEMA
        ]
        below = await history.list_settings_readers(
            self.connection, self.tenant_id, self.moment.revision, flow_ids
        )
        return sorted({*above, *below})

    async def list_edges_among(self, flow_ids: Sequence[int]) -> list[Edge]:
        """Return the edges whose two ends are both in the list of flows, those of kind SCHEMA included."""
        members, edges = set(flow_ids), await self._list_edges_into(flow_ids)

        def among() -> list[Edge]:
            found = [
                edge
                for edge in edges
                if edge.upstream_id in members and (edge.is_connected or edge.kind == SCHEMA)
            ]
            return sorted(found, key=lambda edge: (edge.downstream_id, edge.upstream_id, edge.role))

        return await off_loop.run_if_large(len(edges) * _BYTES_OF_AN_EDGE, among)

    async def _list_edges_into(self, flow_ids: Sequence[int]) -> list[Edge]:
        missing = [flow_id for flow_id in flow_ids if flow_id not in self._edges]
        if missing:
            self._edges.update((flow_id, []) for flow_id in missing)
            revision = self.moment.revision
            for edge in await history.list_edges_into(self.connection, self.tenant_id, revision, missing):
                self._edges[edge.downstream_id].append(edge)
        return [edge for flow_id in flow_ids for edge in self._edges[flow_id]]


def _nearest_first(depths: Mapping[int, int]) -> list[tuple[int, int]]:
    return sorted((depth, flow_id) for flow_id, depth in depths.items())


async def _states(graph: Graph, flow_ids: Sequence[int]) -> list[State]:
    def states() -> list[State]:
        found = [graph.flows[flow_id] for flow_id in flow_ids]
        return [State(flow, state_causes(graph, flow)) for flow in found]

    return await off_loop.run_if_large(len(graph.flows) * _BYTES_OF_A_FLOW, states)


async def open_past(connection: Connection, tenant_id: str, as_of: AsOf, field_name: str) -> Past:
    """Return the graph as of a revision or a time; an error names the field that has it.

    Raises:
        OutOfRangeError: HISTORY_NOT_KEPT: it is older than what is kept; REVISION_UNKNOWN: there is no such revision yet.
    """
    if as_of.WhichOneof("moment") == "revision":
        known = await history.find_revision(connection, tenant_id, as_of.revision)
        if known.revision > known.newest:
            raise revision_unknown(field_name, known.revision, known.newest)
    else:
        time = as_of.time.ToDatetime(UTC)
        known = await history.find_revision_at(connection, tenant_id, time)
    if known.start_time is not None and known.revision < (known.start_revision or 0):
        raise history_not_kept(field_name, known.start_revision or 0, known.start_time)
    return Past(connection, tenant_id, Moment(known.revision, known.change_time))
