"""When a loop gathers: as soon as it is saturated, and not before."""

from __future__ import annotations

import pytest

from servicekit.pace import SHARE, Pace


class _Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def _work(clock: _Clock, pace: Pace, seconds: float) -> None:
    with pace.working():
        clock.now += seconds


def test_a_loop_with_little_to_do_never_gathers_however_close_two_events_are() -> None:
    clock = _Clock()
    pace = Pace(clock)
    for _ in range(1_000):
        for _ in range(2):
            _work(clock, pace, 0.005)
            assert pace.gathering_seconds() == 0.0
        clock.now += 0.04


def test_a_burst_is_applied_at_once_until_the_loop_has_worked_for_half_of_the_time() -> None:
    clock = _Clock()
    pace = Pace(clock)
    worked = 0.0
    while not pace.gathering_seconds():
        _work(clock, pace, 0.005)
        worked += 0.005
    assert worked == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("taken", [0.002, 0.02, 0.08])
def test_a_saturated_loop_works_for_its_share_of_the_time(taken: float) -> None:
    clock = _Clock()
    pace = Pace(clock)
    _work(clock, pace, 5.0)
    clock.now += pace.gathering_seconds()
    began, worked = clock.now, 0.0
    for _ in range(2_000):
        _work(clock, pace, taken)
        worked += taken
        assert pace.is_saturated
        clock.now += pace.gathering_seconds()
    assert worked / (clock.now - began) == pytest.approx(SHARE, rel=0.05)


def test_a_loop_ceases_to_gather_soon_after_its_load_has_gone() -> None:
    clock = _Clock()
    pace = Pace(clock)
    _work(clock, pace, 5.0)
    assert pace.gathering_seconds() > 0
    clock.now += 2.0
    _work(clock, pace, 0.005)
    assert pace.gathering_seconds() == 0.0


def test_no_piece_of_work_however_long_makes_a_loop_gather_for_more_than_a_quarter_of_a_second() -> None:
    clock = _Clock()
    pace = Pace(clock)
    _work(clock, pace, 60.0)
    assert pace.gathering_seconds() == pytest.approx(0.25)


def test_failed_work_counts_as_work() -> None:
    clock = _Clock()
    pace = Pace(clock)
    with pytest.raises(ZeroDivisionError), pace.working():  # noqa: PT012 - the failing work is the statement
        clock.now += 5.0
        raise ZeroDivisionError
    assert pace.is_saturated
