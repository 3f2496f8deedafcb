"""Lineage as it was: what the client and `optaic lineage show`, `graph` and `diff` ask, and what they print."""

from datetime import UTC, datetime
from typing import Any

import pytest

from optaic.client import AsyncClient
from optaic.client.moments import moment
from optaic.common.v1.flow_pb2 import (
    FLOW_KIND_REFRESH,
    STATUS_READY,
    STATUS_RUNNING,
    STATUS_STALE,
    FlowRef,
    VersionRef,
)
from optaic.instance.v1.instance_pb2 import EDGE_KIND_DATA, EDGE_KIND_SIGNAL
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.lineage.v1.lineage_pb2 import Edge, FlowState
from optaic.run.v1.run_pb2 import Run
from support.command_line import ID, invoke
from support.fake_services import FakeServices

FLOW = FlowRef(instance_id=ID, flow_kind=FLOW_KIND_REFRESH)
OTHER = FlowRef(instance_id=ID[:-1] + "f", flow_kind=FLOW_KIND_REFRESH)
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def _state(flow: FlowRef, name: str, status: int, version: int) -> FlowState:
    state = FlowState(flow=flow, instance_name=name, status=status)  # type: ignore[arg-type]  # the number of one
    state.current_version.version = version
    return state


def test_a_moment_is_a_revision_a_time_or_what_a_run_saw() -> None:
    assert moment(7) == api.AsOf(revision=7)
    assert moment(Run(lineage_revision=8)) == api.AsOf(revision=8)
    assert moment(NOON).time.ToDatetime(UTC) == NOON
    with pytest.raises(ValueError, match="time zone"):
        moment(NOON.replace(tzinfo=None))
    with pytest.raises(ValueError, match="no lineage revision"):
        moment(Run(run_id="old"))


async def test_all_pages_of_a_difference_are_asked_for(client: AsyncClient, optaic: FakeServices) -> None:
    def answer(request: api.DiffLineageRequest, _context: object) -> api.DiffLineageResponse:
        page = api.DiffLineageResponse(flows=[api.FlowDifference(flow=FLOW)], before_revision=3)
        if not request.page_token:
            page.next_page_token = "more"
        return page

    optaic.on("DiffLineage", answer)
    found = await client.lineage.diff(FLOW, 3)
    assert (len(found.flows), found.before_revision, found.next_page_token) == (2, 3, "")
    first, second = [call.request for call in optaic.calls("DiffLineage")]
    assert (first.page_token, second.page_token) == ("", "more")
    assert first.before == second.before == api.AsOf(revision=3)
    assert not first.HasField("after")


def test_a_state_is_shown_as_of_what_a_run_saw(optaic: FakeServices) -> None:
    state = _state(FLOW, "prices", STATUS_STALE, 4)
    state.causes.add(message="the configuration changed")
    state.as_of_revision = 9
    state.as_of_time.FromDatetime(NOON)
    optaic.on("GetRun", Run(run_id=ID, lineage_revision=9))
    optaic.on("GetFlowState", state)
    lines = invoke("lineage", "show", "prices", "--as-of", ID).stdout.splitlines()
    assert lines[0].startswith("revision 9")
    assert lines[1].split() == ["prices/refresh", "STALE", "version", "4"]
    assert lines[2] == "  the configuration changed"
    (call,) = optaic.calls("GetFlowState")
    assert call.request.as_of == api.AsOf(revision=9)


def test_a_graph_is_shown_as_of_a_time(optaic: FakeServices) -> None:
    edge = Edge(upstream=OTHER, downstream=FLOW, role="input", consumed_version=2)
    states = [_state(FLOW, "signal", STATUS_READY, 4), _state(OTHER, "prices", STATUS_READY, 2)]
    optaic.on("GetLineageGraph", api.GetLineageGraphResponse(flows=states, edges=[edge], as_of_revision=9))
    lines = invoke("lineage", "graph", "prices", "--as-of", "2026-11-29T12:00Z").stdout.splitlines()
    assert lines[2] == "  reads prices/refresh version 2"
    (call,) = optaic.calls("GetLineageGraph")
    assert call.request.as_of.time.ToDatetime(UTC) == NOON


