"""The rule by which a flow follows its upstream flows: over the product of facts, and over histories of small graphs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from run_service.domain.auto_refresh import Facts, Mode, Step, judge

NOW = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FLAGS = ("is_paused", "is_busy", "needs_run", "has_moved", "is_ready", "all_ready", "misses_input", "has_failed", "has_changed")  # fmt: skip
TIMES = (None, NOW - 2 * MINUTE, NOW - MINUTE, NOW)


def expected(facts: Facts) -> Step:
    """Decide as the words of docs/auto_refresh.md say: the first line that is true of the facts."""
    has_any = facts.mode is Mode.ANY_UPSTREAM and facts.has_moved and not facts.misses_input
    is_early = facts.last_time is not None and facts.last_time + facts.min_interval > NOW
    lines = [
        (facts.mode is Mode.OFF, Step.FORGET),
        (facts.is_paused, Step.HOLD),
        (facts.is_busy, Step.REST),
        (facts.has_failed and not facts.has_changed, Step.HOLD),
        (not facts.needs_run and facts.all_ready and not facts.is_ready, Step.HOLD),
        (not facts.needs_run, Step.REST),
        (not facts.all_ready and not has_any, Step.AWAIT),
        (is_early, Step.DELAY),
        (facts.all_ready, Step.RUN),
        (True, Step.RUN_FORCED),
    ]
    return next(step for is_true, step in lines if is_true)


def test_the_decision_over_the_product_of_all_facts() -> None:
    for mode, flags, last, interval in itertools.product(
        Mode, itertools.product((False, True), repeat=len(FLAGS)), TIMES, (timedelta(0), MINUTE)
    ):
        named: dict[str, Any] = dict(zip(FLAGS, flags, strict=True))
        facts = Facts(mode, last_time=last, min_interval=interval, **named)
        verdict = judge(facts, NOW)
        assert verdict.step is expected(facts), facts
        assert (verdict.time is not None) == (verdict.step is Step.DELAY)
        if verdict.time is not None:
            assert verdict.time > NOW


@dataclass
class Flow:
    """A flow of the model, with what it has read."""

    upstreams: list[int]
    mode: Mode
    version: int = 0
    read: dict[int, int] = field(default_factory=dict)
    is_own_stale: bool = True  # it has never run, or its configuration has changed
    failed_on: tuple[object, ...] | None = None
    runs: list[tuple[object, ...]] = field(default_factory=list)  # what each run read


class Model:
    """Flows that run at once when the rule says so."""

    def __init__(self, flows: list[Flow]) -> None:
        self.flows = flows
        self.revisions = [0] * len(flows)
        self.fails: set[int] = set()
        self.closures: list[set[int]] = []
        for flow in flows:
            self.closures.append(set(flow.upstreams).union(*(self.closures[up] for up in flow.upstreams)))

    def is_fresh(self, number: int) -> bool:
        flow = self.flows[number]
        return (
            flow.version > 0
            and not flow.is_own_stale
            and all(
                self.flows[up].version == flow.read.get(up) and self.is_fresh(up) for up in flow.upstreams
            )
        )

    def is_ready(self, number: int) -> bool:
        return self.is_fresh(number) and self.flows[number].failed_on is None

    def closure(self, number: int) -> set[int]:
        return self.closures[number]

    def has_moved(self, number: int) -> bool:
        flow = self.flows[number]
        return any(self.flows[up].version != flow.read.get(up) for up in flow.upstreams)

    def check_rest(self, number: int) -> None:
        """Check that nothing is left that the flow has to follow."""
        flow, above = self.flows[number], self.closure(number)
        if flow.mode is Mode.OFF or flow.failed_on is not None:
            return
        if all(map(self.is_ready, above)):
            assert self.is_fresh(number), "a change is lost"
        if flow.mode is Mode.ANY_UPSTREAM and self.has_moved(number):
            assert any(self.flows[up].version == 0 for up in above), "a direct upstream's version is not read"

    def basis(self, number: int) -> tuple[object, ...]:
        above = sorted(self.closure(number))
        return (self.revisions[number], *((up, self.flows[up].version) for up in above))

    def facts(self, number: int) -> Facts:
        flow = self.flows[number]
        above = self.closure(number)
        has_moved = self.has_moved(number)
        return Facts(
            flow.mode,
            needs_run=flow.is_own_stale or has_moved,
            has_moved=has_moved,
            is_ready=self.is_ready(number),
            all_ready=all(map(self.is_ready, above)),
            misses_input=any(self.flows[up].version == 0 for up in above),
            has_failed=flow.failed_on is not None,
            has_changed=flow.failed_on is not None and flow.failed_on != self.basis(number),
        )

    def run(self, number: int) -> None:
        flow, basis = self.flows[number], self.basis(number)
        flow.runs.append(basis)
        if number in self.fails:
            flow.failed_on = basis
            return
        flow.failed_on = None
        flow.version += 1
        flow.is_own_stale = False
        flow.read = {up: self.flows[up].version for up in flow.upstreams}

    def settle(self, order: list[int]) -> int:
        """Let flows follow until none does; return how many runs that took."""
        count, rounds = 0, 0
        while True:
            rounds += 1
            assert rounds < 1000, "it never comes to rest"
            due = [each for each in order if judge(self.facts(each), NOW).step in {Step.RUN, Step.RUN_FORCED}]
            if not due:
                return count
            self.run(due[0])
            count += 1


@st.composite
def graphs(draw: st.DrawFn) -> list[Flow]:
    size = draw(st.integers(1, 7))
    flows = []
    for number in range(size):
        upstreams = draw(st.lists(st.integers(0, number - 1), unique=True, max_size=3)) if number else []
        flows.append(Flow(sorted(upstreams), draw(st.sampled_from(list(Mode)))))
    return flows


@settings(deadline=None)
@given(flows=graphs(), data=st.data())
def test_every_history_comes_to_rest_with_nothing_left_to_follow(
    flows: list[Flow], data: st.DataObject
) -> None:
    model = Model(flows)
    numbers = list(range(len(flows)))
    for _ in range(data.draw(st.integers(1, 8))):
        number = data.draw(st.sampled_from(numbers))
        match data.draw(st.sampled_from(["run", "configure", "fail", "heal"])):
            case "run":
                if all(flows[up].version for up in flows[number].upstreams):
                    model.run(number)
            case "configure":
                flows[number].is_own_stale = True
                model.revisions[number] += 1
            case "fail":
                model.fails.add(number)
            case "heal":
                model.fails.discard(number)
        model.settle(data.draw(st.permutations(numbers)))
        for each in numbers:
            model.check_rest(each)


@settings(deadline=None, max_examples=20)
@given(length=st.integers(1, 20), order=st.permutations(list(range(20))))
def test_a_chain_that_follows_its_first_flow_runs_once_per_flow(length: int, order: list[int]) -> None:
    flows = [Flow([], Mode.OFF)] + [Flow([number], Mode.ALL_UPSTREAMS) for number in range(length)]
    model = Model(flows)
    model.run(0)
    numbers = [each for each in order if each <= length] + ([20] if length == 20 else [])
    assert model.settle(numbers) == length
    for _ in range(3):  # a burst
        model.run(0)
    assert model.settle(numbers) == length
    assert model.settle(numbers) == 0
