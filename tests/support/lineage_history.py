"""Long histories of many flows: what happens, and how its events are repeated, reordered and delayed."""

from __future__ import annotations

from random import Random
from typing import Any

from lineage_service.domain.causes import MAX_CAUSES, find_causes, nearest_causes
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.probes import ProbeFact
from lineage_service.domain.recomputation import is_right
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import Snapshot
from support.lineage_causes import explanations, state_causes
from support.lineage_domain import Domain, explained, shown
from support.lineage_model import Model, ModelFlow, acceptance
from support.lineage_world import World

CHANGES = ("config", "accessor", "revert", "label", "edges", "policy", "promote", "delete")
ENDS = {"complete": Phase.COMPLETED, "fail": Phase.FAILED, "cancel": Phase.CANCELLED}
STEPS = (
    *("refresh",) * 8,
    *("range", "submit", "complete", "probe") * 2,
    *("config", "accessor", "revert", "promote", "edges") * 2,
    *("policy", "time", "accept") * 4,
    *("started", "fail", "cancel", "label", "invalidate", "revoke"),
    "delete",
)
_MOST_EDGES = 3  # of a new instance
_SPARSE_BITS = 3  # the first bits of the number of an instance are no edges


def instance_number(random: Random, index: int) -> int:
    """Return a number from which the world makes an instance with a few upstreams among those before it."""
    number = random.randrange(8)
    for _ in range(random.randint(0, _MOST_EDGES) if index else 0):
        number |= 1 << (random.randrange(index) + _SPARSE_BITS)
    return number


class History:
    """One history: the events are applied by the domain and by the model, which must agree."""

    def __init__(self, random: Random, size: int) -> None:
        self.random = random
        self.world = World()
        self.model = Model(self.world.clock)
        self.domain = Domain()
        self.pending: list[Snapshot | RunFact] = [
            self.world.create(instance_number(random, index)) for index in range(size)
        ]
        # What happened, in order, so that it can be repeated: each with a flow, events or seconds.
        self.log: list[tuple[str, Any]] = []
        self._flows: dict[FlowKey, ModelFlow] | None = None  # of the model, until something changes
        if random.random() < 0.8:
            self.pending += self.world.warm_up()
        self.deliver()

    @property
    def flows(self) -> dict[FlowKey, ModelFlow]:
        """What follows by brute force from all that was delivered and said."""
        if self._flows is None:
            self._flows = self.model.flows()
        return self._flows

    def run(self, steps: int, deliveries: int, checks: int) -> None:
        """Let things happen, deliver and compare about so many times on the way, and once at the end."""
        for _ in range(steps):
            self.step(self.random.choice(STEPS))
            if self.pending and self.random.random() < deliveries / steps:
                self.deliver(self.random.random() * 0.3)
            if self.random.random() < checks / steps:
                self.check()
        self.deliver()
        self.check()

    def step(self, what: str) -> None:
        """Let one thing happen; its events are pending then."""
        world, number = self.world, self.random.getrandbits(12)
        flow = world.flow(world.pick(self.random.getrandbits(16)), number)
        if what in CHANGES:
            self.pending += world.change(what, self.random.getrandbits(16))
        elif what in ENDS:
            self.pending += world.end(ENDS[what], number)
        elif what == "started":
            self.pending += world.started(number)
        elif what == "time":
            seconds = number % 5 * 86_400 + number % 7 * 3_600
            world.clock.advance(seconds)
            self.log.append((what, seconds))
            self._flows = None
        elif what in {"submit", "refresh", "range"}:
            self._submit(flow, what, number)
        else:
            self._say(flow, what, number)

    def _submit(self, flow: FlowKey, what: str, number: int) -> None:
        known = self._defined(flow)
        if known is None or flow in self.world.active:
            return
        pins = [Input(*edge, self.flows[edge[0]].version_id) for edge in known.edges]
        if not all(pin.version_id for pin in pins):
            return
        self.pending += self.world.submit(flow, pins, is_partial_range=what == "range")
        if what != "submit":
            position = sorted(self.world.active).index(flow)
            self.pending += self.world.end(Phase.COMPLETED, position * 2 + number % 2)

    def _say(self, flow: FlowKey, what: str, number: int) -> None:
        """Declare something of a flow, which both sides know at once."""
        known = self._defined(flow)
        if known is None:
            return
        flows, self._flows = self.flows, None
        if what == "invalidate":
            self.model.invalidations[flow] = known.run_number
            self.log.append((what, flow))
        elif what == "probe":
            run_number, token = known.completed_run_number - (number % 7 == 0), f"token {number % 3}"
            self.model.probes[flow] = run_number, token
            self.log.append((what, ProbeFact(flow, run_number, token, len(self.log) + 1)))
        elif what == "accept":
            found = acceptance(flows, flow)
            if not isinstance(found, str):
                self.model.acceptances[flow] = found
                self.log.append((what, flow))
        elif known.accepted_fingerprint is not None:
            del self.model.acceptances[flow]
            self.log.append((what, flow))

    def _defined(self, flow: FlowKey) -> ModelFlow | None:
        known = self.flows.get(flow)
        return known if known is not None and known.spec is not None else None

    def deliver(self, delayed: float = 0.0) -> None:
        """Deliver pending events in a random order, some of them twice, and leave some for later."""
        items = self.pending
        self.random.shuffle(items)
        kept = int(len(items) * delayed)
        self.pending, items = items[:kept], items[kept:]
        items += self.random.choices(items, k=len(items) // 4) if items else []
        self.log.append(("deliver", items))
        facts = [item for item in items if isinstance(item, RunFact)]
        self.domain.take(facts)
        if facts and self.random.random() < 0.3:  # its acknowledgement was lost: everything comes again
            self.domain.take(facts)
        self.model.snapshots += [item for item in items if isinstance(item, Snapshot)]
        self.model.facts += dict.fromkeys(facts)
        self._flows = None

    def check(self) -> None:
        """Compare every flow: its word, its freshness, the causes shown, the nearest root causes, and of one flow all of them."""
        graph = self.domain.decide(self.model, self.flows)
        stale = []
        for flow in graph.flows.values():
            expected = self.flows[flow.key]
            assert flow.is_fresh is expected.is_fresh, flow.key
            assert is_right(graph, flow)
            if expected.spec is None:
                continue
            assert flow.word.value == expected.word, flow.key
            found = state_causes(self.flows, flow.key)
            causes = shown(graph, flow)
            assert causes in found or (len(causes) == MAX_CAUSES and causes < found[0]), flow.key
            if not flow.is_fresh:
                stale.append(flow)
        if stale:
            flow = self.random.choice(stale)
            assert explained(graph, flow) == explanations(self.flows, flow.key)
        nearest = nearest_causes(graph, stale)
        for flow in stale:
            causes_of_flow = [each.cause for each in find_causes(graph, flow)]
            assert nearest[flow.flow_id] == causes_of_flow[:MAX_CAUSES], flow.key
