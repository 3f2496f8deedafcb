"""The causes of staleness: those of a flow and its edges, and root causes with shortest paths; pure functions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from operator import itemgetter
from typing import NamedTuple

from lineage_service.domain.flows import Change, Edge, Flow, Upstream
from lineage_service.domain.snapshots import SCHEMA
from lineage_service.domain.statuses import Word

MAX_CAUSES = 8  # shown for one flow


class CauseKind(IntEnum):
    """The kinds of causes; the numbers equal those of the protobuf CauseKind."""

    OWN_CONFIG = 1
    UPSTREAM_MOVED = 2
    UPSTREAM_ADDED = 3
    UPSTREAM_REMOVED = 4
    OVERDUE = 5
    INVALIDATED = 6
    NEVER_SUCCEEDED = 7
    PARTIAL_RANGE = 8
    UPSTREAM_NOT_FRESH = 9
    SOURCE_DELAYED = 10
    SOURCE_CHANGED = 11


# The causes that time brings; unless a policy says otherwise, they keep no reader from running.
TIME_CAUSES = frozenset({CauseKind.OVERDUE, CauseKind.SOURCE_DELAYED})


class Cause(NamedTuple):
    """One reason why a flow is not fresh, and its origin.

    For UPSTREAM_MOVED and UPSTREAM_NOT_FRESH the origin is the upstream; for the other kinds it is the flow itself.
    """

    kind: CauseKind
    origin: Flow | Upstream
    message: str
    from_version: int = 0
    to_version: int = 0
    upstream: Flow | Upstream | None = None  # that was connected or disconnected

    @property
    def key(self) -> tuple[int, str]:
        """The identity of the cause: its origin and its message."""
        return self.origin.flow_id, self.message


@dataclass(frozen=True)
class Explanation:
    """A cause, with one shortest path from its origin to the flow; the path includes both."""

    cause: Cause
    path: tuple[Flow | Upstream, ...]
    direct_upstream: Flow | Upstream | None = None


@dataclass(frozen=True)
class Causes:
    """The causes of staleness for the flows of one change.

    A propagation can reach a hundred thousand flows, so flows with the same causes share one list. A flow whose only
    cause is an upstream that became stale in the same change has no list: `not_fresh` makes its cause on request.
    """

    lists: Mapping[int, Sequence[Cause]] = field(default_factory=dict)  # by flow
    upstream_ids: Mapping[int, int] = field(default_factory=dict)  # by flow: one that became stale with it
    states: Mapping[int, Change] = field(default_factory=dict)  # of these upstreams
    names: Mapping[int, str] = field(default_factory=dict)  # of their instances

    def not_fresh(self, upstream_id: int) -> Cause:
        """Return the cause that all flows with this upstream share."""
        state = self.states[upstream_id]
        name = self.names.get(upstream_id, "")
        return not_fresh(
            Upstream(
                upstream_id,
                state.instance_id,
                state.flow_kind,
                name,
                is_deleted=False,
                is_defined=True,
                version=state.version,
            )
        )


class Graph:
    """A set of flows and the edges into them; both ends of every edge must be in the set."""

    def __init__(self, flows: Iterable[Flow], edges: Iterable[Edge]) -> None:
        self.flows = {flow.flow_id: flow for flow in flows}
        self._edges: dict[int, list[Edge]] = {}
        for edge in edges:
            self._edges.setdefault(edge.downstream_id, []).append(edge)
        for inputs in self._edges.values():  # one sort of everything would make every other thread wait
            inputs.sort(key=lambda edge: (*self.flows[edge.upstream_id].key, edge.role))

    def edges_into(self, flow: Flow) -> list[Edge]:
        """Return the edges whose downstream is this flow."""
        return self._edges.get(flow.flow_id, [])

    def upstreams_of(self, flow: Flow) -> list[Flow]:
        """Return the connected direct upstreams, each once, ordered by key."""
        ids = dict.fromkeys(edge.upstream_id for edge in self.edges_into(flow) if edge.is_connected)
        return [self.flows[upstream_id] for upstream_id in ids]


def moved(upstream: Flow | Upstream, from_version: int, to_version: int) -> Cause:
    """Return the cause for an upstream that has a newer version than the one that the flow consumed, or that was accepted for it."""
    message = f"{upstream.instance_name} moved from version {from_version} to version {to_version}"
    return Cause(CauseKind.UPSTREAM_MOVED, upstream, message, from_version, to_version)


def not_fresh(upstream: Flow | Upstream) -> Cause:
    """Return the cause for an upstream that still has the consumed version but is not fresh itself."""
    name = upstream.instance_name or upstream.instance_id
    if upstream.is_deleted:
        what = "was deleted"
    elif not upstream.is_defined:
        what = "is not known yet"
    else:
        what = "is not fresh" if upstream.version else "has no output yet"
    return Cause(CauseKind.UPSTREAM_NOT_FRESH, upstream, f"{name} {what}")


def state_causes(graph: Graph, flow: Flow) -> list[Cause]:
    """Return why a flow is not fresh: the causes that begin in the flow itself or in its direct edges.

    If there are none, the cause is an upstream that is not fresh. Of several, the one that became stale first is
    taken, so that changes of the others do not change this cause. The graph must hold the direct upstreams.
    """
    if flow.is_fresh:
        return []
    causes = local_causes(graph, flow)
    stale = [upstream for upstream in graph.upstreams_of(flow) if not upstream.is_fresh]
    if causes or not stale:
        return causes[:MAX_CAUSES]
    return [not_fresh(min(stale, key=lambda upstream: (upstream.stale_revision, upstream.flow_id)))]


def local_causes(graph: Graph, flow: Flow) -> list[Cause]:
    """Return the causes that begin in the flow itself or in its direct edges; root causes consist of these."""
    name = flow.instance_name
    if flow.is_deleted or not flow.is_defined:
        what = "was deleted" if flow.is_deleted else "is not defined"
        return [Cause(CauseKind.UPSTREAM_REMOVED, flow, f"{name or flow.instance_id} {what}")]
    if flow.version == 0:
        return [Cause(CauseKind.NEVER_SUCCEEDED, flow, _why_never(flow))]
    causes = _own_causes(flow)
    for edge in graph.edges_into(flow):
        if edge.kind == SCHEMA:
            continue  # the fingerprint says what counts of it
        cause = _edge_cause(graph.flows[edge.upstream_id], flow, edge)
        if cause is not None and cause not in causes:
            causes.append(cause)
    return causes


def _own_causes(flow: Flow) -> list[Cause]:
    """Return the causes that begin in a flow with output itself."""
    name = flow.instance_name
    causes = []
    if flow.is_invalidated:
        actor = f" by {flow.invalidated_by}" if flow.invalidated_by else ""
        message = f"{name} was invalidated{actor}: {flow.invalidated_reason}"
        causes.append(Cause(CauseKind.INVALIDATED, flow, message))
    if flow.is_late:
        causes.append(_late(flow))
    if flow.has_other_config:
        what = f": {flow.fingerprint_change}" if flow.fingerprint_change else ""
        message = f"the configuration of {name} changed since it was computed{what}"
        causes.append(Cause(CauseKind.OWN_CONFIG, flow, message))
    if flow.is_partial:
        message = (
            f"run {flow.partial_run_number} of {name} read its upstreams for a range of dates only; "
            "a run without a range reads all of them"
        )
        causes.append(Cause(CauseKind.PARTIAL_RANGE, flow, message))
    if flow.is_source_changed:
        message = f"the source of {name} has changed since run {flow.completed_run_number} read it"
        causes.append(Cause(CauseKind.SOURCE_CHANGED, flow, message))
    return causes


def _late(flow: Flow) -> Cause:
    message = f"{flow.instance_name} has data up to {flow.last_data_date}, expected {flow.expected_data_date}"
    if not flow.brought_nothing:
        return Cause(CauseKind.OVERDUE, flow, message)
    return Cause(CauseKind.SOURCE_DELAYED, flow, f"{message}; its source brought nothing new")


def _why_never(flow: Flow) -> str:
    if not flow.failure.type:
        return f"{flow.instance_name} has never succeeded"
    return f"run {flow.outcome_run_number} of {flow.instance_name} failed: {flow.failure.text}"


def _edge_cause(upstream: Flow, flow: Flow, edge: Edge) -> Cause | None:
    upstream_name = upstream.instance_name or upstream.instance_id
    is_own = (
        upstream.instance_id == flow.instance_id
    )  # its configuration connects them, and is a cause itself
    if not edge.is_connected:
        # The fingerprint covers the edges: an equal one means that the output was computed without this edge.
        if is_own or not flow.has_other_config:
            return None
        message = f"{upstream_name} was disconnected from {flow.instance_name} since it was computed"
        return Cause(CauseKind.UPSTREAM_REMOVED, flow, message, upstream=upstream)
    if edge.compared_version == upstream.version:
        return None
    if edge.compared_version == 0:
        # A flow that is partial has read it, though not all dates.
        if flow.is_partial or (is_own and flow.has_other_config):
            return None
        message = f"{flow.instance_name} has not read {upstream_name} yet"
        return Cause(CauseKind.UPSTREAM_ADDED, flow, message, upstream=upstream)
    return moved(upstream, edge.compared_version, upstream.version)


def find_causes(graph: Graph, start: Flow) -> Iterator[Explanation]:
    """Yield every root cause of a flow, nearest first, each with one shortest path from the cause to the flow.

    The graph must hold all flows above `start` that are not fresh, and the direct upstreams of each.
    """
    found = set[Cause]()
    below: dict[int, Flow | None] = {start.flow_id: None}
    queue = deque([] if start.is_fresh else [start])
    while queue:
        flow = queue.popleft()
        for cause in local_causes(graph, flow):
            if cause not in found:
                found.add(cause)
                yield Explanation(cause, _path(cause, flow, below))
        for upstream in graph.upstreams_of(flow):
            if not upstream.is_fresh and upstream.flow_id not in below:
                below[upstream.flow_id] = flow
                queue.append(upstream)


def nearest_causes(graph: Graph, flows: Iterable[Flow]) -> dict[int, list[Cause]]:
    """Return, by flow, the first MAX_CAUSES root causes that `find_causes` finds.

    Causes go down from each flow to those below it, one step farther in each round. A flow passes each on once, and at most
    MAX_CAUSES, so the cost is bounded by the edges, and circles end too. The graph must hold all flows above the given ones that
    are not fresh, and the direct upstreams of each.
    """
    starts = list(dict.fromkeys(flows))
    readers = _stale_readers(graph, starts)
    found: dict[int, dict[Cause, None]] = {flow_id: {} for flow_id in readers}
    arriving = {flow_id: local_causes(graph, graph.flows[flow_id]) for flow_id in readers}
    while arriving:
        passed: dict[int, list[tuple[int, list[Cause]]]] = {}  # by reader, with the place of the upstream
        for flow_id, causes in arriving.items():
            known = found[flow_id]
            new = [cause for cause in dict.fromkeys(causes) if cause not in known][: MAX_CAUSES - len(known)]
            known.update(dict.fromkeys(new))
            if new:
                for reader_id, place in readers[flow_id]:
                    passed.setdefault(reader_id, []).append((place, new))
        arriving = {
            reader_id: [cause for _, causes in sorted(given, key=itemgetter(0)) for cause in causes]
            for reader_id, given in passed.items()
        }
    return {flow.flow_id: list(found.get(flow.flow_id, ())) for flow in starts}


def _stale_readers(graph: Graph, starts: Iterable[Flow]) -> dict[int, list[tuple[int, int]]]:
    """Return, for each flow at or above the starts that is not fresh, its readers and its place among the upstreams of each."""
    queue = deque(flow for flow in starts if not flow.is_fresh)
    readers: dict[int, list[tuple[int, int]]] = {flow.flow_id: [] for flow in queue}
    while queue:
        flow = queue.popleft()
        for place, upstream in enumerate(graph.upstreams_of(flow)):
            if upstream.is_fresh:
                continue
            if upstream.flow_id not in readers:
                readers[upstream.flow_id] = []
                queue.append(upstream)
            readers[upstream.flow_id].append((flow.flow_id, place))
    return readers


def _path(cause: Cause, holder: Flow, below: dict[int, Flow | None]) -> tuple[Flow | Upstream, ...]:
    path: list[Flow | Upstream] = [cause.origin] if cause.origin.flow_id != holder.flow_id else []
    step: Flow | None = holder
    while step is not None:
        path.append(step)
        step = below[step.flow_id]
    return tuple(path)


def explain(graph: Graph, flow: Flow) -> Iterator[Explanation]:
    """Yield the root causes of a flow for each affected direct upstream; the flow's own causes come first."""
    if flow.is_fresh:
        return
    for cause in local_causes(graph, flow):
        if cause.kind is CauseKind.UPSTREAM_MOVED:
            yield Explanation(cause, (cause.origin, flow), cause.origin)
        else:
            yield Explanation(cause, (flow,))
    for upstream in graph.upstreams_of(flow):
        for found in find_causes(graph, upstream):
            yield Explanation(found.cause, (*found.path, flow), upstream)


def blocking_reason(flow: Flow, causes: Iterable[Cause]) -> str:
    """Return a readable reason why an upstream is not READY."""
    if flow.is_deleted:
        return "it was deleted"
    if not flow.is_defined:
        return "it is not known yet"
    match flow.word:
        case Word.RUNNING:
            return f"run {flow.run_number} is active"
        case Word.ERROR:
            why = f": {flow.failure.text}" if flow.failure.type else ""
            return f"run {flow.outcome_run_number} failed{why}"
        case Word.NOT_INITIALIZED:
            return "never ran" if flow.run_number == 0 else "never succeeded"
    return "stale: " + "; ".join(cause.message for cause in causes)
