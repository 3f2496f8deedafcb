"""Comparison of the service with a brute-force model, on real PostgreSQL, for random graphs and event orders."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from datetime import datetime

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lineage_service import conversion
from lineage_service.domain.causes import MAX_CAUSES
from lineage_service.domain.increments import why_full
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.probes import ProbeFact
from lineage_service.domain.runs import Phase as RunPhase
from lineage_service.domain.runs import RunFact
from lineage_service.domain.snapshots import Snapshot
from optaic.common.v1.flow_pb2 import Status
from optaic.lineage.v1 import lineage_pb2
from optaic.lineage.v1.lineage_events_pb2 import FlowStatusesChanged
from optaic.lineage.v1.lineage_service_pb2 import AsOf
from servicekit.database import Database
from servicekit.enums import enum_word
from support.lineage_causes import ModelCause, blocking, explanations, late_inputs, state_causes
from support.lineage_model import Model, ModelFlow, acceptance, changed_inputs, impact
from support.lineage_past import compare_differences
from support.lineage_ranges import Ranged
from support.lineage_service import Lineage, lineage_database, new_tenant, pins_of, summaries
from support.lineage_world import World

_CHANGES = ("config", "accessor", "revert", "label", "edges", "policy", "promote", "delete")
_DECLARATIONS = {"invalidate", "accept", "revoke", "probe"}
_ENDS = {"complete": RunPhase.COMPLETED, "fail": RunPhase.FAILED, "cancel": RunPhase.CANCELLED}
_STEPS = (
    *("refresh",) * 6,
    *("range", "accessor") * 2,
    *("range", "range"),
    *("submit", "complete") * 2,
    *("config", "revert", "promote") * 3,
    *("edges",) * 3,
    *("accept", "accept", "revoke", "probe", "probe", "probe"),
    *("policy", "time") * 12,  # lateness needs several of them in a row
    *("started", "fail", "cancel", "label", "invalidate", "delete"),
)
pytestmark = pytest.mark.faults
_numbers = st.integers(0, 2**12 - 1)
# Whether every flow runs once at the start: only a fresh flow can become stale.
_graphs = st.tuples(st.lists(_numbers, min_size=2, max_size=5), st.sampled_from([True, True, True, False]))
_interleavings = st.lists(
    st.tuples(st.sampled_from(_STEPS), _numbers, st.booleans()), min_size=1, max_size=10
)
# The cases differ each time: make test runs a part of those that make test-faults runs.
_CASES = int(
    os.environ.get("OPTAIC_MODEL_CASES", "20000" if os.environ.get("OPTAIC_FAULTS") == "full" else "250")
)
_quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
_phases = [Phase.explicit, Phase.generate, Phase.shrink]


@pytest.fixture(scope="module")
def runner(postgres_server: object) -> Iterator[asyncio.Runner]:
    del postgres_server
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def database(runner: asyncio.Runner) -> Iterator[Database]:
    context = lineage_database()
    yield runner.run(context.__aenter__())
    runner.run(context.__aexit__(None, None, None))


class Case:
    """One set of instances and events, applied to the real service and to the model."""

    def __init__(self, database: Database) -> None:
        self.world = World()
        self.lineage = Lineage(database, new_tenant(), self.world.clock)
        self.model = Model(self.world.clock)
        self.pending: list[Snapshot | RunFact] = []
        self.told = Told()
        self.probes = 0
        # What the model was at each revision that was published, and when.
        self.past: dict[int, tuple[datetime, dict[FlowKey, ModelFlow]]] = {}

    async def begin(self, graph: list[int], is_warm: bool) -> None:
        """Create the instances, and run every flow once if the case says so."""
        self.pending += [self.world.create(number) for number in graph]
        if is_warm:
            self.pending += self.world.warm_up()
        await self.deliver(0)

    async def deliver(self, seed: int) -> None:
        """Deliver the pending events in a random order."""
        items = self.pending
        if seed & 1:
            random.Random(seed).shuffle(items)
        self.pending = []
        await self.lineage.apply(items)
        await self.lineage.judge()
        self.model.snapshots += [item for item in items if isinstance(item, Snapshot)]
        self.model.facts += [item for item in items if isinstance(item, RunFact)]
        flows = self.model.flows()
        assert await self.lineage.state() == summaries(flows)
        await self.compare_published(flows)

    async def compare_published(self, flows: dict[FlowKey, ModelFlow]) -> None:
        """Compare the state that a subscriber has received with the actual state, including the causes."""
        self.past.setdefault(await self.lineage.revision(), (self.world.clock.now(), flows))
        self.told.take(await self.lineage.messages(after=self.told.revision))
        for key, state in (await self.lineage.states()).items():
            causes = [conversion.cause_message(cause) for cause in state.causes]
            assert self.told.causes[key] == causes, key
            assert self.told.words[key] == flows[key].word
            found = {_summary(cause) for cause in causes}
            assert len({cause.SerializeToString() for cause in causes}) == len(causes) < MAX_CAUSES
            assert found in state_causes(flows, key)

    async def check(self, flow: FlowKey, ranged: Ranged | None = None) -> list[RunFact]:
        """Compare the admission with the model's; return the events of a run that is admitted or forced."""
        flows = self.model.flows()
        if flow not in flows or flows[flow].spec is None or flow in self.world.active:
            return []
        answer = await self.lineage.check(flow)
        found = {item.flow.key: item.flow.word.value for item in answer.blocking}
        assert found == {key: flows[key].word for key in blocking(flows, flow)}
        assert all(item.reason for item in answer.blocking)
        assert {late.key for late in answer.late} == late_inputs(flows, flow)
        pins = pins_of(answer)
        expected = {edge: flows[edge[0]].version_id for edge in flows[flow].edges}
        assert {(pin.upstream, pin.role): pin.version_id for pin in pins} == expected
        admission = answer.admission
        assert {
            upstream.key: (upstream.computed_revision, upstream.readers_hash)
            for upstream, _ in admission.direct
        } == {key: (flows[key].computed_revision, flows[key].readers_hash) for key, _ in flows[flow].edges}
        expected_changes = changed_inputs(flows, flow)
        assert (why_full(admission.flow, admission.direct) == "") is (expected_changes is not None)
        if expected_changes is not None:
            assert {
                (upstream.key, change.role): (change.start, change.end)
                for upstream, changes in admission.direct
                for change in changes
            } == expected_changes
        assert admission.flow.right_fingerprint == flows[flow].right_fingerprint
        if not all(pin.version_id for pin in pins):
            return []
        if ranged is None:
            return self.world.submit(flow, pins)
        covers = ranged.covers(answer)
        assert covers is (expected_changes is not None and ranged.has_all(expected_changes.values()))
        return self.world.submit(flow, pins, is_partial_range=not covers)

    async def step(self, what: str, number: int) -> None:
        """Apply one random change."""
        world = self.world
        flow = world.flow(world.pick(number), number // 3)
        if what in _CHANGES:
            self.pending += world.change(what, number)
        elif what in _ENDS:
            self.pending += world.end(_ENDS[what], number)
        elif what == "started":
            self.pending += world.started(number)
        elif what == "time":
            await self.wait(number % 5 * 86_400 + number % 7 * 3_600)
        elif what == "submit":
            self.pending += await self.check(flow)
        elif what in {"refresh", "range"}:
            facts = await self.check(flow, Ranged(number) if what == "range" else None)
            if facts:
                position = sorted(world.active).index(flow)
                self.pending += [*facts, *world.end(RunPhase.COMPLETED, position * 2 + number % 2)]
        elif what in _DECLARATIONS:
            await self.say(what, flow, number)

    async def say(self, what: str, flow: FlowKey, number: int) -> None:
        """Have somebody, or a worker, say something of a flow without a run."""
        if what == "invalidate":
            await self.invalidate(flow)
        elif what == "probe":
            await self.probe(flow, number)
        else:
            await self.declare(what, flow)

    async def wait(self, seconds: float) -> None:
        """Let time pass, and the policies that fall due be judged."""
        self.world.clock.advance(seconds)
        await self.lineage.judge()
        flows = self.model.flows()
        assert await self.lineage.state() == summaries(flows)
        await self.compare_published(flows)

    async def invalidate(self, flow: FlowKey) -> None:
        """Declare a flow invalid, after asking what would become stale."""
        flows = self.model.flows()
        if flow in flows and flows[flow].spec is not None:
            predicted = await self.lineage.preview_impact(flow)
            assert predicted == impact(flows, flow)
            await self.lineage.invalidate(flow)
            self.model.invalidations[flow] = flows[flow].run_number
            later = self.model.flows()
            assert predicted.keys() == {key for key in flows if flows[key].is_fresh > later[key].is_fresh}
            await self.compare_published(later)

    async def probe(self, flow: FlowKey, number: int) -> None:
        """Probe the source of a flow after its newest completed run, or the one before."""
        flows = self.model.flows()
        if flow in flows and flows[flow].spec is not None:
            self.probes += 1
            run_number = flows[flow].completed_run_number - (number % 7 == 0)
            fact = ProbeFact(flow, run_number, f"token {number % 3}", self.probes)
            self.model.probes[flow] = run_number, fact.source_token
            older = ProbeFact(flow, run_number, "token 4", self.probes - 1)
            for each in ([fact], [older, fact], [older]):  # repeated and late ones change nothing
                await self.lineage.probe(each)
            flows = self.model.flows()
            assert await self.lineage.state() == summaries(flows)
            await self.compare_published(flows)

    async def declare(self, what: str, flow: FlowKey) -> None:
        """Accept the staleness of a flow, or revoke that, where the model says that it is possible."""
        flows = self.model.flows()
        if flow not in flows or flows[flow].spec is None:
            return
        if what == "accept":
            found = acceptance(flows, flow)
            if not isinstance(found, str):
                self.model.acceptances[flow] = found
            expected = found if isinstance(found, str) else ""
        else:
            expected = "NOTHING_ACCEPTED" if flows[flow].accepted_fingerprint is None else ""
            self.model.acceptances.pop(flow, None)
        assert await self.lineage.declare(what, flow) == expected
        flows = self.model.flows()
        assert await self.lineage.state() == summaries(flows)
        await self.compare_published(flows)

    async def look_back(self, number: int) -> None:
        """Compare the graph as of some earlier revisions, and as of their times, with what the model was then."""
        revisions = sorted(self.past)
        for revision in random.Random(number).sample(revisions, min(3, len(revisions))):
            time, flows = self.past[revision]
            await self.compare_past(AsOf(revision=revision), flows)
            newest = max(each for each in revisions if self.past[each][0] == time)
            as_of = AsOf()
            as_of.time.FromDatetime(time)
            await self.compare_past(as_of, self.past[newest][1])
        flow = self.world.flow(self.world.pick(number), number // 3)
        await compare_differences(
            self.lineage, flow, *sorted((revisions[number % len(revisions)], revisions[-1]))
        )

    async def compare_past(self, as_of: AsOf, flows: dict[FlowKey, ModelFlow]) -> None:
        """Compare the graph as of a moment with a model."""
        found, states = await self.lineage.state_as_of(as_of)
        assert found == summaries(flows)
        for key, state in states.items():
            causes = {_summary(conversion.cause_message(cause)) for cause in state.causes}
            assert causes in state_causes(flows, key), key

    async def explain(self, flow: FlowKey) -> None:
        """Compare the explanations: equal causes, direct upstreams and path lengths."""
        state, found = await self.lineage.explain(flow)
        flows = self.model.flows()
        lengths = {}
        for item in found:
            cause = ModelCause(
                item.cause.kind.name, item.cause.origin.key, item.cause.from_version, item.cause.to_version
            )
            direct = item.direct_upstream.key if item.direct_upstream else None
            lengths[(cause, direct)] = len(item.path)
            keys = [step.key for step in item.path]
            assert (keys[0], keys[-1]) == (cause.origin, flow)
            assert direct is None or keys[-2] == direct
            for upstream, downstream in itertools.pairwise(keys):
                assert upstream in {edge[0] for edge in flows[downstream].edges}
        assert lengths == explanations(flows, flow)
        assert bool(state.causes) is not state.flow.is_fresh


class Told:
    """The state of a subscriber: it applies each change, except those of an older revision."""

    def __init__(self) -> None:
        self.revision = 0
        self.words: dict[FlowKey, str] = {}
        self.causes: dict[FlowKey, list[lineage_pb2.Cause]] = {}
        self._revisions: dict[FlowKey, int] = {}

    def take(self, messages: Sequence[FlowStatusesChanged]) -> None:
        """Apply messages as status-service does."""
        for message in messages:
            self.revision = max(self.revision, message.revision)
            for change in message.changes:
                key = conversion.flow_key(change.flow)
                assert all(index < len(message.causes) for index in change.cause_indexes)
                assert bool(change.cause_indexes) is not change.is_fresh
                if message.revision > self._revisions.get(key, 0):
                    self._revisions[key] = message.revision
                    self.words[key] = enum_word(Status, change.status)
                    self.causes[key] = [message.causes[index] for index in change.cause_indexes]


def _summary(cause: lineage_pb2.Cause) -> ModelCause:
    kind = enum_word(lineage_pb2.CauseKind, cause.kind).upper()
    return ModelCause(kind, conversion.flow_key(cause.origin), cause.from_version, cause.to_version)


@settings(max_examples=_CASES, deadline=None, suppress_health_check=_quiet, phases=_phases, database=None)
@given(graph=_graphs, interleaving=_interleavings)
def test_every_interleaving_of_events_gives_the_state_that_the_model_computes(
    runner: asyncio.Runner,
    database: Database,
    graph: tuple[list[int], bool],
    interleaving: list[tuple[str, int, bool]],
) -> None:
    async def run() -> None:
        case = Case(database)
        await case.begin(*graph)
        for what, number, is_delayed in interleaving:
            await case.step(what, number)
            if case.pending and not is_delayed:
                await case.deliver(number)
        if case.pending:
            await case.deliver(1)
        flows = case.model.flows()
        for key in [key for key in sorted(flows) if flows[key].spec and not flows[key].is_fresh][-2:]:
            await case.explain(key)
        assert await case.lineage.recompute() == []
        await case.look_back(len(interleaving) + sum(graph[0]))

    runner.run(run())


@settings(
    max_examples=max(_CASES // 14, 1),
    deadline=None,
    suppress_health_check=_quiet,
    phases=_phases,
    database=None,
)
@given(graph=_graphs, interleaving=_interleavings, seed=st.integers(0, 2**32))
def test_duplicates_and_any_order_of_the_same_events_give_the_same_state(
    runner: asyncio.Runner,
    database: Database,
    graph: tuple[list[int], bool],
    interleaving: list[tuple[str, int, bool]],
    seed: int,
) -> None:
    async def run() -> None:
        case = Case(database)
        await case.begin(*graph)
        for what, number, _ in interleaving:
            await case.step("refresh" if what in _DECLARATIONS else what, number)
            if case.pending:
                await case.deliver(0)
        everything: list[Snapshot | RunFact] = [*case.model.snapshots, *case.model.facts]
        generator = random.Random(seed)
        shuffled = everything + generator.sample(everything, len(everything) // 2)
        generator.shuffle(shuffled)
        other = Lineage(database, new_tenant(), case.world.clock)
        while shuffled:
            size = generator.randint(1, 8)
            await other.apply(shuffled[:size])
            shuffled = shuffled[size:]
        await other.judge()
        assert await other.state() == summaries(case.model.flows())
        await other.apply(everything)
        await other.judge()
        assert await other.state() == summaries(case.model.flows())

    runner.run(run())
