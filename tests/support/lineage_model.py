"""Lineage by brute force, straight from the definitions: everything is recomputed from the set of events."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Phase, RunFact
from lineage_service.domain.snapshots import SCHEMA, FlowSpec, Snapshot
from servicekit.clock import Clock
from support.lineage_periods import is_late

ModelEdge = tuple[FlowKey, str]  # upstream and role


@dataclass
class ModelFlow:
    """What the definitions say of one flow."""

    name: str = ""
    is_deleted: bool = False
    spec: FlowSpec | None = None  # None: not defined
    computed_fingerprint: str = ""
    completed_run_number: int = 0
    computed_revision: int = 0
    readers_hash: str = ""
    full_run_number: int = 0  # the newest completed run of all dates
    is_partial: bool = False
    version: int = 0
    version_id: str = ""
    version_run_number: int = 0
    last_data_date: str = ""
    now: datetime | None = None
    run_number: int = 0
    is_running: bool = False
    outcome: str = "never"
    is_invalidated: bool = False
    consumed: dict[ModelEdge, int] = field(default_factory=dict)
    accepted: dict[ModelEdge, int] = field(default_factory=dict)
    accepted_fingerprint: str | None = None
    source_token: str = ""  # of the newest completed run
    is_source_changed: bool = False
    consumed_run_ids: dict[ModelEdge, str] = field(default_factory=dict)
    # The dates in which a version differs from the one before; None: every date may.
    changes: dict[int, tuple[str, str] | None] = field(default_factory=dict)
    readers_hashes: dict[str, str] = field(default_factory=dict)  # of each completed run
    is_fresh: bool = False

    @property
    def edges(self) -> list[ModelEdge]:
        """The connected upstreams; those of which only the settings count are none."""
        edges = self.spec.upstreams if self.spec else ()
        return sorted({(edge.upstream, edge.role) for edge in edges if edge.kind != SCHEMA})

    @property
    def has_other_config(self) -> bool:
        """Whether the newest output has another configuration, and is neither verified nor accepted for this one."""
        assert self.spec is not None
        return not self._is_right and self.spec.fingerprint != self.accepted_fingerprint

    @property
    def _is_right(self) -> bool:
        assert self.spec is not None
        is_verified = (
            self.spec.verified_fingerprint == self.spec.fingerprint
            and self.spec.verified_run_number == self.completed_run_number
        )
        return self.spec.fingerprint == self.computed_fingerprint or is_verified

    def compared(self, edge: ModelEdge) -> int:
        """Return the version of an upstream with which freshness is compared."""
        return self.accepted.get(edge, self.consumed.get(edge, 0))

    @property
    def right_fingerprint(self) -> str:
        """The configuration for which the newest output is right."""
        assert self.spec is not None
        return self.spec.fingerprint if self._is_right else self.computed_fingerprint

    @property
    def is_late(self) -> bool:
        """Whether some period of the policy is over whose data is not there."""
        policy = self.spec.policy if self.spec else None
        if policy is None or self.now is None or not self.last_data_date:
            return False
        return is_late(policy, self.last_data_date, self.now)

    @property
    def time_cause(self) -> str:
        """The kind of the cause if the data is late."""
        brought_nothing = self.outcome == "succeeded" and self.completed_run_number > self.version_run_number
        return "SOURCE_DELAYED" if brought_nothing else "OVERDUE"

    @property
    def word(self) -> str:
        """The one word."""
        if self.is_running:
            return "running"
        if self.outcome == "failed":
            return "error"
        if self.outcome == "never":
            return "not_initialized"
        return "ready" if self.is_fresh else "stale"


class Acceptance(NamedTuple):
    """What somebody accepted: for which output, which configuration, and which version of each upstream."""

    completed_run_number: int
    fingerprint: str
    version_ids: dict[ModelEdge, str]


class Model:
    """All events, and what follows from them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.snapshots: list[Snapshot] = []
        self.facts: list[RunFact] = []
        self.invalidations: dict[FlowKey, int] = {}
        self.acceptances: dict[FlowKey, Acceptance] = {}
        self.probes: dict[FlowKey, tuple[int, str]] = {}  # the newest: after which run, and the token

    def flows(self) -> dict[FlowKey, ModelFlow]:
        """Recompute everything."""
        newest = self._newest()
        flows = {
            FlowKey(snapshot.instance_id, spec.flow_kind): ModelFlow(
                snapshot.name, snapshot.is_deleted, None if snapshot.is_deleted else spec
            )
            for snapshot in newest.values()
            for spec in snapshot.flows
        }
        for spec in [spec for snapshot in newest.values() for spec in snapshot.flows]:
            for edge in spec.upstreams:
                flows.setdefault(edge.upstream, ModelFlow())
        facts: dict[FlowKey, list[RunFact]] = {}
        for fact in self.facts:
            if fact.flow.instance_id not in newest or not newest[fact.flow.instance_id].is_deleted:
                facts.setdefault(fact.flow, []).append(fact)
        numbers = {key: self._run(flows.setdefault(key, ModelFlow()), known) for key, known in facts.items()}
        for key, known in facts.items():
            self._consume(flows[key], known, numbers)
        for key, run_number in self.invalidations.items():
            flows[key].is_invalidated = flows[key].full_run_number <= run_number
        for key, acceptance in self.acceptances.items():
            if flows[key].completed_run_number == acceptance.completed_run_number:
                flows[key].accepted_fingerprint = acceptance.fingerprint
                flows[key].accepted = {
                    edge: numbers.get(edge[0], {}).get(version_id, 0)
                    for edge, version_id in acceptance.version_ids.items()
                }
        self._probe(flows)
        self._decide(flows)
        return flows

    def _probe(self, flows: dict[FlowKey, ModelFlow]) -> None:
        """Fill in what probes have found."""
        for key, (run_number, token) in self.probes.items():
            flow = flows[key]
            is_of_newest = run_number == flow.completed_run_number
            flow.is_source_changed = is_of_newest and bool(flow.source_token) and token != flow.source_token

    def _decide(self, flows: dict[FlowKey, ModelFlow]) -> None:
        """Fill in which flows are fresh now."""
        for flow in flows.values():
            flow.now = self.clock.now()
        decided: dict[FlowKey, bool] = {}
        for key, flow in flows.items():
            flow.is_fresh = self._is_fresh(key, flows, decided)

    def _newest(self) -> dict[str, Snapshot]:
        newest: dict[str, Snapshot] = {}
        for snapshot in self.snapshots:
            known = newest.get(snapshot.instance_id)
            if known is None or (snapshot.is_deleted, snapshot.revision) > (known.is_deleted, known.revision):
                newest[snapshot.instance_id] = snapshot
        return newest

    @staticmethod
    def _run(flow: ModelFlow, facts: list[RunFact]) -> dict[str, int]:
        """Fill in what the flow's runs say; return the version that each completed run has."""
        flow.run_number = max(fact.run_number for fact in facts)
        flow.is_running = not any(
            fact.run_number == flow.run_number and fact.phase is not Phase.ACTIVE for fact in facts
        )
        judged = [fact for fact in facts if fact.phase in {Phase.COMPLETED, Phase.FAILED}]
        if judged:
            last = max(judged, key=lambda fact: fact.run_number)
            flow.outcome = "succeeded" if last.phase is Phase.COMPLETED else "failed"
        completed = {fact.run_number: fact for fact in facts if fact.phase is Phase.COMPLETED}
        versions: dict[str, int] = {}
        previous = None
        for number in sorted(completed):
            fact = completed[number]
            if (
                previous is None
                or not fact.digest
                or previous.digest not in {fact.digest, fact.former_digest or fact.digest}
                or _reads_differ(previous, fact)
            ):
                flow.version += 1
                flow.version_id = fact.run_id
                is_told = bool(fact.change_start) and versions.get(fact.base_run_id) == flow.version - 1
                flow.changes[flow.version] = (fact.change_start, fact.change_end) if is_told else None
                flow.version_run_number = number
                flow.last_data_date = fact.last_data_date
            versions[fact.run_id] = flow.version
            flow.readers_hashes[fact.run_id] = fact.readers_hash
            previous = fact
        if previous is not None:
            whole = [
                completed[number] for number in sorted(completed) if not completed[number].is_partial_range
            ]
            flow.computed_fingerprint = (whole[-1] if whole else previous).fingerprint
            flow.completed_run_number = previous.run_number
            flow.computed_revision = previous.instance_revision
            flow.readers_hash = previous.readers_hash
            flow.source_token = previous.source_token
        for number in sorted(completed):
            if not completed[number].is_partial_range:
                flow.full_run_number, flow.is_partial = number, False
            elif completed[number].inputs:
                flow.is_partial = True
        return versions

    @staticmethod
    def _consume(flow: ModelFlow, facts: list[RunFact], numbers: dict[FlowKey, dict[str, int]]) -> None:
        whole = [fact for fact in facts if fact.phase is Phase.COMPLETED and not fact.is_partial_range]
        if whole:
            for item in max(whole, key=lambda fact: fact.run_number).inputs:
                version = numbers.get(item.upstream, {}).get(item.version_id, 0)
                flow.consumed[(item.upstream, item.role)] = version
                flow.consumed_run_ids[(item.upstream, item.role)] = item.version_id

    def _is_fresh(self, key: FlowKey, flows: dict[FlowKey, ModelFlow], decided: dict[FlowKey, bool]) -> bool:
        if key not in decided:
            flow = flows[key]
            has_own_cause = (
                flow.spec is None
                or flow.has_other_config
                or flow.is_invalidated
                or flow.is_partial
                or flow.is_late
                or flow.is_source_changed
            )
            decided[key] = (
                flow.version > 0
                and not has_own_cause
                and all(
                    flow.compared(edge) == flows[edge[0]].version and self._is_fresh(edge[0], flows, decided)
                    for edge in flow.edges
                )
            )
        return decided[key]


