"""The rule which stored freshness is right; a pure function."""

from __future__ import annotations

from lineage_service.domain.causes import Graph, local_causes
from lineage_service.domain.flows import Flow


def is_right(graph: Graph, flow: Flow) -> bool:
    """Return whether the stored freshness of a flow follows from its own causes and its direct upstreams.

    The graph must hold the direct upstreams; their stored freshness is believed. If this is true of every flow, all of them are
    right, unless edges make a circle: its flows then justify each other, until the event that opens it touches them.
    """
    is_fresh = not local_causes(graph, flow) and all(
        upstream.is_fresh for upstream in graph.upstreams_of(flow)
    )
    return flow.is_fresh is is_fresh
