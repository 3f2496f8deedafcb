"""Decide which news of instances and flows is newest, and which status follows from it; pure, standard library only.

It never looks inside a body: the texts of a flow or a status are opaque here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from optaic.rules.statuses import MIN_SEVERITY, NOT_INITIALIZED
from status_service.domain.statuses import aggregate, is_aggregated


@dataclass(frozen=True)
class Instance:
    """The known state of an instance. A deleted one is a tombstone: no late event resurrects it."""

    instance_id: str
    revision: int
    update_time: datetime
    # Orders the events of one revision and time: created, updated, activated, deletion requested, deleted.
    event_rank: int
    name: str
    project_id: str
    kind: str
    state: str
    flow_kinds: tuple[str, ...]
    status_priority: tuple[str, ...]
    aggregation_method: str = MIN_SEVERITY
    # The only flows that count, if any are named.
    required_flows: tuple[str, ...] = ()
    # None if the known state is that of a release that did not store owners and labels.
    owner: str | None = ""
    is_deleted: bool = False
    # None: those that are stored.
    label_terms: tuple[str, ...] | None = None

    def supersedes(self, other: Instance | None) -> bool:
        """Return whether this news is newer than the known state."""
        if other is None:
            return True
        if other.is_deleted:  # a tombstone learns what it was, if its owner no longer knew that
            return bool(self.project_id) and self.position > other.position
        if other.owner is None:  # the same news has more to say than what is known
            return self.is_deleted or self.position[:2] >= other.position[:2]
        return self.is_deleted or self.position > other.position

    def after(self, other: Instance | None) -> Instance:
        """Return what is known with this news; a deletion is for ever, and one without a project says nothing else."""
        if other is None:
            return self
        if not self.project_id:
            return replace(other, is_deleted=True, owner=other.owner or "")
        return replace(self, is_deleted=self.is_deleted or other.is_deleted)

    @property
    def position(self) -> tuple[int, datetime, int]:
        """Return the position of this news in the life of the instance."""
        return self.revision, self.update_time, self.event_rank


@dataclass(frozen=True)
class Flow:
    """The known state of a flow, as of lineage-service's revision."""

    revision: int
    status: str
    version: int
    body: bytes

    def supersedes(self, other: Flow | None) -> bool:
        """Return whether this news wins; chunks of one revision speak of different flows."""
        return other is None or self.revision > other.revision


@dataclass(frozen=True)
class Wait:
    """The upstream flows that a scheduled time waits for, as of run-service's number; an empty body: none waits."""

    number: int
    body: bytes

    def supersedes(self, other: Wait | None) -> bool:
        """Return whether this news wins."""
        return other is None or self.number > other.number


@dataclass(frozen=True)
class Fact:
    """The content of one event."""

    event_id: str
    instances: tuple[Instance, ...] = ()
    flows: Mapping[tuple[str, str], Flow] = field(default_factory=dict)
    waits: Mapping[tuple[str, str], Wait] = field(default_factory=dict)
    # The revision of lineage that it tells of; 0: it is no event of lineage-service.
    lineage_revision: int = 0
    caused_by_run_id: str = ""
    caused_by_event_ids: tuple[str, ...] = ()

    def instance_ids(self) -> set[str]:
        """Return the instances that it speaks of."""
        return {
            *(instance.instance_id for instance in self.instances),
            *(key[0] for key in self.flows),
            *(key[0] for key in self.waits),
        }


@dataclass
class Board:
    """Instances and flows, whichever of the two became known first; the result of a set of facts.

    The order in which facts arrive, and how often, makes no difference to the final board.
    """

    instances: dict[str, Instance] = field(default_factory=dict)
    flows: dict[str, dict[str, Flow]] = field(default_factory=dict)
    waits: dict[str, dict[str, Wait]] = field(default_factory=dict)
    changed_instances: set[str] = field(default_factory=set)
    changed_flows: set[tuple[str, str]] = field(default_factory=set)
    changed_waits: set[tuple[str, str]] = field(default_factory=set)

    def put(self, fact: Fact) -> list[str]:
        """Take a fact in; return the instances that have news, in the order of the fact."""
        touched: dict[str, None] = {}
        for instance in fact.instances:
            known = self.instances.get(instance.instance_id)
            if instance.supersedes(known):
                self._put_instance(instance)
                if known is None or not known.is_deleted:
                    touched[instance.instance_id] = None
        for key, flow in fact.flows.items():
            if self._put_flow(key, flow):
                touched[key[0]] = None
        for key, wait in fact.waits.items():
            if self._put_wait(key, wait):
                touched[key[0]] = None
        return list(touched)

    def _put_instance(self, instance: Instance) -> None:
        known = self.instances[instance.instance_id] = instance.after(
            self.instances.get(instance.instance_id)
        )
        self.changed_instances.add(instance.instance_id)
        if known.is_deleted:
            self.flows.pop(instance.instance_id, None)
            self.waits.pop(instance.instance_id, None)
            self.changed_flows = {key for key in self.changed_flows if key[0] != instance.instance_id}
            self.changed_waits = {key for key in self.changed_waits if key[0] != instance.instance_id}

    def _put_flow(self, key: tuple[str, str], flow: Flow) -> bool:
        instance_id, flow_kind = key
        instance = self.instances.get(instance_id)
        known = self.flows.get(instance_id, {})
        if (instance and instance.is_deleted) or not flow.supersedes(known.get(flow_kind)):
            return False
        self.flows.setdefault(instance_id, {})[flow_kind] = flow
        self.changed_flows.add(key)
        return True

    def _put_wait(self, key: tuple[str, str], wait: Wait) -> bool:
        instance_id, flow_kind = key
        instance = self.instances.get(instance_id)
        known = self.waits.get(instance_id, {})
        if (instance and instance.is_deleted) or not wait.supersedes(known.get(flow_kind)):
            return False
        self.waits.setdefault(instance_id, {})[flow_kind] = wait
        self.changed_waits.add(key)
        return True

    def status(self, instance_id: str) -> str:
        """Return the instance's word; a flow that is not known yet has never succeeded."""
        instance = self.instances[instance_id]
        statuses = list(self._counted(instance))
        return aggregate(statuses, instance.status_priority, instance.aggregation_method)

    def _counted(self, instance: Instance) -> Iterable[str]:
        flows = self.flows.get(instance.instance_id, {})
        for flow_kind in instance.flow_kinds:
            if is_aggregated(instance.kind, flow_kind, instance.required_flows):
                flow = flows.get(flow_kind)
                yield flow.status if flow else NOT_INITIALIZED

    def versions(self, instance_id: str) -> dict[str, int]:
        """Return the current output version of each flow that has one."""
        kinds = self.instances[instance_id].flow_kinds
        flows = self.flows.get(instance_id, {})
        return {kind: flows[kind].version for kind in kinds if kind in flows and flows[kind].version}
