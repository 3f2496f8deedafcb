"""Why a flow of the model is not fresh, and what keeps a run from starting, by brute force."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from lineage_service.domain.keys import FlowKey
from support.lineage_model import ModelEdge, ModelFlow


class ModelCause(NamedTuple):
    """A root cause: its kind, where it began, and, for a moved upstream, from where to where."""

    kind: str
    origin: FlowKey
    from_version: int = 0
    to_version: int = 0


def blocking(flows: dict[FlowKey, ModelFlow], key: FlowKey) -> set[FlowKey]:
    """Return the transitive upstreams that are not READY and do not count as ready."""
    return {each for each in _not_ready(flows, key) if not _counts_as_ready(flows, each)}


def late_inputs(flows: dict[FlowKey, ModelFlow], key: FlowKey) -> set[FlowKey]:
    """Return the transitive upstreams whose data is late, except those that block."""
    return {
        each
        for each in _not_ready(flows, key)
        if flows[each].is_late and flows[each].spec and _counts_as_ready(flows, each)
    }


def _counts_as_ready(flows: dict[FlowKey, ModelFlow], key: FlowKey) -> bool:
    return flows[key].word == "stale" and all(
        cause.kind in {"OVERDUE", "SOURCE_DELAYED"} and not _blocks_readers(flows[cause.origin])
        for cause in _root_causes(flows, key)
    )


def _blocks_readers(flow: ModelFlow) -> bool:
    return bool(flow.spec and flow.spec.policy and flow.spec.policy.blocks_readers)


def _not_ready(flows: dict[FlowKey, ModelFlow], key: FlowKey) -> set[FlowKey]:
    above: set[FlowKey] = set()
    queue = [key]
    while queue:
        for upstream, _ in flows[queue.pop()].edges:
            if upstream not in above:
                above.add(upstream)
                queue.append(upstream)
    return {upstream for upstream in above if flows[upstream].word != "ready"}


def local_causes(flows: dict[FlowKey, ModelFlow], key: FlowKey) -> set[ModelCause]:
    """Return a flow's own causes and those of its edges."""
    flow = flows[key]
    if flow.spec is None:
        return {ModelCause("UPSTREAM_REMOVED", key)}
    if flow.version == 0:
        return {ModelCause("NEVER_SUCCEEDED", key)}
    own = {
        "INVALIDATED": flow.is_invalidated,
        flow.time_cause: flow.is_late,
        "PARTIAL_RANGE": flow.is_partial,
        "SOURCE_CHANGED": flow.is_source_changed,
    }
    causes = {ModelCause(kind, key) for kind, is_there in own.items() if is_there}
    if flow.has_other_config:
        causes.add(ModelCause("OWN_CONFIG", key))
        if any(edge not in flow.edges and not _is_own(key, edge) for edge in flow.consumed):
            causes.add(ModelCause("UPSTREAM_REMOVED", key))
    for edge in flow.edges:
        compared, current = flow.compared(edge), flows[edge[0]].version
        if compared and compared != current:
            causes.add(ModelCause("UPSTREAM_MOVED", edge[0], compared, current))
        elif (
            compared != current and not flow.is_partial and not (flow.has_other_config and _is_own(key, edge))
        ):
            causes.add(ModelCause("UPSTREAM_ADDED", key))
    return causes


def _is_own(key: FlowKey, edge: ModelEdge) -> bool:
    """Return whether an edge connects two flows of one instance, as its configuration says."""
    return edge[0].instance_id == key.instance_id


def state_causes(flows: dict[FlowKey, ModelFlow], key: FlowKey) -> list[set[ModelCause]]:
    """Return what a flow's state may show: what begins in it or in its edges, else one upstream that is not fresh."""
    if flows[key].is_fresh:
        return [set()]
    causes = local_causes(flows, key)
    stale = {edge[0] for edge in flows[key].edges if not flows[edge[0]].is_fresh}
    return [causes] if causes else [{ModelCause("UPSTREAM_NOT_FRESH", upstream)} for upstream in stale]


def explanations(
    flows: dict[FlowKey, ModelFlow], key: FlowKey
) -> dict[tuple[ModelCause, FlowKey | None], int]:
    """Return, for each root cause through each affected direct upstream, the flows on a shortest path."""
    if flows[key].is_fresh:
        return {}
    found: dict[tuple[ModelCause, FlowKey | None], int] = {}
    for cause in local_causes(flows, key):
        if cause.kind == "UPSTREAM_MOVED":
            found[(cause, cause.origin)] = 2
        else:
            found[(cause, None)] = 1
    for upstream, _ in flows[key].edges:
        for cause, length in _root_causes(flows, upstream).items():
            found.setdefault((cause, upstream), length + 1)
    return found


def _root_causes(flows: dict[FlowKey, ModelFlow], start: FlowKey) -> dict[ModelCause, int]:
    found: dict[ModelCause, int] = {}
    lengths = {start: 1}
    queue = deque([] if flows[start].is_fresh else [start])
    while queue:
        key = queue.popleft()
        for cause in local_causes(flows, key):
            found.setdefault(cause, lengths[key] + (cause.origin != key))
        for upstream, _ in flows[key].edges:
            if upstream not in lengths and not flows[upstream].is_fresh:
                lengths[upstream] = lengths[key] + 1
                queue.append(upstream)
    return found
