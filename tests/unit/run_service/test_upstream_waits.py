"""The rule by which a scheduled time waits for its upstream flows, over the product of situations."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from run_service.domain.upstream_waits import FlowKey, Readiness, Upstream, judge

T = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
EARLIER, SAME, LATER = T - timedelta(minutes=1), T, T + timedelta(minutes=1)
TIMES = (None, EARLIER, SAME, LATER)
PRODUCT = [
    Upstream("u", readiness, (planned,) if planned else (), waiting, active, has_retry, follows, is_settling)
    for readiness, planned, waiting, active, (has_retry, follows), is_settling in itertools.product(
        Readiness, TIMES, TIMES, TIMES, ((False, False), (True, False), (False, True)), (False, True)
    )
]


def expected(upstreams: list[Upstream]) -> str:
    """Decide as the words of docs/schedules.md say: the action, in terms of what is true of some upstream or of all."""

    def is_due(each: Upstream) -> bool:
        times = (*each.planned_times, each.waiting_time, each.active_time)
        return each.is_settling or any(time is not None and time <= T for time in times)

    def is_ready(each: Upstream) -> bool:
        return each.readiness in {Readiness.READY, Readiness.AHEAD}

    def is_being_cured(each: Upstream) -> bool:
        times = (*each.planned_times, each.waiting_time, each.active_time)
        has_work = any(time is not None for time in times)
        return not is_ready(each) and (has_work or each.has_retry or each.follows)

    if any(
        each.readiness is Readiness.BROKEN and not is_due(each) and not is_being_cured(each)
        for each in upstreams
    ):
        return "is refused"
    if any(is_due(each) or is_being_cured(each) for each in upstreams):
        return "waits"
    return "runs" if all(map(is_ready, upstreams)) else "is refused"


def decided(upstreams: list[Upstream]) -> str:
    keyed: dict[FlowKey, Upstream] = {(str(index), "refresh"): each for index, each in enumerate(upstreams)}
    verdict = judge(T, keyed)
    if verdict.waits_for:
        assert not verdict.ignored
        assert all(each.reason for each in verdict.waits_for)
        return "waits"
    # Admission refuses what blocks and is not ignored.
    blocking = {key for key, each in keyed.items() if each.readiness is not Readiness.READY}
    assert verdict.ignored == {key for key, each in keyed.items() if each.readiness is Readiness.AHEAD}
    return "is refused" if blocking - verdict.ignored else "runs"


def test_one_upstream_decides_by_its_readiness_and_its_work() -> None:
    for upstream in PRODUCT:
        assert decided([upstream]) == expected([upstream]), upstream


def test_two_upstreams_decide_together() -> None:
    few = [each for each in PRODUCT if not each.is_settling and len(each.planned_times) < 1 + each.has_retry]
    for pair in itertools.product(few, few[::7]):
        assert decided(list(pair)) == expected(list(pair)), pair


def test_a_flow_without_upstreams_runs() -> None:
    assert decided([]) == "runs"


@pytest.mark.parametrize("readiness", [Readiness.READY, Readiness.AHEAD])
def test_work_that_was_submitted_later_holds_no_scheduled_time(readiness: Readiness) -> None:
    assert decided([Upstream("u", readiness, (LATER,), LATER, LATER)]) == "runs"


def test_the_reason_names_the_work() -> None:
    (waited,) = judge(T, {("i", "refresh"): Upstream("prices/refresh", planned_times=(T,))}).waits_for
    assert waited.flow == ("i", "refresh")
    assert waited.name == "prices/refresh"
    assert waited.reason == "its scheduled time 2024-01-02T16:30:00+00:00 has not started yet"
