"""When a program that does not answer is started again."""

from __future__ import annotations

from devstack.liveness import Liveness, Patience


def _judge_each(liveness: Liveness, problem: str, times: range) -> list[tuple[int, str]]:
    """The verdicts that are none of waiting, with their times."""
    verdicts = [(now, liveness.judge(problem, now)) for now in times]
    return [(now, verdict) for now, verdict in verdicts if verdict != "wait"]


def test_a_program_that_is_silent_for_a_short_time_is_not_restarted() -> None:
    liveness = Liveness(Patience(silent_seconds=60))
    assert _judge_each(liveness, "silent", range(0, 60, 5)) == []
    assert liveness.judge("", 60) == "well"
    assert _judge_each(liveness, "silent", range(65, 120, 5)) == [], "silence is counted anew"


def test_each_restart_within_the_hour_needs_twice_the_silence_and_they_are_bounded() -> None:
    liveness = Liveness(Patience(silent_seconds=60, restarts_per_hour=3))
    found = _judge_each(liveness, "silent", range(0, 2000, 10))
    assert [now for now, verdict in found if verdict == "restart"] == [60, 190, 440]
    assert {verdict for now, verdict in found if now > 440} == {"give up"}


def test_an_hour_later_it_is_restarted_again() -> None:
    liveness = Liveness(Patience(silent_seconds=60, restarts_per_hour=1))
    assert _judge_each(liveness, "silent", range(0, 70, 10)) == [(60, "restart")]
    assert _judge_each(liveness, "silent", range(70, 200, 10))[0] == (190, "give up")
    assert liveness.judge("silent", 3700) == "restart"
