"""How a refresh goes on: every state of one flow, and random graphs with random outcomes against a model."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace

import pytest
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
    Skip,
    advance,
    refused,
    resumed,
    skipped,
    status_of,
    submitted,
)
from run_service.domain.statuses import ENDED, RunStatus

UP, DOWN = FlowKey("up", "refresh"), FlowKey("down", "refresh")
STATUSES = ("ready", "stale", "error", "running", "not_initialized")


def planned(status: str = "stale", **fields: object) -> Planned:
    return replace(Planned("i", status, f"it is {status}"), **fields)  # type: ignore[arg-type]  # as each test gives them


def one(entry: Entry, plan: Planned | None, run: RunState | None = None, **options: object) -> Entry:
    runs = {} if run is None else {"r": run}
    return advance({UP: entry}, {} if plan is None else {UP: plan}, runs, Options(**options))[UP]  # type: ignore[arg-type]  # as each test gives them


@pytest.mark.parametrize(
    ("status", "late", "own", "forced"),
    list(itertools.product(STATUSES, (False, True), (False, True), (False, True))),
)
def test_waiting_flow_with_nothing_above(status: str, late: bool, own: bool, forced: bool) -> None:
    found = one(Entry(), planned(status, is_late_only=late, has_own_lateness=own), is_forced=forced)
    if forced:
        expected = (Progress.RUNNING, Skip.NONE)
    elif status == "ready":
        expected = (Progress.SKIPPED, Skip.READY)
    elif status == "stale" and late and not own:
        expected = (Progress.SKIPPED, Skip.NOTHING_NEW)
    else:
        expected = (Progress.RUNNING, Skip.NONE)
    assert (found.progress, found.skip) == expected
    assert found.attempt == (found.progress is Progress.RUNNING)


def test_active_run_is_joined_and_not_submitted() -> None:
    found = one(Entry(), planned("running", run_number=3, active_run_id="r"))
    assert (found.progress, found.run_id, found.run_number, found.is_joined) == (
        Progress.RUNNING,
        "r",
        3,
        True,
    )
    assert found.attempt == 0


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("run", list(RunStatus))
def test_flow_with_a_run(run: RunStatus, status: str, known: bool, late: bool, joined: bool) -> None:
    entry = Entry("i", Progress.RUNNING, run_id="r", run_number=3, is_joined=joined, attempt=1)
    plan = planned(status, run_number=3 if known else 2, is_late_only=late)
    # No room, so that what waits again is seen to wait.
    found = one(entry, plan, RunState(run, 3, "E: no"), max_parallel_runs=0)
    if run not in ENDED or (run is RunStatus.COMPLETED and (not known or status == "running")):
        assert found == entry
    elif run is RunStatus.FAILED or (run is RunStatus.CANCELLED and not joined):
        assert found.progress is Progress.FAILED
    elif run is RunStatus.CANCELLED:
        assert found.progress in {Progress.WAITING, Progress.SKIPPED}
    elif status == "ready":
        assert found.progress is Progress.COMPLETED
    elif status == "stale" and late:
        assert found.progress is Progress.COMPLETED_LATE
    else:
        assert found.progress is (Progress.WAITING if joined else Progress.COMPLETED)


def test_failed_run_with_a_retry_is_followed() -> None:
    entry = Entry("i", Progress.RUNNING, run_id="r", run_number=3)
    failed = RunState(RunStatus.FAILED, 3, "E: no", will_retry=True)
    assert one(entry, planned("error", run_number=3), failed) == entry
    followed = one(
        entry, planned("running", run_number=4), replace(failed, will_retry=False, next_run_id="s")
    )
    assert (followed.progress, followed.run_id, followed.run_number) == (Progress.RUNNING, "s", 4)


def test_flow_that_is_gone_is_skipped() -> None:
    for entry, run in (
        (Entry(), None),
        (Entry(progress=Progress.RUNNING, run_id="r"), RunState(RunStatus.CANCELLED, 1)),
    ):
        found = one(entry, None, run)
        assert (found.progress, found.skip) == (Progress.SKIPPED, Skip.DELETED)


@pytest.mark.parametrize("above", list(Progress))
@pytest.mark.parametrize("status", STATUSES)
def test_flow_below_another_one(status: str, above: Progress) -> None:
    upper = Entry(
        "up",
        above,
        Skip.READY if above is Progress.SKIPPED else Skip.NONE,
        run_id="r" if above is Progress.RUNNING else "",
    )
    plan = {UP: planned("running"), DOWN: planned(status, upstreams=(UP,), level=1)}
    runs = {"r": RunState(RunStatus.RUNNING, 1)}
    # A waiting upper one gets the only place.
    found = advance({UP: upper, DOWN: Entry()}, plan, runs, Options(max_parallel_runs=1))[DOWN]
    if above in UNSETTLED:
        assert found.progress is Progress.WAITING
    elif status == "ready":
        assert found.progress is Progress.SKIPPED
    elif above in {Progress.FAILED, Progress.BLOCKED}:
        assert found.progress is Progress.BLOCKED
    else:
        assert found.progress is Progress.RUNNING


def test_refused_flow_is_blocked_unless_the_next_plan_has_something_above_it() -> None:
    entry = refused(
        Entry(progress=Progress.RUNNING, attempt=1), "UPSTREAM_NOT_READY", "no", frozenset({"STALE"})
    )
    assert one(entry, planned()).progress is Progress.BLOCKED
    plan = {UP: planned(), DOWN: planned(upstreams=(UP,), level=1)}
    again = advance({DOWN: entry}, plan, {}, Options())
    assert again[UP].progress is Progress.RUNNING
    assert (again[DOWN].progress, again[DOWN].is_refused) == (Progress.WAITING, False)


@pytest.mark.parametrize(
    ("reason", "statuses", "progress"),
    [
        ("UPSTREAM_NOT_READY", {"RUNNING", "STALE"}, Progress.RUNNING),  # waits, and is tried again
        ("UPSTREAM_NOT_READY", {"STALE"}, Progress.BLOCKED),
        ("TOO_MANY_ACTIVE_RUNS", set(), Progress.RUNNING),
        ("INSTANCE_DELETING", set(), Progress.SKIPPED),
        ("INSTANCE_NOT_FOUND", set(), Progress.SKIPPED),
        ("FLOW_NOT_FOUND", set(), Progress.SKIPPED),
        ("PERMISSION_DENIED", set(), Progress.FAILED),
    ],
)
def test_refusals(reason: str, statuses: set[str], progress: Progress) -> None:
    entry = refused(Entry(progress=Progress.RUNNING, attempt=1), reason, "no", frozenset(statuses))
    assert one(entry, planned()).progress is progress


def test_resuming_opens_what_is_not_done() -> None:
    for progress in Progress:
        entry = Entry(
            progress=progress, run_id="r", skip=Skip.READY if progress is Progress.SKIPPED else Skip.NONE
        )
        is_open = progress in {Progress.FAILED, Progress.BLOCKED}
        assert (resumed(entry).progress is Progress.WAITING) is (is_open or progress is Progress.WAITING)
    for skip in set(Skip) - {Skip.NONE}:
        is_open = skip in {Skip.STOPPED, Skip.CANCELLED}
        assert (resumed(skipped(Entry(), skip, "")).progress is Progress.WAITING) is is_open


@dataclass
class World:
    """A graph in which runs end as a test says; it knows freshness by comparing versions, and nothing of refreshes."""

    upstreams: list[list[int]]
    version: list[int]
    read: list[dict[int, int]]
    config: list[bool]  # true: its own configuration has changed
    failed: list[bool] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    active: dict[int, tuple[str, dict[int, int]]] = field(default_factory=dict)
    runs: dict[str, RunState] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    started: list[int] = field(default_factory=list)

    def is_fresh(self, flow: int) -> bool:
        current = {up: self.version[up] for up in self.upstreams[flow]}
        return (
            self.version[flow] > 0
            and not self.config[flow]
            and self.read[flow] == current
            and all(self.is_fresh(up) for up in self.upstreams[flow])
        )

    def status(self, flow: int) -> str:
        if flow in self.active:
            return "running"
        if self.failed[flow]:
            return "error"
        if not self.version[flow]:
            return "not_initialized"
        return "ready" if self.is_fresh(flow) else "stale"

    def plan(self) -> dict[FlowKey, Planned]:
        levels: list[int] = []
        for above in self.upstreams:
            levels.append(max((levels[up] + 1 for up in above), default=0))
        return {
            key_of(flow): Planned(
                f"i{flow}",
                self.status(flow),
                "",
                self.numbers[flow],
                upstreams=tuple(map(key_of, above)),
                active_run_id=self.active[flow][0] if flow in self.active else "",
                level=levels[flow],
            )
            for flow, above in enumerate(self.upstreams)
        }

    def submit(self, flow: int, request: str) -> Entry | None:
        """Admit a run as run-service does; None if an upstream is not ready."""
        if request in self.requests:
            run_id = self.requests[request]
            return Entry(run_id=run_id, run_number=self.runs[run_id].run_number)
        if flow in self.active:
            run_id = self.active[flow][0]
            return Entry(run_id=run_id, run_number=self.numbers[flow], is_joined=True)
        if any(self.status(up) != "ready" for up in self.upstreams[flow]):
            return None
        self.numbers[flow] += 1
        run_id = f"{flow}/{self.numbers[flow]}"
        self.active[flow] = (run_id, {up: self.version[up] for up in self.upstreams[flow]})
        self.runs[run_id] = RunState(RunStatus.RUNNING, self.numbers[flow])
        self.requests[request] = run_id
        self.started.append(flow)
        return Entry(run_id=run_id, run_number=self.numbers[flow])

    def end(self, flow: int, outcome: str) -> None:
        run_id, read = self.active.pop(flow)
        self.failed[flow] = outcome == "fails"
        if outcome != "fails":
            self.version[flow] += outcome == "moves" or not self.version[flow]
            self.read[flow], self.config[flow] = read, False
        status = RunStatus.FAILED if outcome == "fails" else RunStatus.COMPLETED
        self.runs[run_id] = RunState(status, self.runs[run_id].run_number, "E: no")


def key_of(flow: int) -> FlowKey:
    return FlowKey(str(flow), "refresh")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.integers(1, 8))
    upstreams = [
        sorted(draw(st.sets(st.integers(0, flow - 1), max_size=3))) if flow else [] for flow in range(count)
    ]
    world = World(upstreams, [0] * count, [{} for _ in range(count)], [False] * count)
    world.failed, world.numbers = [False] * count, [0] * count
    for flow in range(count):
        if draw(st.booleans()):
            world.version[flow] = 1
            world.read[flow] = {
                up: draw(st.integers(max(0, world.version[up] - 1), world.version[up]))
                for up in upstreams[flow]
            }
            world.config[flow] = draw(st.booleans())
    return world


@settings(max_examples=300, deadline=None)
@given(
    world=worlds(),
    seed=st.integers(0, 2**32),
    forced=st.booleans(),
    stops=st.booleans(),
    most=st.integers(1, 3),
)
def test_refresh_of_everything_ends_as_it_must(
    world: World, seed: int, forced: bool, stops: bool, most: int
) -> None:
    """Random graphs, outcomes and crashes: what was stored may be older than what was submitted."""
    options = Options(is_forced=forced, stops_on_failure=stops, max_parallel_runs=most)
    before = [world.status(flow) for flow in range(len(world.upstreams))]
    entries = carried_out(world, options, random.Random(seed))
    assert status_of(entries) is not RefreshStatus.RUNNING
    assert not world.active
    assert len(world.started) == len(set(world.started)), "a flow was run twice"
    for flow in range(len(world.upstreams)):
        check_end(world, entries, flow, stops=stops)
        if not forced and before[flow] == "ready" and flow in world.started:
            assert any(up in world.started for up in world.upstreams[flow])
    if any(world.failed):
        assert status_of(entries) is RefreshStatus.FAILED
    else:
        assert status_of(entries) is RefreshStatus.COMPLETED
        assert all(world.status(flow) == "ready" for flow in range(len(world.upstreams)))


def carried_out(world: World, options: Options, chance: random.Random) -> dict[FlowKey, Entry]:
    """Carry a refresh on until it has ended, with runs that end by chance, and crashes after submissions."""
    entries: dict[FlowKey, Entry] = {}
    for _ in range(1_000):
        entries = advance(entries, world.plan(), world.runs, options)
        if status_of(entries) is not RefreshStatus.RUNNING:
            break
        running = [key for key, entry in entries.items() if entry.progress is Progress.RUNNING]
        assert len(running) <= options.max_parallel_runs
        for key in running:
            if (
                not entries[key].run_id and chance.random() < 0.7
            ):  # otherwise it crashes before it has submitted it
                outcome = submit_in(world, key, entries[key])
                entries[key] = outcome if chance.random() < 0.7 else entries[key]  # or after that
        for flow in sorted(world.active):
            if chance.random() < 0.5:
                world.end(flow, chance.choice(["moves", "moves", "stays", "stays", "fails"]))
    return entries


def submit_in(world: World, key: FlowKey, entry: Entry) -> Entry:
    flow = int(key.instance_id)
    outcome = world.submit(flow, f"{flow}/{entry.attempt}")
    if outcome is None:
        statuses = {world.status(up).upper() for up in world.upstreams[flow]}
        return refused(entry, "UPSTREAM_NOT_READY", "", frozenset(statuses - {"READY"}))
    return submitted(entry, outcome.run_id, outcome.run_number, is_joined=outcome.is_joined)


def check_end(world: World, entries: dict[FlowKey, Entry], flow: int, *, stops: bool) -> None:
    """Check that a flow of an ended refresh has the only progress that fits what happened to it."""
    entry = entries[key_of(flow)]
    assert (flow in world.started) == (entry.progress in {Progress.COMPLETED, Progress.FAILED})
    if entry.skip is Skip.STOPPED:
        assert stops
        assert any(world.failed)
    elif entry.progress in {Progress.COMPLETED, Progress.SKIPPED}:
        assert world.status(flow) == "ready"
    elif entry.progress is Progress.BLOCKED:
        above = {entries[key_of(up)].progress for up in world.upstreams[flow]}
        assert above & {Progress.FAILED, Progress.BLOCKED}