def _reads_differ(previous: RunFact, fact: RunFact) -> bool:
    """Return whether two outputs are known to be read in different ways."""
    before = previous.readers_hash or fact.base_readers_hash
    return bool(before and fact.readers_hash) and before != fact.readers_hash


def acceptance(flows: dict[FlowKey, ModelFlow], key: FlowKey) -> Acceptance | str:
    """Return what accepting the staleness of a flow declares, or the reason why it is refused."""
    flow = flows[key]
    assert flow.spec is not None
    if flow.is_running:
        return "FLOW_IS_RUNNING"
    if not flow.version:
        return "FLOW_WITHOUT_OUTPUT"
    if flow.is_fresh:
        return "FLOW_IS_FRESH"
    if not all(flows[edge[0]].is_fresh for edge in flow.edges):
        return "UPSTREAM_NOT_FRESH"
    versions = {edge: flows[edge[0]].version_id for edge in flow.edges}
    return Acceptance(flow.completed_run_number, flow.spec.fingerprint, versions)


def impact(flows: dict[FlowKey, ModelFlow], key: FlowKey) -> dict[FlowKey, int]:
    """Return the flows that become stale with a flow, each with its distance from it."""
    found = {key: 0} if flows[key].is_fresh else {}
    queue = deque(found)
    while queue:
        upstream = queue.popleft()
        for downstream, flow in flows.items():
            if flow.is_fresh and downstream not in found and upstream in {edge[0] for edge in flow.edges}:
                found[downstream] = found[upstream] + 1
                queue.append(downstream)
    return found


def changed_inputs(flows: dict[FlowKey, ModelFlow], key: FlowKey) -> dict[ModelEdge, tuple[str, str]] | None:
    """Return in which dates each input differs from what the flow's output was computed from; None: all dates may differ."""
    flow = flows[key]
    assert flow.spec is not None
    is_same = flow.spec.fingerprint == flow.computed_fingerprint
    if (
        not flow.version
        or not is_same
        or flow.is_invalidated
        or flow.completed_run_number != flow.full_run_number
    ):
        return None
    found: dict[ModelEdge, tuple[str, str]] = {}
    for edge in flow.edges:
        upstream, consumed = flows[edge[0]], flow.consumed.get(edge, 0)
        before = upstream.readers_hashes.get(flow.consumed_run_ids.get(edge, ""), "")
        between = [upstream.changes[number] for number in range(consumed + 1, upstream.version + 1)]
        if not consumed or not upstream.readers_hash or before != upstream.readers_hash or None in between:
            return None
        known = [change for change in between if change is not None]
        starts, ends = [start for start, _ in known], [end for _, end in known]
        found[edge] = (min(starts), max(ends)) if known else ("", "")
    return found
