"""The rules of lineage-service's domain on the facts of a history, in memory: no database, and no order of events."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache

from lineage_service.domain.calendars import Calendar, weekdays
from lineage_service.domain.causes import Explanation, Graph, explain, local_causes, state_causes
from lineage_service.domain.flows import Edge, Flow
from lineage_service.domain.freshness import Policy, Timetable, timetable
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Progress, RunFact, advance
from support.lineage_model import Model, ModelFlow


@lru_cache
def _weekdays() -> Calendar:
    return weekdays(2020, 2030)


@lru_cache
def _timetable(policy: Policy) -> Timetable:
    return timetable(policy, _weekdays())


class Domain:
    """The progress of every flow, from events in whatever order they come, however often."""

    def __init__(self) -> None:
        self.progress: dict[FlowKey, Progress] = {}

    def take(self, facts: Iterable[RunFact]) -> None:
        """Take events in, one by one."""
        for fact in facts:
            self.progress[fact.flow] = advance(self.progress.get(fact.flow, Progress()), fact)

    def decide(self, model: Model, flows: Mapping[FlowKey, ModelFlow]) -> Graph:
        """Return all flows as the domain sees them; versions are those of the model, all else is decided here."""
        ids = {key: number for number, key in enumerate(flows, start=1)}
        stored = {key: self._flow(ids[key], key, flow, model) for key, flow in flows.items()}
        edges = [edge for key, flow in flows.items() for edge in _edges(ids, key, flow)]
        graph = Graph(stored.values(), edges)
        has_causes = {flow.flow_id: bool(local_causes(graph, flow)) for flow in graph.flows.values()}
        decided: dict[int, bool] = {}
        for flow in graph.flows.values():
            _decide(graph, flow, has_causes, decided)
        fresh = [self._flow(ids[key], key, flow, model, decided[ids[key]]) for key, flow in flows.items()]
        return Graph(fresh, edges)

    def _flow(
        self, flow_id: int, key: FlowKey, flow: ModelFlow, model: Model, is_fresh: bool = False
    ) -> Flow:
        spec = flow.spec
        progress = Progress() if flow.is_deleted else self.progress.get(key, Progress())
        probed_run_number, probed_token = model.probes.get(key, (0, ""))
        return Flow(
            flow_id=flow_id,
            instance_id=key.instance_id,
            flow_kind=key.flow_kind,
            instance_name=flow.name,
            instance_kind=1,
            instance_revision=1,
            is_deleted=flow.is_deleted,
            is_defined=spec is not None,
            fingerprint=spec.fingerprint if spec else "",
            fingerprint_change="",
            computed_fingerprint=progress.computed_fingerprint,
            verified_run_number=spec.verified_run_number if spec else 0,
            verified_fingerprint=spec.verified_fingerprint if spec else "",
            version=flow.version,
            version_id=flow.version_id,
            uri="",
            physical_version="",
            digest="",
            last_data_date=flow.last_data_date,
            run_number=progress.run_number,
            last_run_id=progress.last_run_id,
            last_run_time=progress.last_run_time,
            ended_run_number=progress.ended_run_number,
            outcome_run_number=progress.outcome_run_number,
            outcome=progress.outcome,
            completed_run_number=progress.completed_run_number,
            rows_processed=progress.rows_processed,
            invalidated_run_number=model.invalidations.get(key, -1),
            invalidated_reason="",
            is_fresh=is_fresh,
            revision=1,
            computed_revision=progress.computed_revision,
            readers_hash=progress.readers_hash,
            full_run_number=progress.full_run_number,
            partial_run_number=progress.partial_run_number,
            stale_revision=0,
            expected_data_date=_expected(spec.policy, flow.last_data_date, model.clock.now())
            if spec and spec.policy
            else "",
            late_since_time=None,
            blocks_readers=bool(spec and spec.policy and spec.policy.blocks_readers),
            version_run_number=flow.version_run_number,
            accepted_fingerprint=flow.accepted_fingerprint,
            source_token=progress.source_token,
            probed_run_number=probed_run_number,
            probed_token=probed_token,
        )


def _expected(policy: Policy, last_data_date: str, now: datetime) -> str:
    return _timetable(policy).judge(now, last_data_date, None).expected_data_date


def _edges(ids: Mapping[FlowKey, int], key: FlowKey, flow: ModelFlow) -> Iterable[Edge]:
    connected = set(flow.edges)
    for upstream, role in sorted({*connected, *flow.consumed}):
        edge = upstream, role
        if upstream in ids:
            is_connected = edge in connected
            accepted = flow.accepted.get(edge) if is_connected else None
            yield Edge(ids[upstream], ids[key], role, 1, is_connected, flow.consumed.get(edge, 0), accepted)


def _decide(graph: Graph, start: Flow, has_causes: Mapping[int, bool], decided: dict[int, bool]) -> None:
    """Decide whether a flow is fresh, and so is all above it, without recursion."""
    stack = [start]
    while stack:
        flow = stack[-1]
        upstreams = graph.upstreams_of(flow)
        waiting = [upstream for upstream in upstreams if upstream.flow_id not in decided]
        if waiting and not has_causes[flow.flow_id]:
            stack += waiting
            continue
        stack.pop()
        decided[flow.flow_id] = not has_causes[flow.flow_id] and all(
            decided[upstream.flow_id] for upstream in upstreams
        )


def shown(graph: Graph, flow: Flow) -> set[tuple[str, FlowKey, int, int]]:
    """Return the causes that the state of a flow shows."""
    return {
        (cause.kind.name, cause.origin.key, cause.from_version, cause.to_version)
        for cause in state_causes(graph, flow)
    }


def explained(graph: Graph, flow: Flow) -> dict[tuple[tuple[str, FlowKey, int, int], FlowKey | None], int]:
    """Return the root causes of a flow through each direct upstream, with the number of flows on the path."""
    return {_key(each): len(each.path) for each in explain(graph, flow)}


def _key(each: Explanation) -> tuple[tuple[str, FlowKey, int, int], FlowKey | None]:
    cause = each.cause
    found = (cause.kind.name, cause.origin.key, cause.from_version, cause.to_version)
    steps = [step.key for step in each.path]
    assert len(set(steps)) == len(steps), "a path with a circle"
    assert all(one != other for one, other in itertools.pairwise(steps))
    return found, each.direct_upstream.key if each.direct_upstream else None
