"""The rule by which a scheduled time waits for its upstream flows, over the product of situations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from run_service.domain.upstream_waits import FlowKey, Readiness, Upstream, UpstreamPolicy, Verdict, judge

T = datetime(2024, 1, 2, 16, 30, tzinfo=UTC)
EARLIER, SAME, LATER = T - timedelta(minutes=1), T, T + timedelta(minutes=1)
TIMES = (None, EARLIER, SAME, LATER)
# Whether a retry follows, whether it runs by itself, and which refreshes have yet to bring it up to date.
CURES = (
    (False, False, frozenset[str]()),
    (True, False, frozenset[str]()),
    (False, True, frozenset[str]()),
    (False, False, frozenset({"r1"})),
)
PRODUCT = [
    Upstream(
        "u",
        readiness,
        (planned,) if planned else (),
        waiting,
        active,
        has_retry,
        follows,
        refreshes,
        is_settling=is_settling,
    )
    for readiness, planned, waiting, active, (
        has_retry,
        follows,
        refreshes,
    ), is_settling in itertools.product(Readiness, TIMES, TIMES, TIMES, CURES, (False, True))
]
LATE = {Readiness.LATE, Readiness.LATE_ABOVE}
FEW = [
    each
    for each in PRODUCT
    if not each.is_settling
    and len(each.planned_times) < 1 + each.has_retry
    and EARLIER not in (each.waiting_time, each.active_time)
]


def expected(upstreams: list[Upstream]) -> str:
    """Decide as the words of docs/schedules.md say: the action, in terms of what is true of some upstream or of all."""

    def is_due(each: Upstream) -> bool:
        times = (*each.planned_times, each.waiting_time, each.active_time)
        return each.is_settling or any(time is not None and time <= T for time in times)

    def is_ready(each: Upstream) -> bool:
        return each.readiness in {Readiness.READY, Readiness.AHEAD, *LATE}

    def is_being_cured(each: Upstream) -> bool:
        times = (*each.planned_times, each.waiting_time, each.active_time)
        has_work = any(time is not None for time in times)
        return not is_ready(each) and bool(has_work or each.has_retry or each.follows or each.refreshes)

    if any(
        each.readiness is Readiness.BROKEN and not is_due(each) and not is_being_cured(each)
        for each in upstreams
    ):
        return "is refused"
    if any(is_due(each) or is_being_cured(each) for each in upstreams):
        return "waits"
    return "runs" if all(map(is_ready, upstreams)) else "is refused"


def decided(upstreams: list[Upstream]) -> str:
    flows = keyed(upstreams)
    verdict = judge(T, flows)
    if verdict.waits_for:
        assert not verdict.ignored
        assert all(each.reason for each in verdict.waits_for)
        return "waits"
    # Admission refuses what blocks and is not ignored.
    blocking = {key for key, each in flows.items() if each.readiness not in {Readiness.READY, *LATE}}
    assert verdict.ignored == {key for key, each in flows.items() if each.readiness is Readiness.AHEAD}
    return "is refused" if blocking - verdict.ignored else "runs"


def test_one_upstream_decides_by_its_readiness_and_its_work() -> None:
    for upstream in PRODUCT:
        assert decided([upstream]) == expected([upstream]), upstream


def test_two_upstreams_decide_together() -> None:
    for pair in itertools.product(FEW, FEW[::11]):
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


def keyed(upstreams: Iterable[Upstream]) -> dict[FlowKey, Upstream]:
    return {(str(index), "refresh"): each for index, each in enumerate(upstreams)}


def pairs() -> Iterator[tuple[Upstream, Upstream, Verdict]]:
    """Yield two upstreams in many situations, and the verdict on a scheduled time that has had no refresh."""
    others = [replace(each, may_be_refreshed=False) for each in FEW[::13]]
    for first, second in itertools.product(FEW, [*FEW[::17], *others]):
        yield first, second, judge(T, keyed([first, second]), UpstreamPolicy.REFRESH)


def may_gain(upstream: Upstream) -> bool:
    is_candidate = upstream.readiness in {Readiness.LATE, Readiness.STALE, Readiness.BROKEN}
    return upstream.may_be_refreshed and is_candidate


def is_due(upstream: Upstream) -> bool:
    times = (*upstream.planned_times, upstream.waiting_time, upstream.active_time)
    return upstream.is_settling or any(time is not None and time <= T for time in times)


def test_a_refresh_comes_after_all_other_work() -> None:
    for *upstreams, verdict in pairs():
        if verdict.submits_refresh or verdict.joined_refresh_id:
            assert any(map(may_gain, upstreams)), upstreams
            assert not any(map(is_due, upstreams)), upstreams
            for each in filter(may_gain, upstreams):
                is_planned = each.planned_times or each.waiting_time or each.has_retry
                counts_as_ready = each.readiness is Readiness.LATE  # so that only what was due counts
                assert each.refreshes or counts_as_ready or not is_planned, upstreams
            assert len(verdict.waits_for) >= sum(map(may_gain, upstreams)), upstreams


def test_a_refresh_is_joined_only_if_it_has_all_that_is_stale() -> None:
    joined = 0
    for *upstreams, verdict in pairs():
        if verdict.joined_refresh_id:
            joined += 1
            assert all(verdict.joined_refresh_id in each.refreshes for each in filter(may_gain, upstreams))
            assert not verdict.submits_refresh
    assert joined


def test_without_something_to_refresh_the_rule_is_that_of_waiting() -> None:
    for *upstreams, verdict in pairs():
        waits = judge(T, keyed(upstreams))
        if not any(map(may_gain, upstreams)):
            assert verdict == waits, upstreams
        if not verdict.waits_for:
            assert verdict == waits, upstreams
        # It refuses nothing that would wait without it.
        assert verdict.waits_for or not waits.waits_for, upstreams


def test_what_waiting_runs_is_run_or_refreshed_and_awaits_no_later_work() -> None:
    late = [each for each in PRODUCT if each.readiness in LATE]
    ready = {Readiness.READY, Readiness.AHEAD, *LATE}
    singles = ([each] for each in late)
    for upstreams in (*singles, *(list(some) for *some, _ in pairs())):
        flows = keyed(upstreams)
        if judge(T, flows).waits_for or any(each.readiness not in ready for each in upstreams):
            continue
        verdict = judge(T, flows, UpstreamPolicy.REFRESH)
        has_refresh = verdict.submits_refresh or bool(verdict.joined_refresh_id)
        assert has_refresh == any(map(may_gain, upstreams)), upstreams
        assert bool(verdict.waits_for) == has_refresh, upstreams


def test_late_data_that_is_scheduled_every_minute_is_refreshed_at_once() -> None:
    for each in (
        Upstream("u", Readiness.LATE, planned_times=(LATER,)),
        Upstream("u", Readiness.LATE, waiting_time=LATER),
        Upstream("u", Readiness.LATE, active_time=LATER),
    ):
        assert judge(T, keyed([each]), UpstreamPolicy.REFRESH).submits_refresh, each
        due = replace(each, planned_times=(T,))
        assert not judge(T, keyed([due]), UpstreamPolicy.REFRESH).submits_refresh, due


def test_a_refresh_of_other_flows_holds_none_whose_data_is_late() -> None:
    one = Upstream("one", Readiness.LATE, refreshes=frozenset({"r1"}))
    other = Upstream("other", Readiness.LATE, refreshes=frozenset({"r2"}))
    assert judge(T, keyed([one, other]), UpstreamPolicy.REFRESH).submits_refresh
    both = replace(other, refreshes=frozenset({"r1", "r2"}))
    verdict = judge(T, keyed([one, both]), UpstreamPolicy.REFRESH)
    assert (verdict.submits_refresh, verdict.joined_refresh_id) == (False, "r1")
    assert [each.name for each in verdict.waits_for] == ["one", "other"]


def test_what_no_refresh_may_run_refuses_at_once() -> None:
    lost = Upstream("elsewhere", Readiness.BROKEN, may_be_refreshed=False)
    for each in FEW:
        assert judge(T, keyed([each, lost]), UpstreamPolicy.REFRESH) == judge(T, keyed([each, lost]))


def test_after_its_refresh_the_rule_is_that_of_waiting() -> None:
    for first, second in itertools.product(FEW, FEW[::17]):
        upstreams = keyed([first, second])
        assert judge(T, upstreams, UpstreamPolicy.REFRESH, "over") == judge(T, upstreams)


def test_every_flow_that_its_refresh_has_yet_to_look_at_is_awaited() -> None:
    for each in PRODUCT:
        own = replace(each, refreshes=frozenset({"own"}))
        verdict = judge(T, keyed([own]), UpstreamPolicy.REFRESH, "own")
        assert [waited.name for waited in verdict.waits_for] == ["u"]
        assert not verdict.submits_refresh


def test_late_data_is_refreshed_with_what_is_below_it() -> None:
    late, below = Upstream("prices", Readiness.LATE), Upstream("clean", Readiness.LATE_ABOVE)
    verdict = judge(T, keyed([late, below]), UpstreamPolicy.REFRESH)
    assert verdict.submits_refresh
    assert [waited.name for waited in verdict.waits_for] == ["prices", "clean"]
    others = replace(late, may_be_refreshed=False)
    assert judge(T, keyed([others, below]), UpstreamPolicy.REFRESH) == Verdict()
    assert judge(T, keyed([late, below])) == Verdict()
