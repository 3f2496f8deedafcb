"""Scheduled times that refresh what is above them, over random graphs, failures and interleavings, with the pure rules alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from run_service.domain.refreshing import (
    UNSETTLED,
    Entry,
    FlowKey,
    Options,
    Planned,
    Progress,
    RefreshStatus,
    RunState,
    advance,
    status_of,
    submitted,
)
from run_service.domain.statuses import RunStatus
from run_service.domain.upstream_waits import Readiness, Upstream, UpstreamPolicy, Verdict, judge

T = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
LATER = T + timedelta(seconds=5)


@dataclass
class Flow:
    """A flow that has run once, unless it is broken."""

    upstreams: list[int]
    fails: bool = False
    is_broken: bool = False
    is_moving: bool = True  # its next run makes new content
    version: int = 1
    read: dict[int, int] = field(default_factory=dict)
    number: int = 1
    active: str = ""


@dataclass
class Tick:
    """A scheduled time below some flows."""

    upstreams: list[int]
    refresh_id: str = ""
    fate: str = ""


class World:
    """Flows, scheduled times below them, and the refreshes that these submit."""

    def __init__(self, flows: list[Flow], ticks: list[Tick]) -> None:
        self.flows, self.ticks = flows, ticks
        self.refreshes: dict[str, dict[FlowKey, Entry]] = {}
        self.ended: set[str] = set()
        self.runs: dict[str, RunState] = {}
        self.ran: list[int] = []  # in order
        for flow in flows:
            flow.read = dict.fromkeys(flow.upstreams, 1)

    def above(self, numbers: Collection[int]) -> list[int]:
        """Return flows and everything above them."""
        found, rest = set[int](), list(numbers)
        while rest:
            if (each := rest.pop()) not in found:
                found.add(each)
                rest += self.flows[each].upstreams
        return sorted(found)

    def is_ready(self, number: int) -> bool:
        return not any(
            flow.is_broken
            or flow.active
            or any(self.flows[up].version != seen for up, seen in flow.read.items())
            for flow in (self.flows[each] for each in self.above([number]))
        )

    def look(self, tick: Tick) -> None:
        """Look at a scheduled time that waits."""
        flows = self.above(tick.upstreams)
        upstreams = {
            (str(each), "refresh"): Upstream(
                str(each),
                self._readiness(each),
                active_time=LATER if self.flows[each].active else None,
                refreshes=frozenset(
                    refresh_id
                    for refresh_id, entries in self.refreshes.items()
                    if (entry := entries.get(_key(each))) is not None and entry.progress in UNSETTLED
                ),
            )
            for each in flows
        }
        verdict: Verdict = judge(T, upstreams, UpstreamPolicy.REFRESH, tick.refresh_id)
        if verdict.submits_refresh:
            tick.refresh_id = f"r{len(self.refreshes)}"
            plan = self._plan(tick.upstreams, ())
            self.refreshes[tick.refresh_id] = advance({}, plan, {}, Options(max_parallel_runs=0))
        elif verdict.joined_refresh_id:
            tick.refresh_id = verdict.joined_refresh_id
        elif not verdict.waits_for:
            tick.fate = "runs" if all(map(self.is_ready, flows)) else "is refused"

    def step(self, refresh_id: str) -> None:
        """Carry a refresh on."""
        entries = self.refreshes[refresh_id]
        targets = [int(key.instance_id) for key, entry in entries.items() if entry.is_target]
        plan = self._plan(targets, [int(key.instance_id) for key in entries])
        entries = advance(entries, plan, self.runs, Options(max_parallel_runs=2))
        for key, entry in entries.items():
            if entry.progress is Progress.RUNNING and not entry.run_id:
                number = int(key.instance_id)
                flow = self.flows[number]
                assert not flow.active, "the plan says which run is active"
                assert all(map(self.is_ready, flow.upstreams)), "admission refuses a run over stale upstreams"
                flow.number += 1
                flow.active = f"{number}/{flow.number}"
                self.runs[flow.active] = RunState(RunStatus.RUNNING, flow.number)
                self.ran.append(number)
                entries[key] = submitted(entry, flow.active, flow.number, is_joined=False)
        self.refreshes[refresh_id] = entries
        if status_of(entries) is not RefreshStatus.RUNNING:
            self.ended.add(refresh_id)

    def end(self, number: int) -> None:
        """End the active run of a flow."""
        flow = self.flows[number]
        status = RunStatus.FAILED if flow.fails else RunStatus.COMPLETED
        self.runs[flow.active] = RunState(status, flow.number)
        flow.active, flow.is_broken = "", flow.fails
        if not flow.fails:
            flow.version += flow.is_moving
            flow.read = {each: self.flows[each].version for each in flow.upstreams}

    def _readiness(self, number: int) -> Readiness:
        if self.is_ready(number):
            return Readiness.READY
        return Readiness.BROKEN if self.flows[number].is_broken else Readiness.STALE

    def _plan(self, targets: Collection[int], planned: Collection[int]) -> dict[FlowKey, Planned]:
        chosen = [each for each in self.above(targets) if each in planned or not self.is_ready(each)]
        levels: dict[int, int] = {}
        plan: dict[FlowKey, Planned] = {}
        for each in chosen:
            flow = self.flows[each]
            above = [other for other in self.above(flow.upstreams) if other in levels]
            levels[each] = max((levels[other] + 1 for other in above), default=0)
            status = "running" if flow.active else "error" if flow.is_broken else "stale"
            plan[_key(each)] = Planned(
                str(each),
                "ready" if self.is_ready(each) else status,
                run_number=flow.number,
                is_target=each in targets,
                upstreams=tuple(map(_key, above)),
                level=levels[each],
                active_run_id=flow.active,
            )
        return plan


def _key(number: int) -> FlowKey:
    return FlowKey(str(number), "refresh")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.integers(1, 6))
    flows = [
        Flow(
            sorted(draw(st.sets(st.sampled_from(range(number)), max_size=2))) if number else [],
            fails=draw(st.integers(0, 5)) == 0,
            is_broken=draw(st.booleans()),
            is_moving=draw(st.booleans()),
        )
        for number in range(count)
    ]
    ticks = draw(
        st.lists(st.sets(st.sampled_from(range(count)), min_size=1, max_size=3), min_size=1, max_size=5)
    )
    return World(flows, [Tick(sorted(each)) for each in ticks])


@settings(max_examples=300, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_every_scheduled_time_ends_and_shares_its_runs(world: World, rng: random.Random) -> None:
    broken = [number for number, flow in enumerate(world.flows) if flow.is_broken]
    for tick in world.ticks:  # of one moment: each is looked at before a run has ended
        world.look(tick)
    for _ in range(2_000):
        moves = [
            *(("end", number) for number, flow in enumerate(world.flows) if flow.active),
            *(("step", refresh_id) for refresh_id in world.refreshes if refresh_id not in world.ended),
            *(("look", index) for index, tick in enumerate(world.ticks) if not tick.fate),
        ]
        if not moves:
            break
        match rng.choice(moves):
            case "end", int(number):
                world.end(number)
            case "step", str(refresh_id):
                world.step(refresh_id)
            case _, int(index):
                world.look(world.ticks[index])
    assert all(tick.fate for tick in world.ticks), "a scheduled time waits for ever"
    assert len(world.refreshes) <= len(world.ticks)
    # What completes is run once for all. What fails may be run once more by a refresh that comes to it later.
    for number, times in Counter(world.ran).items():
        assert times <= (len(world.refreshes) if world.flows[number].fails else 1), world.ran
    for tick in world.ticks:
        flows = world.above(tick.upstreams)
        has_failed = any(world.flows[each].fails and each in world.ran for each in flows)
        assert tick.fate == ("is refused" if has_failed else "runs")
        if not set(flows) & set(broken):
            assert not tick.refresh_id, "nothing was stale"
