"""The rules of admission: which runs are refused, and with which errors."""

from datetime import timedelta

import pytest

from optaic.run.v1.run_report_service_pb2 import CompleteRunRequest
from run_service.domain.admission import Blocking, check_force, check_upstreams
from run_service.domain.executors import check_executor, check_fence
from run_service.domain.kinds import RUN_KINDS, choose_flow, run_kind
from run_service.domain.retries import RetryPolicy, delay_before_retry
from run_service.domain.timeline import activity_type
from run_service.store.tables import extensions
from servicekit.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

_STALE = Blocking("prices", "refresh", "STALE", "moved", is_missing_input=False)
_MISSING = Blocking("signal", "refresh", "NOT_INITIALIZED", "never ran", is_missing_input=True)


def test_ready_upstreams_pass() -> None:
    check_upstreams([], count=0, missing_count=0, force=False)


def test_an_unforced_refusal_names_every_blocking_flow() -> None:
    with pytest.raises(FailedPreconditionError) as refusal:
        check_upstreams([_STALE, _MISSING], count=2, missing_count=1, force=False)
    assert refusal.value.reason == "UPSTREAM_NOT_READY"
    assert refusal.value.metadata == {"blocking": "2"}
    assert [(v.type, v.subject, v.description) for v in refusal.value.preconditions] == [
        ("STALE", "prices/refresh", "moved"),
        ("NOT_INITIALIZED", "signal/refresh", "never ran"),
    ]


def test_force_overrides_stale_upstreams() -> None:
    check_upstreams([_STALE], count=1, missing_count=0, force=True)


def test_force_never_overrides_a_missing_input() -> None:
    with pytest.raises(FailedPreconditionError) as refusal:
        check_upstreams([_STALE, _MISSING], count=2, missing_count=1, force=True)
    assert refusal.value.reason == "MISSING_INPUT"
    assert [v.subject for v in refusal.value.preconditions] == ["signal/refresh"]


@pytest.mark.parametrize("reason", ["", "  "])
def test_force_needs_a_reason(reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        check_force(reason, force=True)
    assert refusal.value.reason == "FORCE_REASON_REQUIRED"
    assert [each.field for each in refusal.value.field_violations] == ["force_reason"]
    check_force("because", force=True)
    check_force("", force=False)


def test_the_default_flow_is_the_first() -> None:
    assert choose_flow("i", [5, 1], 0) == 1
    assert choose_flow("i", [5, 1], 5) == 5
    for available, wanted in (([1], 2), ([], 0)):
        with pytest.raises(NotFoundError):
            choose_flow("i", available, wanted)


def test_every_run_kind_has_its_extension_table() -> None:
    assert set(RUN_KINDS) == set(extensions)


@pytest.mark.parametrize("kind", RUN_KINDS)
def test_every_field_of_a_result_has_its_column(kind: str) -> None:
    result = CompleteRunRequest.DESCRIPTOR.fields_by_name[kind].message_type
    assert result is not None
    columns = {column.name for column in extensions[kind].columns} - {"tenant_id", "run_id"}
    assert columns == {field.name for field in result.fields}


def test_the_run_kind_follows_from_instance_and_flow() -> None:
    assert run_kind("i", "signal", "refresh") == "pipeline"
    assert run_kind("i", "model", "monitoring") == "monitoring"
    with pytest.raises(NotFoundError):
        run_kind("i", "store", "refresh")
    assert activity_type("pipeline", "submitted") == "pipeline_run.submitted"


def test_only_the_current_fencing_token_is_accepted() -> None:
    check_fence("r", "token", "token")
    for holder in ("other", ""):
        with pytest.raises(FailedPreconditionError) as refusal:
            check_fence("r", holder, "token")
        assert refusal.value.reason == "FENCED"
    check_executor("r", "", "any")
    check_executor("r", "same", "same")
    with pytest.raises(FailedPreconditionError):
        check_executor("r", "one", "other")


@pytest.mark.parametrize(
    ("attempt", "is_exponential", "seconds"),
    [(1, True, 30), (2, True, 60), (3, True, 100), (3, False, 30), (4, True, None), (4, False, None)],
)
def test_retries_wait_longer_up_to_their_limit(
    attempt: int, is_exponential: bool, seconds: int | None
) -> None:
    policy = RetryPolicy(3, is_exponential, timedelta(seconds=30), timedelta(seconds=100))
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert delay_before_retry(policy, attempt) == expected


def test_no_retry_without_a_policy_or_after_changed_code() -> None:
    policy = RetryPolicy(3, is_exponential=False, delay=timedelta(seconds=30), max_delay=timedelta(hours=1))
    assert delay_before_retry(None, 1) is None
    assert delay_before_retry(policy, 1, "CODE_CHANGED") is None
    assert delay_before_retry(policy, 1, "ValueError") == timedelta(seconds=30)
