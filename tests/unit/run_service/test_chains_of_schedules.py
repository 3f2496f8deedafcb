"""Chains of schedules on a fast clock: the rule for waiting in an interpreter, and what its history must show."""

from __future__ import annotations

import bisect
import functools
import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.instance.v1.schedule_pb2 import Schedule
from optaic.rules.scheduled_times import times_between
from run_service.domain.upstream_waits import FlowKey, Readiness, Upstream, judge

_START = datetime(2024, 1, 1, tzinfo=UTC)
_GRACE = timedelta(seconds=120)
_JITTER = 20  # seconds until the flow run of a scheduled time starts, at most


@dataclass(frozen=True)
class Run:
    """A run of a scheduled time, and the newest version of each direct upstream when it began."""

    scheduled_time: datetime
    start_time: datetime
    end_time: datetime
    read: dict[int, int]


@dataclass
class Flow:
    """A flow with a schedule; its versions are numbered from 1, in the order of its runs."""

    expression: str
    upstreams: Sequence[int] = ()
    seconds: Callable[[random.Random], int] = lambda _: 30
    runs: list[Run] = field(default_factory=list)  # that have ended
    active: Run | None = None
    waiting: datetime | None = None
    fates: dict[datetime, tuple[datetime, str]] = field(default_factory=dict)  # by scheduled time

    @property
    def version(self) -> int:
        return len(self.runs)

    @property
    def read(self) -> dict[int, int]:
        return self.runs[-1].read if self.runs else {}


@functools.cache
def _times(expression: str, days: int) -> Sequence[datetime]:
    """Return all scheduled times of some days."""
    schedule = Schedule()
    schedule.cron.expression = expression
    return times_between(schedule, _START, _START + timedelta(days=days))


class Interpreter:
    """Runs flows by their schedules: each scheduled time comes a little late, and waits as `judge` says."""

    def __init__(self, flows: Sequence[Flow], seed: int = 1) -> None:
        self.flows = flows
        self.most_active = 0
        self._rng = random.Random(seed)
        self._now = _START
        self._times: list[Sequence[datetime]] = []
        for number, flow in enumerate(flows):  # everything has run once
            read = dict.fromkeys(flow.upstreams, 1)
            flow.runs.append(Run(_START, _START, _START, read))
            assert all(each < number for each in flow.upstreams)

    def run(self, days: int) -> None:
        """Let time pass, and then let all runs end."""
        self._times = [_times(flow.expression, days) for flow in self.flows]
        order = itertools.count()
        events: list[tuple[datetime, int, int, datetime | None]] = []
        for number, times in enumerate(self._times):
            for time in times:
                delay = timedelta(seconds=self._rng.randint(0, _JITTER))
                events.append((time + delay, next(order), number, time))
        heapq.heapify(events)
        while events:
            self._now, _, number, arrived = heapq.heappop(events)
            started = [] if arrived is None else self._arrive(number, arrived)
            if arrived is None:
                self._end(number)
            for each in [*started, *self._look()]:
                run = self.flows[each].active
                assert run is not None
                heapq.heappush(events, (run.end_time, next(order), each, None))
            self.most_active = max(self.most_active, sum(flow.active is not None for flow in self.flows))
        assert all(flow.waiting is None for flow in self.flows), "a scheduled time waits for ever"

    def ancestors(self, number: int) -> set[int]:
        """Return all upstreams, direct and indirect."""
        found, rest = set[int](), list(self.flows[number].upstreams)
        while rest:
            if (each := rest.pop()) not in found:
                found.add(each)
                rest += self.flows[each].upstreams
        return found

    def _arrive(self, number: int, time: datetime) -> list[int]:
        flow = self.flows[number]
        if flow.waiting is not None:
            self._settle(number, time, "superseded")
            return []
        flow.waiting = time
        return self._turn(number)

    def _end(self, number: int) -> None:
        flow = self.flows[number]
        assert flow.active is not None
        flow.runs.append(flow.active)
        flow.active = None

    def _look(self) -> list[int]:
        started: list[int] = []
        while news := [
            each
            for number, flow in enumerate(self.flows)
            if flow.waiting is not None
            for each in self._turn(number)
        ]:
            started += news
        return started

    def _turn(self, number: int) -> list[int]:
        """Run or settle the scheduled time that waits, if it need not wait; return the flow if it runs."""
        flow = self.flows[number]
        time = flow.waiting
        assert time is not None
        upstreams = self._upstreams(number, time)
        verdict = judge(time, upstreams)
        if verdict.waits_for:
            return []
        flow.waiting = None
        blocking = {key for key, each in upstreams.items() if each.readiness is not Readiness.READY}
        if blocking - verdict.ignored:
            self._settle(number, time, "not ready")
        elif flow.active is not None:
            self._settle(number, time, "run active")
        else:
            read = {each: self.flows[each].version for each in flow.upstreams}
            end = self._now + timedelta(seconds=flow.seconds(self._rng))
            flow.active = Run(time, self._now, end, read)
            self._settle(number, time, "run")
            return [number]
        return []

    def _settle(self, number: int, time: datetime, why: str) -> None:
        self.flows[number].fates[time] = (self._now, why)

    def _upstreams(self, number: int, time: datetime) -> dict[FlowKey, Upstream]:
        return {
            (str(each), "refresh"): Upstream(
                str(each),
                self._readiness(each, time),
                [
                    planned
                    for planned in self._between(each, self._now - _GRACE, max(time, self._now + _GRACE))
                    if planned not in self.flows[each].fates and planned != self.flows[each].waiting
                ],
                self.flows[each].waiting,
                active.scheduled_time if (active := self.flows[each].active) is not None else None,
            )
            for each in self.ancestors(number)
        }

    def _between(self, number: int, after: datetime, until: datetime) -> Sequence[datetime]:
        times = self._times[number]
        return times[bisect.bisect_right(times, after) : bisect.bisect_right(times, until)]

    def _readiness(self, number: int, time: datetime) -> Readiness:
        unread = list(self._unread(number))
        if not unread:
            return Readiness.READY if self.flows[number].active is None else Readiness.AHEAD
        return Readiness.AHEAD if all(each > time for each in unread) else Readiness.STALE

    def _unread(self, number: int) -> Iterator[datetime]:
        """Yield, for each upstream that moved in a flow or above it, when its first unread version was due."""
        for flow in (self.flows[each] for each in (number, *self.ancestors(number))):
            for upstream, version in flow.read.items():
                runs = self.flows[upstream].runs
                if version < len(runs):
                    yield runs[version].scheduled_time


