"""A run of a range of dates: what it leaves unread, over the product of what a flow may be in."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lineage_service.domain.causes import CauseKind, Graph, local_causes
from lineage_service.domain.flows import Edge, Flow
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input, Phase, Progress, RunFact, advance
from servicekit.ids import new_id

KEY = FlowKey(new_id(), "refresh")
UPSTREAM = Input(FlowKey(new_id(), "refresh"), "input", new_id())
# Of one run: a range or all dates, with upstreams or without, and how it ended.
RUNS = list(itertools.product((False, True), (False, True), (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED)))


def _fact(number: int, is_range: bool, reads: bool, phase: Phase) -> RunFact:
    return RunFact(
        KEY,
        f"run {number}",
        number,
        phase,
        datetime(2024, 1, number, tzinfo=UTC),
        fingerprint=f"configuration {number}",
        inputs=(UPSTREAM,) if reads else (),
        is_partial_range=is_range,
        instance_revision=number,
        readers_hash=f"hash {number}",
    )


def _flow(**changes: Any) -> Flow:
    values: dict[str, Any] = {
        "flow_id": 1, "instance_id": KEY.instance_id, "flow_kind": "refresh", "instance_name": "momentum",
        "instance_kind": 2, "instance_revision": 1, "is_deleted": False, "is_defined": True, "fingerprint": "f",
        "fingerprint_change": "", "computed_fingerprint": "f", "verified_run_number": 0, "verified_fingerprint": "",
        "version": 2, "version_id": new_id(), "uri": "", "physical_version": "", "digest": "", "last_data_date": "",
        "run_number": 2, "last_run_id": "", "last_run_time": None, "ended_run_number": 2, "outcome_run_number": 2,
        "outcome": "succeeded", "completed_run_number": 2, "rows_processed": 0, "invalidated_run_number": -1,
        "invalidated_reason": "", "is_fresh": False, "revision": 7, "computed_revision": 1,
        "readers_hash": "", "stale_revision": 0, "full_run_number": 2, "partial_run_number": 0,
        "expected_data_date": "", "late_since_time": None, "blocks_readers": False, "version_run_number": 2,
    }  # fmt: skip
    return Flow(**values | changes)


@pytest.mark.parametrize("first", RUNS)
def test_only_a_completed_run_of_all_dates_ends_the_partial_state(first: tuple[bool, bool, Phase]) -> None:
    for others in itertools.product(RUNS, repeat=2):
        _check((first, *others))


def _check(runs: tuple[tuple[bool, bool, Phase], ...]) -> None:
    facts = [_fact(number, *run) for number, run in enumerate(runs, start=1)]
    completed = [fact for fact in facts if fact.phase is Phase.COMPLETED]
    whole = [fact.run_number for fact in completed if not fact.is_partial_range]
    full = max(whole, default=0)
    ranges = [fact.run_number for fact in completed if fact.is_partial_range and fact.inputs]
    for order in itertools.permutations(facts):
        progress = Progress()
        for fact in order:
            progress = advance(progress, fact)
        assert progress.full_run_number == full
        assert progress.partial_run_number == max(ranges, default=0)
        last = completed[-1] if completed else None
        assert progress.computed_revision == (last.instance_revision if last else 0)
        assert progress.readers_hash == (last.readers_hash if last else "")
        # A run of a range leaves the other dates as another configuration made them.
        computed = full or (last.run_number if last else 0)
        assert progress.computed_fingerprint == (f"configuration {computed}" if computed else "")
        flow = _flow(full_run_number=full, partial_run_number=progress.partial_run_number)
        assert flow.is_partial is any(number > full for number in ranges)


@pytest.mark.parametrize(
    ("partial", "other_config", "invalidated", "consumed"),
    list(itertools.product((False, True), (False, True), (False, True), (0, 1, 2))),
)
def test_a_partial_range_is_a_separate_cause(
    partial: bool, other_config: bool, invalidated: bool, consumed: int
) -> None:
    upstream = replace(_flow(), flow_id=2, instance_id=new_id(), instance_name="prices")
    flow = _flow(
        completed_run_number=3,
        full_run_number=2,
        partial_run_number=3 if partial else 0,
        computed_fingerprint="other" if other_config else "f",
        # Declared before the run of a range: that heals nothing.
        invalidated_run_number=2 if invalidated else -1,
    )
    graph = Graph([flow, upstream], [Edge(2, 1, "input", 1, is_connected=True, consumed_version=consumed)])
    expected = set()
    if partial:
        expected.add(CauseKind.PARTIAL_RANGE)
    if other_config:
        expected.add(CauseKind.OWN_CONFIG)
    if invalidated:
        expected.add(CauseKind.INVALIDATED)
    if consumed == 1:
        expected.add(CauseKind.UPSTREAM_MOVED)
    if consumed == 0 and not partial:  # a range of it was read
        expected.add(CauseKind.UPSTREAM_ADDED)
    found = local_causes(graph, flow)
    assert {cause.kind for cause in found} == expected
    assert len(found) == len(expected)
    for cause in found:
        if cause.kind is CauseKind.PARTIAL_RANGE:
            assert cause.origin is flow
            assert "run 3 of momentum read its upstreams for a range of dates only" in cause.message


@pytest.mark.parametrize(("is_connected", "consumed"), [(False, 2), (True, 0), (True, 2), (True, 1)])
def test_an_edge_within_an_instance_is_part_of_its_configuration(is_connected: bool, consumed: int) -> None:
    """The edge from inference to training goes and comes with the champion, which is the cause that is told."""
    training = replace(_flow(), flow_id=2, flow_kind="training", instance_name="model")
    inference = _flow(flow_kind="inference", computed_fingerprint="other", instance_name="model")
    edge = Edge(2, 1, "model", 5, is_connected=is_connected, consumed_version=consumed)
    found = {cause.kind for cause in local_causes(Graph([inference, training], [edge]), inference)}
    moved = {CauseKind.UPSTREAM_MOVED} if (is_connected, consumed) == (True, 1) else set()
    assert found == {CauseKind.OWN_CONFIG} | moved
    same = replace(inference, computed_fingerprint="f")
    alone = [cause.kind for cause in local_causes(Graph([same, training], [edge]), same)]
    added = {(True, 0): [CauseKind.UPSTREAM_ADDED], (True, 1): [CauseKind.UPSTREAM_MOVED]}
    assert alone == added.get((is_connected, consumed), [])


def test_the_output_is_valid_for_the_configuration_that_computed_it_or_was_verified() -> None:
    assert _flow(fingerprint="a", computed_fingerprint="a").right_fingerprint == "a"
    assert _flow(fingerprint="b", computed_fingerprint="a").right_fingerprint == "a"
    verified = _flow(
        fingerprint="b", computed_fingerprint="a", verified_run_number=2, verified_fingerprint="b"
    )
    assert verified.right_fingerprint == "b"
    later = replace(verified, completed_run_number=3)
    assert later.right_fingerprint == "a"
