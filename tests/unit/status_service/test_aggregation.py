"""How flows' statuses become an instance's: over the product of all statuses, and all contracts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import combinations, combinations_with_replacement, permutations, product

import pytest

from optaic.rules.statuses import AGGREGATIONS, REQUIRED_FLOWS, SEVERITY
from status_service.domain.board import Board, Flow, Instance
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


@pytest.mark.parametrize("count", range(7))
def test_the_methods_for_every_multiset_of_up_to_six_flows(count: int) -> None:
    for statuses in combinations_with_replacement(SEVERITY, count):
        worst = aggregate(statuses)
        assert worst == min(statuses, key=SEVERITY.index, default="NOT_INITIALIZED")
        frequent = [status for status in SEVERITY if statuses.count(status) > count / 2]
        for priority in _CONTRACTS:
            judged = aggregate(statuses, priority, "majority")
            assert [judged] == (frequent or [aggregate(statuses, priority)])


def test_the_order_of_flows_makes_no_difference_to_a_majority() -> None:
    for statuses in product(SEVERITY, repeat=4):
        assert aggregate(statuses, (), "majority") == aggregate(sorted(statuses), (), "majority")


def test_of_required_flows_the_most_severe_status_wins_and_the_others_do_not_count() -> None:
    flows = ("training", "inference", "monitoring")
    for statuses in product((*SEVERITY, None), repeat=3):
        for length in range(1, 4):
            for required in combinations(flows, length):
                board = _board(dict(zip(flows, statuses, strict=True)), required)
                counted = [
                    status or "NOT_INITIALIZED"
                    for flow, status in zip(flows, statuses, strict=True)
                    if flow in required
                ]
                assert board.status("i") == min(counted, key=SEVERITY.index)


def _board(statuses: Mapping[str, str | None], required: tuple[str, ...]) -> Board:
    """Return a model with flows of these statuses; those without one are not known yet."""
    model = Instance(
        "i", 1, datetime(2024, 1, 2, tzinfo=UTC), 0, "m", "p", "model", "active", tuple(statuses), (),
        REQUIRED_FLOWS, required,
    )  # fmt: skip
    flows = {flow: Flow(1, status, 1, b"") for flow, status in statuses.items() if status}
    return Board(instances={"i": model}, flows={"i": flows})


def test_one_flow_gives_its_own_status() -> None:
    for priority in _CONTRACTS:
        for status in SEVERITY:
            for method in AGGREGATIONS:
                assert aggregate([status], priority, method) == status


def test_an_instance_without_flows_is_not_initialized() -> None:
    assert {aggregate([], (), method) for method in AGGREGATIONS} == {"NOT_INITIALIZED"}


def test_only_the_monitoring_of_data_does_not_count() -> None:
    assert not is_aggregated("dataset", "monitoring")
    assert not is_aggregated("signal", "monitoring")
    assert is_aggregated("model", "monitoring")
    assert not is_aggregated("model", "monitoring", ("training",))
    assert is_aggregated("model", "training", ("training",))
    assert is_aggregated("dataset", "refresh")