def check_history(world: Interpreter) -> None:
    """Check every run against the words of docs/schedules.md, by the history alone."""
    done = [_done_times(flow) for flow in world.flows]
    for number, flow in enumerate(world.flows):
        for run in flow.runs[1:]:
            for each in world.ancestors(number):
                planned, done_time = done[each]
                if count := bisect.bisect_right(planned, run.scheduled_time):
                    assert done_time[count - 1] <= run.start_time, f"{each} had work up to {run}"
            for each, version in run.read.items():
                ends = [upstream.end_time for upstream in world.flows[each].runs]
                first, last = (
                    bisect.bisect_left(ends, run.start_time),
                    bisect.bisect_right(ends, run.start_time),
                )
                assert first <= version <= last, f"{run} did not read the newest version of {each}"


def _done_times(flow: Flow) -> tuple[list[datetime], list[datetime]]:
    """Return the scheduled times of a flow in order, and when all up to each were done."""
    ends = {run.scheduled_time: run.end_time for run in flow.runs}
    planned = sorted(flow.fates)
    done = [ends[time] if flow.fates[time][1] == "run" else flow.fates[time][0] for time in planned]
    return planned, list(itertools.accumulate(done, max))


def _chain(length: int, expression: str, seconds: Callable[[random.Random], int]) -> list[Flow]:
    return [Flow(expression, [number - 1] if number else [], seconds) for number in range(length)]


def test_a_chain_of_five_levels_at_one_time_runs_in_order_every_day_of_a_year() -> None:
    world = Interpreter(_chain(5, "30 16 * * 1-5", seconds=lambda rng: rng.randint(1, 3600)))
    world.run(366)
    for flow in world.flows:
        assert {why for _, why in flow.fates.values()} == {"run"}
        assert len(flow.fates) == len(flow.runs) - 1 == 262
        assert all(flow.read[each] == world.flows[each].version for each in flow.upstreams)
    assert world.most_active == 1, "a tenant that may have one active run has no deadlock"
    check_history(world)


def test_a_ten_minute_schedule_below_an_hourly_one_misses_nothing() -> None:
    hourly = Flow("0 * * * *", seconds=lambda rng: rng.randint(60, 3000))
    often = Flow("*/10 * * * *", [0])
    world = Interpreter([hourly, often])
    world.run(10)
    assert {why for _, why in hourly.fates.values()} == {"run"}
    assert {why for _, why in often.fates.values()} <= {"run", "superseded", "run active"}
    assert {run.read[0] for run in often.runs} == set(range(1, hourly.version + 1))
    check_history(world)


def test_an_upstream_that_runs_every_minute_starves_nobody() -> None:
    busy = Flow("* * * * *", seconds=lambda rng: rng.randint(45, 50))
    between = Flow("* * * * *", [0], seconds=lambda rng: rng.randint(20, 30))
    hourly = Flow("0 * * * *", [1])
    world = Interpreter([busy, between, hourly])
    world.run(3)
    assert {why for _, why in hourly.fates.values()} == {"run"}
    waits = [run.start_time - run.scheduled_time for run in hourly.runs[1:]]
    assert max(waits) < timedelta(minutes=10)
    check_history(world)


_EXPRESSIONS = ("* * * * *", "*/2 * * * *", "*/7 * * * *", "*/10 * * * *", "0 * * * *", "30 */3 * * *")


@st.composite
def _worlds(draw: st.DrawFn) -> Interpreter:
    flows = []
    for number in range(draw(st.integers(2, 5))):
        upstreams = draw(st.sets(st.sampled_from(range(number)), max_size=2)) if number else set()
        longest = draw(st.sampled_from([1, 30, 90, 600]))
        flows.append(
            Flow(
                draw(st.sampled_from(_EXPRESSIONS)),
                sorted(upstreams),
                lambda rng, longest=longest: rng.randint(1, longest),  # type: ignore[misc]  # its default is its value
            )
        )
    return Interpreter(flows, draw(st.integers(0, 1000)))


@settings(max_examples=8, deadline=None)
@given(_worlds())
def test_no_scheduled_time_is_run_early_and_none_waits_for_ever(world: Interpreter) -> None:
    world.run(1)
    check_history(world)
