"""The limits of one tenant leave the others alone, and come back with time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from structlog.testing import capture_logs

from servicekit.errors import ResourceExhaustedError
from servicekit.quotas import Limits, Quotas
from servicekit.refusals import Refusals

PEOPLE, WORKER, SERVICE = {"researcher"}, {"executor"}, {"service"}


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def call(quotas: Quotas, tenant_id: str = "acme", roles: set[str] = PEOPLE) -> None:
    with quotas.take(tenant_id, roles, is_stream=False):
        pass


def test_a_quiet_tenant_may_make_two_seconds_of_calls_at_once_and_then_waits_for_the_next() -> None:
    clock = Clock()
    quotas = Quotas(Limits(calls_per_second=10), clock)
    for _ in range(20):
        call(quotas)
    with pytest.raises(ResourceExhaustedError) as refusal:
        call(quotas)
    assert refusal.value.reason == "RATE_LIMITED"
    assert refusal.value.retry_seconds == pytest.approx(0.1)
    clock.seconds += 0.11
    call(quotas)
    with pytest.raises(ResourceExhaustedError):
        call(quotas)


def test_workers_and_other_tenants_have_calls_of_their_own_and_services_no_limit() -> None:
    quotas = Quotas(Limits(calls_per_second=1), Clock())
    for tenant_id, roles in (("acme", PEOPLE), ("acme", WORKER), ("other", PEOPLE)):
        call(quotas, tenant_id, roles)
        call(quotas, tenant_id, roles)
        with pytest.raises(ResourceExhaustedError):
            call(quotas, tenant_id, roles)
    for _ in range(10):
        call(quotas, "acme", SERVICE)


@pytest.mark.parametrize(("is_stream", "reason"), [(False, "TOO_MANY_CALLS"), (True, "TOO_MANY_STREAMS")])
def test_one_more_at_once_is_refused_until_one_ends(is_stream: bool, reason: str) -> None:
    quotas = Quotas(Limits(calls=2, streams=2))
    with ExitStack() as under_way:
        for _ in range(2):
            under_way.enter_context(quotas.take("acme", PEOPLE, is_stream=is_stream))
        with (
            pytest.raises(ResourceExhaustedError) as refusal,
            quotas.take("acme", PEOPLE, is_stream=is_stream),
        ):
            pass
        assert (refusal.value.reason, refusal.value.metadata) == (reason, {"limit": "2"})
        assert refusal.value.retry_seconds
        with quotas.take("other", PEOPLE, is_stream=is_stream):
            pass
        with quotas.take("acme", PEOPLE, is_stream=not is_stream):
            pass
    with quotas.take("acme", PEOPLE, is_stream=is_stream):
        pass


def test_a_call_that_fails_gives_its_place_back() -> None:
    quotas = Quotas(Limits(calls=1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), quotas.take("acme", PEOPLE, is_stream=False):
            raise ZeroDivisionError


def test_zero_is_no_limit() -> None:
    quotas = Quotas(Limits())
    with ExitStack() as under_way:
        for _ in range(3_000):
            under_way.enter_context(quotas.take("acme", PEOPLE, is_stream=True))


def test_refusals_are_counted_in_one_line_of_the_log_each_minute() -> None:
    refusals = Refusals()
    quotas = Quotas(Limits(calls=1), refusals=refusals)
    with capture_logs() as lines, quotas.take("acme", PEOPLE, is_stream=False):
        for _ in range(100):
            with pytest.raises(ResourceExhaustedError):
                call(quotas)
        assert not lines
        refusals.report()
        refusals.report()
    (line,) = lines
    assert (line["event"], line["tenant"], line["reason"]) == ("calls refused", "acme", "TOO_MANY_CALLS")
    assert line["count"] == 100


def test_other_refused_calls_have_a_line_each_until_there_are_too_many() -> None:
    refusals = Refusals()
    with capture_logs() as lines:
        assert sum(refusals.may_log("acme", "PERMISSION_DENIED") for _ in range(1_000)) == 60
        assert refusals.may_log("other", "PERMISSION_DENIED")
        refusals.report()
        assert refusals.may_log("acme", "PERMISSION_DENIED")
    assert [(line["tenant"], line["count"]) for line in lines] == [("acme", 940)]


def test_idle_tenants_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.quotas._MOST_CALLERS", 10)
    clock = Clock()
    quotas = Quotas(Limits(calls_per_second=1), clock)
    for number in range(100):
        clock.seconds += 10
        call(quotas, f"tenant{number}")
    assert len(quotas._uses) <= 11
