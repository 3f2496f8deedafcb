"""Whose staleness may be accepted, over the product of all states."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lineage_service.domain.acceptance import check_acceptable
from lineage_service.domain.errors import upstream_not_fresh
from lineage_service.domain.flows import Edge, Flow
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.statuses import Activity
from servicekit.errors import HIDDEN, FailedPreconditionError
from servicekit.ids import new_id


def _flow(activity: Activity, version: int, is_fresh: bool) -> Flow:
    key = FlowKey(new_id(), "refresh")
    values: dict[str, Any] = {"activity": activity, "version": version, "is_fresh": is_fresh, "key": key}
    return cast("Flow", SimpleNamespace(**values, instance_name="momentum", run_number=3))


def _refusal(flow: Flow, upstreams: list[Flow]) -> str:
    try:
        check_acceptable(flow, upstreams)
    except FailedPreconditionError as refused:
        return refused.reason
    return ""


def test_a_stale_flow_with_output_and_fresh_upstreams_may_be_accepted_while_it_is_idle() -> None:
    states = itertools.product(Activity, (0, 2), (False, True), (False, True))
    for activity, version, is_fresh, is_upstream_fresh in states:
        upstreams = [_flow(Activity.IDLE, 1, each) for each in (True, is_upstream_fresh)]
        expected = ""
        if activity is Activity.RUNNING:
            expected = "FLOW_IS_RUNNING"
        elif not version:
            expected = "FLOW_WITHOUT_OUTPUT"
        elif is_fresh:
            expected = "FLOW_IS_FRESH"
        elif not is_upstream_fresh:
            expected = "UPSTREAM_NOT_FRESH"
        assert _refusal(_flow(activity, version, is_fresh), upstreams) == expected


def test_a_refusal_tells_a_confined_caller_no_name_of_a_hidden_upstream() -> None:
    theirs, mine = FlowKey(new_id(), "refresh"), FlowKey(new_id(), "refresh")
    error = upstream_not_fresh("momentum", {theirs: "secret", mine: "prices"})
    assert error.without is not None
    told = error.without({theirs.instance_id})
    assert {each.subject for each in told.preconditions} == {HIDDEN, "prices/refresh"}
    assert "secret" not in str(told.preconditions) + told.message


@pytest.mark.parametrize(("accepted", "compared"), [(None, 4), (0, 0), (7, 7)])
def test_freshness_is_compared_with_the_accepted_version_if_there_is_one(
    accepted: int | None, compared: int
) -> None:
    edge = Edge(1, 2, "input", 1, is_connected=True, consumed_version=4, accepted_version=accepted)
    assert edge.compared_version == compared
