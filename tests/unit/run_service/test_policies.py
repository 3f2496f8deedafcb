"""The action for a scheduled time in every situation and policy, equal to the table in docs/schedules.md."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from optaic.instance.v1 import instance_pb2, schedule_pb2
from run_service.domain.policies import TABLE, Action, CatchUp, Overlap, Policies, Situation, decide
from run_service.use_cases.admission import FoundFlow
from run_service.use_cases.ticks import policies_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "schedules.md"
HEADER = "| situation of the scheduled time |"
PRODUCT = list(itertools.product(Situation, Overlap, CatchUp))


def expected(situation: Situation, overlap: Overlap, catch_up: CatchUp) -> Action:
    """Return the expected action, as a chain of rules."""
    catches_up_with_all = catch_up is CatchUp.ALL
    match situation:
        case Situation.LATE:
            return Action.REFUSE_MISSED if catch_up is CatchUp.NONE else Action.WAIT
        case Situation.UPSTREAMS_AWAITED | Situation.LATER_ONES_WAIT:
            kept = Action.WAIT if situation is Situation.UPSTREAMS_AWAITED else Action.RUN
            return kept if catches_up_with_all else Action.REFUSE_SUPERSEDED
        case Situation.OTHERS_WAIT:
            if catches_up_with_all:
                return Action.WAIT
            return Action.REFUSE_SKIPPED if overlap is Overlap.QUEUE_ONE else Action.RUN_AND_SUPERSEDE
    if overlap is Overlap.CANCEL_PREVIOUS:
        return Action.RUN_AND_CANCEL
    is_kept = overlap is Overlap.QUEUE_ONE or (
        catches_up_with_all and situation is Situation.RUN_IS_ACTIVE_AT_TURN
    )
    return Action.WAIT if is_kept else Action.REFUSE_ACTIVE


@pytest.mark.parametrize(("situation", "overlap", "catch_up"), PRODUCT)
def test_each_situation_has_one_action_for_each_pair_of_policies(
    situation: Situation, overlap: Overlap, catch_up: CatchUp
) -> None:
    assert decide(situation, Policies(overlap, catch_up)) is expected(situation, overlap, catch_up)


def test_every_action_occurs_in_the_policy_tables() -> None:
    assert {action for rows in TABLE.values() for row in rows.values() for action in row.values()} == set(
        Action
    )


def documented() -> dict[tuple[str, str, str], str]:
    """Return the cells of the table in the document, by situation, overlap policy and catch-up policy."""
    lines = DOCUMENT.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(HEADER))
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines[start:]))
    rows = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in table]
    header, _, *body = rows
    cells: dict[tuple[str, str, str], str] = {}
    for situation, overlaps, *actions in body:
        named = [each.name for each in Overlap] if overlaps == "any" else overlaps.split(", ")
        for overlap, (catch_up, action) in itertools.product(named, zip(header[2:], actions, strict=True)):
            key = (situation, overlap, catch_up)
            assert key not in cells, f"{key} stands twice"
            cells[key] = action
    return cells


def test_the_document_shows_the_table_cell_by_cell() -> None:
    assert documented() == {
        (situation.value, overlap.name, catch_up.name): decide(situation, Policies(overlap, catch_up)).value
        for situation, overlap, catch_up in PRODUCT
    }


def test_the_document_names_the_defaults() -> None:
    default = Policies()
    text = " ".join(DOCUMENT.read_text().split())
    for policy, name in (
        ("overlap_policy", default.overlap.name),
        ("catch_up_policy", default.catch_up.name),
    ):
        assert f"`{name}` (the default)" in text[text.index(f"- `{policy}`") :][:150]


@pytest.mark.parametrize(
    "overlap", schedule_pb2.OverlapPolicy.values(), ids=schedule_pb2.OverlapPolicy.keys()
)
@pytest.mark.parametrize(
    "catch_up", schedule_pb2.CatchUpPolicy.values(), ids=schedule_pb2.CatchUpPolicy.keys()
)
def test_the_contract_has_the_same_policies(
    overlap: schedule_pb2.OverlapPolicy.ValueType, catch_up: schedule_pb2.CatchUpPolicy.ValueType
) -> None:
    schedule = schedule_pb2.Schedule(overlap_policy=overlap, catch_up_policy=catch_up)
    found = FoundFlow(
        "t", instance_pb2.Instance(schedule=schedule), instance_pb2.Flow(), "refresh", "pipeline"
    )
    policies, default = policies_of(found), Policies()
    overlap_name = schedule_pb2.OverlapPolicy.Name(overlap).removeprefix("OVERLAP_POLICY_")
    catch_up_name = schedule_pb2.CatchUpPolicy.Name(catch_up).removeprefix("CATCH_UP_POLICY_")
    assert policies.overlap.name == (overlap_name if overlap else default.overlap.name)
    assert policies.catch_up.name == (catch_up_name if catch_up else default.catch_up.name)
