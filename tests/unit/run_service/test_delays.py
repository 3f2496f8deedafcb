"""The delays of run-service, attempt by attempt."""

from datetime import timedelta

import pytest

from run_service.config import Settings
from run_service.domain.retries import RetryPolicy, delay_before_retry
from run_service.reconcile.dispatching import dispatch_delay
from run_service.reconcile.ending import pause_after

ATTEMPTS = range(1, 200)
MANY = 150  # doublings: more than any limit needs


@pytest.mark.parametrize("longest", [0.1, 5.0, 60.0, 3600.0])
def test_dispatch_backs_off_up_to_its_limit(longest: float) -> None:
    limit = timedelta(seconds=longest)
    former = [min(timedelta(seconds=0.5) * (1 << min(attempts - 1, 16)), limit) for attempts in ATTEMPTS]
    assert [dispatch_delay(attempts, limit) for attempts in ATTEMPTS] == former


def test_dispatch_waits_half_a_second_first() -> None:
    limit = timedelta(seconds=Settings.model_fields["dispatch_backoff_seconds"].default)
    waits = [dispatch_delay(attempts, limit).total_seconds() for attempts in (1, 2, 3, 4, 5, 99)]
    assert waits == [0.5, 1, 2, 4, 5, 5]


@pytest.mark.parametrize("first", [0.05, 0.5, 5.0, 7.3, 60.0, 90.0])
def test_ended_runs_are_checked_ever_more_rarely(first: float) -> None:
    former = [
        min(timedelta(seconds=first) * (1 << min(looks, 16)), timedelta(seconds=60)) for looks in range(100)
    ]
    assert [pause_after(looks, first) for looks in range(100)] == former


def test_the_delays_between_checks_of_an_ended_run_are_fixed() -> None:
    first = Settings.model_fields["observe_interval_seconds"].default
    assert [pause_after(looks, first).total_seconds() for looks in range(6)] == [5, 10, 20, 40, 60, 60]


@pytest.mark.parametrize("is_exponential", [True, False])
@pytest.mark.parametrize("delay", [0.001, 0.1, 1 / 3, 1.0, 30.0, 7_200.0])
@pytest.mark.parametrize("longest", [0.0, 1.0, 100.0, 3_600.0, 31_536_000.0])
def test_retry_delays_follow_the_retry_policy(delay: float, longest: float, *, is_exponential: bool) -> None:
    policy = RetryPolicy(MANY, is_exponential, timedelta(seconds=delay), timedelta(seconds=longest))
    former = [
        min(timedelta(seconds=delay) * (1 << doublings), timedelta(seconds=longest))
        for doublings in ((attempt - 1 if is_exponential else 0) for attempt in range(1, 31))
    ]
    assert [delay_before_retry(policy, attempt) for attempt in range(1, 31)] == former
    assert delay_before_retry(policy, MANY) == (policy.max_delay if is_exponential else former[0])
    assert delay_before_retry(policy, MANY + 1) is None