def test_what_is_no_moment_is_refused(optaic: FakeServices) -> None:
    del optaic
    result = invoke("lineage", "show", "prices", "--as-of", "yesterday", status=2)
    assert "is no moment" in result.stderr


def test_a_difference_is_shown_flow_by_flow(optaic: FakeServices) -> None:
    changed = api.FlowDifference(
        flow=FLOW,
        instance_name="signal",
        change=api.LINEAGE_CHANGE_CHANGED,
        before=_state(FLOW, "signal", STATUS_READY, 4),
        after=_state(FLOW, "signal", STATUS_STALE, 5),
    )
    changed.edges.add(upstream=OTHER, upstream_name="prices", after=Edge(role="input", consumed_version=2))
    added = api.FlowDifference(
        flow=OTHER,
        instance_name="prices",
        change=api.LINEAGE_CHANGE_ADDED,
        after=_state(OTHER, "prices", STATUS_READY, 2),
    )
    hidden = api.FlowDifference(flow=OTHER, hidden=True)
    answer = api.DiffLineageResponse(flows=[changed, added, hidden], before_revision=3, after_revision=9)
    optaic.on("DiffLineage", answer)
    assert invoke("lineage", "diff", "prices", "--from", "3").stdout.splitlines() == [
        "revision 3 -> 9",
        "~ signal/refresh: READY -> STALE, version 4 -> 5",
        "    + prices/refresh as input version 2",
        "+ prices/refresh: READY, version 2",
        "~ a flow in a project that you may not read",
    ]


def test_a_difference_needs_its_earlier_moment(optaic: FakeServices) -> None:
    result = invoke("lineage", "diff", "prices", "--from", "", status=2)
    assert "--from" in result.stderr
    assert "a lineage revision" in result.stderr
    assert not optaic.calls("DiffLineage")


def _differing(**other: Any) -> api.FlowDifference:
    """Return a flow in which only this differs, after a moment at which it was fresh and running."""
    running: dict[str, Any] = {
        "flow": FLOW,
        "instance_name": "signal",
        "status": STATUS_RUNNING,
        "is_fresh": True,
        "current_version": VersionRef(version=4, version_id="run 4", compute_fingerprint="one"),
    }
    return api.FlowDifference(
        flow=FLOW,
        instance_name="signal",
        change=api.LINEAGE_CHANGE_CHANGED,
        before=FlowState(**running),
        after=FlowState(**{**running, **other}),
    )


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ({"is_fresh": False}, ": fresh -> not fresh"),
        ({"status": STATUS_STALE, "is_fresh": False}, ": RUNNING -> STALE, fresh -> not fresh"),
        (
            {"current_version": VersionRef(version=4, version_id="run 4", compute_fingerprint="two")},
            ": output of another configuration",
        ),
        (
            {"current_version": VersionRef(version=4, version_id="run 5", compute_fingerprint="one")},
            ": another output as version 4",
        ),
        ({"instance_name": "momentum"}, ": was named signal"),
        ({}, ""),
    ],
)
def test_a_difference_says_what_differs_in_a_flow(
    optaic: FakeServices, other: dict[str, Any], shown: str
) -> None:
    optaic.on("DiffLineage", api.DiffLineageResponse(flows=[_differing(**other)]))
    lines = invoke("lineage", "diff", "prices", "--from", "3").stdout.splitlines()
    assert lines[1:] == [f"~ signal/refresh{shown}"]


def test_a_difference_says_what_differs_in_an_edge(optaic: FakeServices) -> None:
    flow = _differing()
    for role, kind, version in (("input", EDGE_KIND_SIGNAL, 3), ("prices", EDGE_KIND_DATA, 4)):
        flow.edges.add(
            upstream=OTHER,
            upstream_name="prices",
            before=Edge(role=role, kind=EDGE_KIND_DATA, consumed_version=3),
            after=Edge(role=role, kind=kind, consumed_version=version),
        )
    flow.edges.add(upstream=OTHER, hidden=True)
    optaic.on("DiffLineage", api.DiffLineageResponse(flows=[flow]))
    assert invoke("lineage", "diff", "prices", "--from", "3").stdout.splitlines()[1:] == [
        "~ signal/refresh",
        "    ~ prices/refresh as input: DATA -> SIGNAL",
        "    ~ prices/refresh as prices: read version 3 -> 4",
        "    ~ a flow in a project that you may not read",
    ]
