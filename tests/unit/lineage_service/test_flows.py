"""The state of a flow: the word over all combinations, and what events may change."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from lineage_service import conversion
from lineage_service.domain.causes import CauseKind
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Phase, Progress, RunFact, advance
from lineage_service.domain.statuses import Activity, Outcome, Word, activity_of, word_of
from optaic.common.v1.flow_pb2 import FlowKind, Status
from optaic.lineage.v1 import lineage_pb2
from servicekit.enums import enum_number

FLOW = FlowKey("01900000-0000-7000-8000-000000000001", "refresh")


def test_the_word_over_the_product_of_all_dimensions() -> None:
    for activity, outcome, is_fresh in itertools.product(Activity, Outcome, (False, True)):
        if activity is Activity.RUNNING:
            expected = Word.RUNNING
        elif outcome is Outcome.FAILED:
            expected = Word.ERROR
        elif outcome is Outcome.NEVER:
            expected = Word.NOT_INITIALIZED
        else:
            expected = Word.READY if is_fresh else Word.STALE
        assert word_of(activity, outcome, is_fresh) is expected


def test_every_value_has_its_protobuf_number() -> None:
    for is_ended, outcome, is_fresh in itertools.product((False, True), Outcome, (False, True)):
        activity_number, outcome_number, status = conversion.dimensions(is_ended, outcome.value, is_fresh)
        activity = activity_of(1, int(is_ended))
        assert lineage_pb2.FlowActivity.Name(activity_number) == f"FLOW_ACTIVITY_{activity.name}"
        assert lineage_pb2.FlowOutcome.Name(outcome_number) == f"FLOW_OUTCOME_{outcome.name}"
        assert Status.Name(status) == f"STATUS_{word_of(activity, outcome, is_fresh).name}"
    for kind in CauseKind:
        assert lineage_pb2.CauseKind.Value(f"CAUSE_KIND_{kind.name}") == kind.value
    for number in FlowKind.values():
        if number:
            assert enum_number(FlowKind, conversion.kind_name(number)) == number


_ends = st.sampled_from([Phase.ACTIVE, Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED])


@given(ends=st.lists(_ends, min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_progress_is_a_function_of_the_set_of_events(ends: list[Phase], order: object) -> None:
    facts = []
    for number, phase in enumerate(ends, start=1):
        # Only the newest run may still be active: the others ended before it was admitted.
        last = phase if number == len(ends) or phase is not Phase.ACTIVE else Phase.CANCELLED
        facts += [_fact(number, each) for each in {Phase.ACTIVE, last}]
    expected = Progress()
    for fact in sorted(facts, key=lambda fact: fact.run_number):
        expected = advance(expected, fact)
    shuffled = facts * 2
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis gives a random.Random
    found = Progress()
    for fact in shuffled:
        found = advance(found, fact)
    assert found == expected
    assert found.run_number == len(ends)
    is_active = ends[-1] is Phase.ACTIVE
    assert activity_of(found.run_number, found.ended_run_number) is (
        Activity.RUNNING if is_active else Activity.IDLE
    )


def test_a_cancelled_run_changes_neither_the_outcome_nor_the_output() -> None:
    completed = advance(Progress(), _fact(1, Phase.COMPLETED))
    cancelled = advance(completed, _fact(2, Phase.CANCELLED))
    assert cancelled.outcome == Outcome.SUCCEEDED
    assert cancelled.completed_run_number == 1
    assert cancelled.computed_fingerprint == completed.computed_fingerprint


def _fact(number: int, phase: Phase) -> RunFact:
    return RunFact(
        FLOW,
        f"run {number}",
        number,
        phase,
        datetime(2024, 1, number, tzinfo=UTC),
        fingerprint=str(number) if phase is Phase.COMPLETED else "",
    )
