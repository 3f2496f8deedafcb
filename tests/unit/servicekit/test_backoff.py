"""Waiting times between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from servicekit.backoff import backoff


def test_the_wait_doubles_up_to_the_longest() -> None:
    assert [backoff(attempt, first=0.5, longest=3.0) for attempt in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(st.integers(1, 10**9))
def test_no_number_of_failures_makes_the_wait_longer_than_the_longest(attempt: int) -> None:
    assert 0.1 <= backoff(attempt, first=0.1, longest=30.0) <= 30.0


@given(st.integers(1, 100), st.floats(0.01, 0.9))
def test_jitter_changes_the_wait_only_slightly(attempt: int, jitter: float) -> None:
    exact = backoff(attempt, first=0.1, longest=5.0)
    assert (
        exact * (1 - jitter)
        <= backoff(attempt, first=0.1, longest=5.0, jitter=jitter)
        <= exact * (1 + jitter)
    )


def test_jitter_spreads_the_waits() -> None:
    assert len({backoff(3, first=0.1, longest=5.0, jitter=0.25) for _ in range(20)}) > 1
