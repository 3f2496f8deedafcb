"""What DiffLineage must answer, by brute force: the comparison of two graphs as of their revisions."""

from __future__ import annotations

from lineage_service import conversion
from lineage_service.domain.keys import FlowKey
from lineage_service.use_cases import differences, reading
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.lineage.v1.lineage_pb2 import Edge, FlowState
from servicekit.errors import NotFoundError
from support.lineage_service import Lineage

EdgeKey = tuple[FlowKey, FlowKey, str]


async def graph_as_of(
    lineage: Lineage, flow: FlowKey, revision: int
) -> tuple[dict[FlowKey, FlowState], dict[EdgeKey, Edge]]:
    """Return the flows and edges around a flow as of a revision; nothing if it did not exist."""
    request = api.GetLineageGraphRequest(flow=conversion.flow_ref(*flow), as_of=api.AsOf(revision=revision))
    try:
        answer = await reading.get_lineage_graph(lineage.deps, lineage.tenant_id, request)
    except NotFoundError:
        return {}, {}
    flows = {conversion.flow_key(state.flow): state for state in answer.flows}
    edges = {
        (conversion.flow_key(edge.downstream), conversion.flow_key(edge.upstream), edge.role): edge
        for edge in answer.edges
    }
    return flows, edges


async def list_differences(
    lineage: Lineage, flow: FlowKey, before: int, after: int
) -> dict[FlowKey, api.FlowDifference]:
    """Return what DiffLineage answers, from pages of two."""
    request = api.DiffLineageRequest(
        flow=conversion.flow_ref(*flow),
        before=api.AsOf(revision=before),
        after=api.AsOf(revision=after),
        page_size=2,
    )
    found: dict[FlowKey, api.FlowDifference] = {}
    while True:
        answer = await differences.diff_lineage(lineage.deps, lineage.tenant_id, request)
        assert (answer.before_revision, answer.after_revision) == (before, after)
        for each in answer.flows:
            assert conversion.flow_key(each.flow) not in found
            found[conversion.flow_key(each.flow)] = each
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


async def compare_differences(lineage: Lineage, flow: FlowKey, before: int, after: int) -> None:
    """Compare DiffLineage with the graphs of the two revisions."""
    flows_1, edges_1 = await graph_as_of(lineage, flow, before)
    flows_2, edges_2 = await graph_as_of(lineage, flow, after)
    if not flows_1 and not flows_2:
        return
    found = await list_differences(lineage, flow, before, after)
    edges = {key for key in edges_1.keys() | edges_2.keys() if edges_1.get(key) != edges_2.get(key)}
    told = {
        (
            key,
            conversion.flow_key(edge.upstream),
            (edge.after if edge.HasField("after") else edge.before).role,
        )
        for key, each in found.items()
        for edge in each.edges
    }
    assert told == edges
    for key in flows_1.keys() | flows_2.keys():
        one, other = flows_1.get(key), flows_2.get(key)
        if one is None or other is None:
            change = api.LINEAGE_CHANGE_ADDED if one is None else api.LINEAGE_CHANGE_REMOVED
            assert found[key].change == change
        elif _shown(one) != _shown(other) or any(edge[0] == key for edge in edges):
            assert found[key].change == api.LINEAGE_CHANGE_CHANGED
        elif key in found:  # its configuration only; the graph does not tell it
            assert found[key].before_fingerprint != found[key].after_fingerprint
    assert found.keys() <= flows_1.keys() | flows_2.keys()


def _shown(state: FlowState) -> tuple[object, ...]:
    version = state.current_version
    facts = (state.instance_name, state.status, state.is_fresh)
    return (*facts, version.version, version.version_id, version.compute_fingerprint)
