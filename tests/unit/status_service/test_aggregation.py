"""How flows' statuses become an instance's: over the product of all statuses, and all contracts."""

from itertools import permutations, product

import pytest

from optaic.rules.statuses import SEVERITY
from status_service.domain.statuses import aggregate, is_aggregated, severity_order

_CONTRACTS = [priority for length in range(len(SEVERITY) + 1) for priority in permutations(SEVERITY, length)]


def test_the_known_contract_places_not_initialized_just_before_ready() -> None:
    assert severity_order(("ERROR", "STALE", "RUNNING", "READY")) == SEVERITY


def test_without_a_priority_the_default_order_holds() -> None:
    assert severity_order(()) == SEVERITY


@pytest.mark.parametrize(
    ("priority", "order"),
    [
        (("RUNNING", "ERROR"), ("RUNNING", "ERROR", "STALE", "NOT_INITIALIZED", "READY")),
        (("STALE",), ("ERROR", "STALE", "RUNNING", "NOT_INITIALIZED", "READY")),
        (("NOT_INITIALIZED", "ERROR"), ("NOT_INITIALIZED", "ERROR", "STALE", "RUNNING", "READY")),
        (("READY", "STALE", "ERROR"), ("STALE", "ERROR", "RUNNING", "NOT_INITIALIZED", "READY")),
    ],
)
def test_an_omitted_status_comes_right_after_the_more_severe_ones(
    priority: tuple[str, ...], order: tuple[str, ...]
) -> None:
    assert severity_order(priority) == order


def test_every_severity_order_has_every_status_and_agrees_with_the_contract() -> None:
    for priority in _CONTRACTS:
        order = severity_order(priority)
        assert sorted(order) == sorted(SEVERITY)
        assert order[-1] == "READY"
        kept = [status for status in order if status in priority and status != "READY"]
        assert kept == [status for status in priority if status != "READY"]


def test_an_omitted_status_never_precedes_one_that_is_more_severe_by_default() -> None:
    for priority in _CONTRACTS:
        order = severity_order(priority)
        for missing in set(SEVERITY) - set(priority):
            for above in SEVERITY[: SEVERITY.index(missing)]:
                assert order.index(above) < order.index(missing)


@pytest.mark.parametrize("priority", _CONTRACTS)
def test_the_most_severe_status_wins_for_all_combinations_of_three_flows(priority: tuple[str, ...]) -> None:
    order = severity_order(priority)
    for statuses in product(SEVERITY, repeat=3):
        word = aggregate(statuses, priority)
        assert word in statuses
        assert all(order.index(word) <= order.index(status) for status in statuses)
        assert (word == "READY") == (set(statuses) == {"READY"})


def test_one_flow_gives_its_own_status() -> None:
    for priority in _CONTRACTS:
        for status in SEVERITY:
            assert aggregate([status], priority) == status


def test_an_instance_without_flows_is_not_initialized() -> None:
    assert aggregate([]) == "NOT_INITIALIZED"


def test_only_the_monitoring_of_data_does_not_count() -> None:
    assert not is_aggregated("dataset", "monitoring")
    assert not is_aggregated("signal", "monitoring")
    assert is_aggregated("model", "monitoring")
    assert is_aggregated("dataset", "refresh")
