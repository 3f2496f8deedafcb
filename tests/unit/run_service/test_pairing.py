"""The table of actions for a run and its flow run, for every combination of their states."""

import itertools
from datetime import timedelta

import pytest

from run_service.config import Settings
from run_service.domain.pairing import TERMINAL, Closing, FlowRunState, Patience, close, end_of, next_step
from run_service.domain.statuses import ENDED, RunStatus
from support.pairing_states import COMBINATIONS, ROWS, Row

_PATIENCE = Patience(start=timedelta(seconds=30), report=timedelta(seconds=10))
_LONG = timedelta(seconds=30)


def test_the_table_has_every_combination_once() -> None:
    listed = [(row.ours, row.prefect) for row in ROWS]
    assert len(listed) == len(set(listed)) == len(COMBINATIONS) == 45
    assert set(listed) == set(COMBINATIONS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.ours}-{row.prefect or 'GONE'}")
def test_each_combination_has_the_step_of_the_table(row: Row) -> None:
    for is_last, age in itertools.product((False, True), (timedelta(0), timedelta(seconds=9.9), _LONG)):
        step = next_step(row.ours, row.prefect, age, is_last=is_last, patience=_PATIENCE)
        if age < _LONG and not is_last:
            assert step is row.at_once
        elif not is_last:
            assert step is row.in_time
        elif age == _LONG:
            assert step is row.last


def test_the_grace_for_an_unreported_end_is_shorter_than_that_for_a_missing_start() -> None:
    for age, is_believed in ((9.9, False), (10, True)):
        for status in (RunStatus.PENDING, RunStatus.RUNNING):
            step = next_step(
                status, FlowRunState.FAILED, timedelta(seconds=age), is_last=True, patience=_PATIENCE
            )
            assert (step == "fail") is is_believed
    step = next_step(
        RunStatus.PENDING,
        FlowRunState.CLAIMED,
        timedelta(seconds=29.9),
        is_last=False,
        patience=_PATIENCE,
    )
    assert step == "keep"


def test_by_default_the_work_of_a_dead_process_is_handled_within_a_minute() -> None:
    seconds = {name: field.default for name, field in Settings.model_fields.items()}
    # A claimed run that did not start; then the same where the replica that observes it died with the worker.
    claimed = seconds["start_timeout_seconds"] + seconds["observe_interval_seconds"]
    assert claimed + seconds["observe_claim_seconds"] + seconds["dispatch_interval_seconds"] < 60
    # A running run whose executor is gone, whether or not its flow run ended.
    assert seconds["lease_seconds"] + seconds["lease_interval_seconds"] < 60
    assert seconds["orchestrator_grace_seconds"] + seconds["observe_interval_seconds"] < 60


@pytest.mark.parametrize("status", sorted(ENDED))
@pytest.mark.parametrize("state", [*FlowRunState, None])
def test_the_state_of_a_flow_run_is_set_until_it_matches_its_run(
    status: RunStatus, state: FlowRunState | None
) -> None:
    wanted = end_of(status)
    is_right = state is wanted or (status is RunStatus.FAILED and state is FlowRunState.CRASHED)
    for is_settled in (False, True):
        closing = close(wanted, state, is_settled=is_settled)
        if state is None:
            assert closing is Closing.DONE
        elif is_right:
            assert closing is (Closing.DONE if is_settled else Closing.LOOK_AGAIN)
        else:
            assert closing is Closing.SET
    assert wanted in TERMINAL
