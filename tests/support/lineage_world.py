"""A small world of instances and runs that makes events, as instance-service and run-service would."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lineage_service.domain.freshness import Frequency, Policy
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import SCHEMA, EdgeSpec, FlowSpec, Snapshot
from support.clock import FakeClock

START = datetime(2024, 1, 2, tzinfo=UTC)
Pins = Sequence[Input]

# What an instance may say of the age of its data.
POLICIES = (
    None,
    Policy(Frequency.DAILY),
    Policy(Frequency.DAILY, due_lag=1, blocks_readers=True),
    Policy(Frequency.WEEKLY),
)
SETTINGS = "settings"  # the role of upstreams of which no version is read


@dataclass
class WorldInstance:
    """One instance as its owner knows it; edges lead to earlier instances only, so there is no cycle."""

    instance_id: str
    name: str
    kinds: tuple[str, ...]
    upstreams: set[tuple[int, str]]
    revision: int = 1
    config: int = 0
    contract: int = 0
    accessor: int = 0
    policy: int = 0  # of its last flow
    is_deleted: bool = False
    # By flow kind: the run whose output was checked, and the fingerprint for which.
    verified: dict[str, tuple[int, str]] = field(default_factory=dict)


@dataclass
class ActiveRun:
    """One run as its owner knows it."""

    flow: FlowKey
    run_id: str
    run_number: int
    pins: Pins
    fingerprint: str
    revision: int
    readers_hash: str
    is_partial_range: bool


@dataclass
class World:
    """Makes events; nothing here knows what they do to lineage."""

    clock: FakeClock = field(default_factory=FakeClock)
    instances: list[WorldInstance] = field(default_factory=list)
    active: dict[FlowKey, ActiveRun] = field(default_factory=dict)
    run_numbers: dict[FlowKey, int] = field(default_factory=dict)
    digests: dict[FlowKey, str] = field(default_factory=dict)
    last_data_dates: dict[FlowKey, str] = field(default_factory=dict)
    completed: dict[FlowKey, list[ActiveRun]] = field(default_factory=dict)
    _ids: int = 0

    def new_id(self) -> str:
        """Return an id that is the same in every repetition of a case."""
        self._ids += 1
        return str(uuid.UUID(int=self._ids << 64 | 7 << 76 | 1 << 63))

    def create(self, number: int) -> Snapshot:
        """Create an instance whose upstreams and kinds follow from a number."""
        index = len(self.instances)
        kinds = ("training", "inference") if number % 5 == 4 else ("refresh",)
        upstreams = {(each, "input") for each in range(index) if number >> (each + 3) & 1}
        upstreams |= {(each, SETTINGS) for each in range(index) if number >> (each + 9) & 1}
        instance = WorldInstance(self.new_id(), f"instance_{index}", kinds, upstreams)
        self.instances.append(instance)
        return self.snapshot(instance)

    def spec(self, instance: WorldInstance, kind: str) -> FlowSpec:
        """Return a flow as the instance defines it; the fingerprint covers configuration and edges."""
        edges = [
            EdgeSpec(self.flow(self.instances[index], -1), role, SCHEMA if role == SETTINGS else 1)
            for index, role in sorted(instance.upstreams)
        ]
        if kind == "inference":
            edges.append(EdgeSpec(FlowKey(instance.instance_id, "training"), "model", 5))
        fingerprint = (
            f"{instance.config}/{sorted(instance.upstreams)}/{instance.contract}/{instance.accessor}"
        )
        verified = instance.verified.get(kind, (0, ""))
        policy = POLICIES[instance.policy] if kind == instance.kinds[-1] else None
        return FlowSpec(kind, fingerprint, tuple(edges), "", *verified, policy)

    def snapshot(self, instance: WorldInstance) -> Snapshot:
        """Return the instance as of its newest revision, as an event."""
        flows = tuple(self.spec(instance, kind) for kind in instance.kinds)
        return Snapshot(
            instance.instance_id,
            instance.revision,
            instance.name,
            1,
            flows,
            instance.is_deleted,
            self.new_id(),
        )

    @staticmethod
    def flow(instance: WorldInstance, number: int) -> FlowKey:
        """Return one of the instance's flows."""
        return FlowKey(instance.instance_id, instance.kinds[number % len(instance.kinds)])

    def pick(self, number: int) -> WorldInstance:
        """Return one of the instances."""
        return self.instances[number % len(self.instances)]

    def change(self, what: str, number: int) -> list[Snapshot]:
        """Change an instance: `config`, `accessor`, `revert`, `label`, `edges`, `policy`, `promote` or `delete`."""
        changed = [each for each in self.instances if (each.config or each.accessor) and not each.is_deleted]
        instance = changed[number % len(changed)] if what == "revert" and changed else self.pick(number)
        if instance.is_deleted:
            return []
        index = self.instances.index(instance)
        if what == "config":
            instance.config += 1
        elif what == "accessor":
            instance.accessor += 1
        elif what == "revert":
            instance.config = instance.accessor = 0
        elif what == "edges" and index:
            role = SETTINGS if number & 256 else "input" if number & 64 else "prices"
            instance.upstreams ^= {(number // 7 % index, role)}
        elif what == "policy":
            instance.policy = number // 7 % len(POLICIES)
        elif what == "promote":
            self._promote(instance, number)
        elif what == "delete":
            instance.is_deleted = True
        instance.revision += 1
        return [self.snapshot(instance)]

    def _promote(self, instance: WorldInstance, number: int) -> None:
        """Add a contract that one of the newest outputs satisfies; the check may know only an older one."""
        before = {kind: self.spec(instance, kind).fingerprint for kind in instance.kinds}
        instance.contract += 1
        for kind in instance.kinds:
            known = self.completed.get(FlowKey(instance.instance_id, kind), [])[-1 - (number >> 7 & 1) :]
            if known and known[0].fingerprint == before[kind]:
                fingerprint = self.spec(instance, kind).fingerprint
                instance.verified[kind] = (known[0].run_number, fingerprint)

    def submit(self, flow: FlowKey, pins: Pins, *, is_partial_range: bool = False) -> list[RunFact]:
        """Start a run of a flow that has none active; one of a range that covers its changes counts as one of all dates."""
        instance = next(each for each in self.instances if each.instance_id == flow.instance_id)
        number = self.run_numbers[flow] = self.run_numbers.get(flow, 0) + 1
        fingerprint = self.spec(instance, flow.flow_kind).fingerprint
        run = self.active[flow] = ActiveRun(
            flow,
            self.new_id(),
            number,
            pins,
            fingerprint,
            instance.revision,
            f"accessor {instance.accessor}",
            is_partial_range,
        )
        return [self._fact(run, Phase.ACTIVE)]

    def warm_up(self) -> list[RunFact]:
        """Run every flow once, upstreams first, each reading version 1 of what is above it."""
        facts: list[RunFact] = []
        run_ids: dict[FlowKey, str] = {}
        for instance in self.instances:
            for kind in instance.kinds:
                edges = self.spec(instance, kind).upstreams
                pins = [
                    Input(edge.upstream, edge.role, run_ids[edge.upstream])
                    for edge in edges
                    if edge.kind != SCHEMA
                ]
                flow = FlowKey(instance.instance_id, kind)
                facts += self.submit(flow, pins)
                run_ids[flow] = self.active[flow].run_id
                facts += self.end(Phase.COMPLETED, 0)
        return facts

    def started(self, number: int) -> list[RunFact]:
        """Say of an active run that it is running."""
        run = self._pick_active(number)
        return [self._fact(run, Phase.ACTIVE)] if run else []

    def end(self, phase: Phase, number: int) -> list[RunFact]:
        """End an active run; with an odd number its content equals the one before.

        Every second pair of numbers is of a worker that does not record how an output is read.
        """
        run = self._pick_active(number)
        if run is None:
            return []
        del self.active[run.flow]
        if phase is not Phase.COMPLETED:
            return [self._fact(run, phase)]
        before = self.completed.setdefault(run.flow, [])
        is_recorded = not number & 4
        base_readers_hash = before[-1].readers_hash if before and is_recorded else ""
        before.append(run)
        digest = self.digests.get(run.flow, "first") if number & 1 else run.run_id
        former_digest = ""
        if (
            number & 1 and number & 8 and not digest.startswith("d2:")
        ):  # a worker of a later release says it otherwise
            digest, former_digest = f"d2:{digest}", digest
        if not number & 1 or run.flow not in self.digests:  # other content, today's or older
            newest = self.clock.now().date() - timedelta(days=number >> 4 & 3)
            self.last_data_dates[run.flow] = newest.isoformat()
        self.digests[run.flow] = digest
        base_run_id, start, end = self._change(before[:-1], number)
        return [
            RunFact(
                run.flow,
                run.run_id,
                run.run_number,
                phase,
                START + timedelta(minutes=run.run_number),
                fingerprint=run.fingerprint,
                inputs=tuple(run.pins),
                uri=f"file:///{run.run_id}",
                physical_version=str(run.run_number),
                digest=digest,
                last_data_date=self.last_data_dates[run.flow],
                rows_processed=number,
                event_id=self.new_id(),
                is_partial_range=run.is_partial_range,
                instance_revision=run.revision,
                readers_hash=run.readers_hash if is_recorded else "",
                base_readers_hash=base_readers_hash,
                source_token="" if number & 2 else f"token {number % 3}",
                former_digest=former_digest,
                base_run_id=base_run_id,
                change_start=start,
                change_end=end,
            )
        ]

    @staticmethod
    def _change(before: list[ActiveRun], number: int) -> tuple[str, str, str]:
        """Say in which dates the output differs from the one before, or from an older one, or not at all."""
        if not before or number % 5 == 0:
            return "", "", ""
        base = before[-1] if number % 3 else before[0]
        start, end = sorted(f"2024-01-{1 + number * factor % 28:02}" for factor in (1, 7))
        return base.run_id, start, end

    def _pick_active(self, number: int) -> ActiveRun | None:
        runs = sorted(self.active.values(), key=lambda run: run.flow)
        return runs[number // 2 % len(runs)] if runs else None

    def _fact(self, run: ActiveRun, phase: Phase) -> RunFact:
        submit_time = START + timedelta(minutes=run.run_number)
        return RunFact(run.flow, run.run_id, run.run_number, phase, submit_time, event_id=self.new_id())
