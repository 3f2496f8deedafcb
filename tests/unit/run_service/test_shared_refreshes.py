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
    refused,
    status_of,
    submitted,
)
from run_service.domain.statuses import RunStatus
from run_service.domain.upstream_waits import Readiness, Upstream, UpstreamPolicy, Verdict, judge

T = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
LATER = T + timedelta(seconds=5)
NEXT_MINUTE = T + timedelta(minutes=1)


@dataclass
class Flow:
    """A flow that has run once, unless it is broken."""

    upstreams: list[int]
    fails: bool = False
    is_broken: bool = False
    is_moving: bool = True  # its next run makes new content, if it reads something new
    is_late: bool = False  # its own data is late
    delivers: bool = False  # its next run finds the data that is late
    is_scheduled: bool = False  # every minute
    version: int = 1
    read: dict[int, int] = field(default_factory=dict)
    number: int = 1
    active: str = ""
    by_schedule: bool = False  # the active run


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

    def has_moved(self, number: int) -> bool:
        return any(self.flows[up].version != seen for up, seen in self.flows[number].read.items())

    def is_ready(self, number: int) -> bool:
        """Return whether a flow is READY, or counts as READY although data is late."""
        flow = self.flows[number]
        return not flow.active and not any(
            other.is_broken or (other.active and not other.by_schedule) or self.has_moved(each)
            for each, other in ((each, self.flows[each]) for each in self.above([number]))
        )

    def is_late(self, number: int) -> bool:
        return any(self.flows[each].is_late for each in self.above([number]))

    def look(self, tick: Tick) -> None:
        """Look at a scheduled time that waits."""
        flows = self.above(tick.upstreams)
        upstreams = {
            (str(each), "refresh"): Upstream(
                str(each),
                self._readiness(each),
                planned_times=[NEXT_MINUTE] if self.flows[each].is_scheduled else [],
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
            is_ahead = {each for each in flows if self._readiness(each) is Readiness.AHEAD}
            tick.fate = "runs" if all(map(self.is_ready, set(flows) - is_ahead)) else "is refused"

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
                above = [self.flows[each] for each in self.above(flow.upstreams)]
                if any(other.by_schedule or (other.is_late and other.active) for other in above):
                    # They run again: a schedule's run, or another refresh that comes to late data later.
                    entries[key] = refused(entry, "UPSTREAM_NOT_READY", "", frozenset({"RUNNING"}))
                    continue
                assert all(map(self.is_ready, flow.upstreams)), "admission refuses a run over stale upstreams"
                flow.number += 1
                flow.active = f"{number}/{flow.number}"
                self.runs[flow.active] = RunState(RunStatus.RUNNING, flow.number)
                self.ran.append(number)
                entries[key] = submitted(entry, flow.active, flow.number, is_joined=False)
        self.refreshes[refresh_id] = entries
        if status_of(entries) is not RefreshStatus.RUNNING:
            self.ended.add(refresh_id)

    def run_by_schedule(self, number: int) -> None:
        """Start the run of a flow that its schedule has every minute."""
        flow = self.flows[number]
        flow.number += 1
        flow.active, flow.by_schedule = f"{number}/{flow.number}", True
        self.runs[flow.active] = RunState(RunStatus.RUNNING, flow.number)

    def end(self, number: int) -> None:
        """End the active run of a flow."""
        flow = self.flows[number]
        status = RunStatus.FAILED if flow.fails else RunStatus.COMPLETED
        self.runs[flow.active] = RunState(status, flow.number)
        reads_news = flow.is_broken or self.has_moved(number)
        flow.active, flow.by_schedule, flow.is_broken = "", False, flow.fails
        if not flow.fails:
            flow.version += (flow.is_moving and reads_news) or (flow.is_late and flow.delivers)
            flow.is_late = flow.is_late and not flow.delivers
            flow.read = {each: self.flows[each].version for each in flow.upstreams}

    def moves(self) -> list[tuple[str, int | str]]:
        """Return what may happen next, apart from what schedules do."""
        return [
            *(("end", number) for number, flow in enumerate(self.flows) if flow.active),
            *(("step", refresh_id) for refresh_id in self.refreshes if refresh_id not in self.ended),
            *(("look", index) for index, tick in enumerate(self.ticks) if not tick.fate),
        ]

    def scheduled_moves(self) -> list[tuple[str, int | str]]:
        """Return what schedules may do next; one of their runs is active at once."""
        if any(flow.by_schedule for flow in self.flows):
            return []
        return [
            ("schedule", number)
            for number, flow in enumerate(self.flows)
            if flow.is_scheduled and not flow.active
        ]

    def make(self, move: str, which: int | str) -> None:
        """Let something happen."""
        match move, which:
            case "end", int(number):
                self.end(number)
            case "schedule", int(number):
                self.run_by_schedule(number)
            case "step", str(refresh_id):
                self.step(refresh_id)
            case _, int(index):
                self.look(self.ticks[index])

    def _readiness(self, number: int) -> Readiness:
        flow = self.flows[number]
        if flow.by_schedule:
            return Readiness.STALE if flow.is_late else Readiness.AHEAD
        if not self.is_ready(number):
            return Readiness.BROKEN if flow.is_broken else Readiness.STALE
        if flow.is_late:
            return Readiness.LATE
        return Readiness.LATE_ABOVE if self.is_late(number) else Readiness.READY

    def _needs_work(self, number: int) -> bool:
        return not self.is_ready(number) or self.is_late(number)

    def _plan(self, targets: Collection[int], planned: Collection[int]) -> dict[FlowKey, Planned]:
        chosen = [each for each in self.above(targets) if each in planned or self._needs_work(each)]
        levels: dict[int, int] = {}
        plan: dict[FlowKey, Planned] = {}
        for each in chosen:
            flow = self.flows[each]
            above = [other for other in self.above(flow.upstreams) if other in levels]
            levels[each] = max((levels[other] + 1 for other in above), default=0)
            status = "running" if flow.active else "error" if flow.is_broken else "stale"
            plan[_key(each)] = Planned(
                str(each),
                status if self._needs_work(each) else "ready",
                run_number=flow.number,
                is_target=each in targets,
                is_late_only=self.is_ready(each) and self.is_late(each),
                has_own_lateness=flow.is_late,
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
            is_late=draw(st.integers(0, 2)) == 0,
            delivers=draw(st.booleans()),
        )
        for number in range(count)
    ]
    for flow in flows:
        is_source = not flow.upstreams and not flow.fails and not flow.is_broken
        flow.is_scheduled = is_source and draw(st.booleans())
    ticks = draw(
        st.lists(st.sets(st.sampled_from(range(count)), min_size=1, max_size=3), min_size=1, max_size=5)
    )
    return World(flows, [Tick(sorted(each)) for each in ticks])


@settings(max_examples=300, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_every_scheduled_time_ends_and_shares_its_runs(world: World, rng: random.Random) -> None:
    broken = [number for number, flow in enumerate(world.flows) if flow.is_broken]
    late = [number for number, flow in enumerate(world.flows) if flow.is_late]
    for tick in world.ticks:  # of one moment: each is looked at before a run has ended
        world.look(tick)
    for _ in range(2_000):
        if not (moves := world.moves()):
            break
        world.make(*rng.choice([*moves, *world.scheduled_moves()]))
    assert all(tick.fate for tick in world.ticks), "a scheduled time waits for ever"
    assert len(world.refreshes) <= len(world.ticks)
    # What completes is run once for all. What fails, or finds no newer data, may be run once more by a refresh that comes to it later.
    for number, times in Counter(world.ran).items():
        is_open = world.flows[number].fails or world.flows[number].is_late
        assert times <= (len(world.refreshes) if is_open else 1), world.ran
    for tick in world.ticks:
        flows = world.above(tick.upstreams)
        has_failed = any(world.flows[each].fails and each in world.ran for each in flows)
        assert tick.fate == ("is refused" if has_failed else "runs")
        if not set(flows) & {*broken, *late}:
            assert not tick.refresh_id, "nothing was stale"
