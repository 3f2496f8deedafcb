"""The transitions of a run, for every combination of status and event."""

import itertools

import pytest

from run_service.domain.statuses import ACTIVE, ENDED, RunEvent, RunStatus, next_status, sources_of, target_of
from servicekit.errors import FailedPreconditionError

_ALLOWED = {
    ("pending", "started"): "running",
    ("pending", "failed"): "failed",
    ("pending", "cancelled"): "cancelled",
    ("running", "completed"): "completed",
    ("running", "failed"): "failed",
    ("running", "cancelled"): "cancelled",
}
_PRODUCT = list(itertools.product(RunStatus, RunEvent))


@pytest.mark.parametrize(("status", "event"), _PRODUCT)
def test_only_the_listed_transitions_exist(status: RunStatus, event: RunEvent) -> None:
    following = _ALLOWED.get((status.value, event.value))
    if following is not None:
        assert next_status("r", status, event) == following
        assert status in sources_of(event)
        assert target_of(event) == following
        return
    assert status not in sources_of(event)
    with pytest.raises(FailedPreconditionError) as refusal:
        next_status("r", status, event)
    if status in ENDED:
        assert refusal.value.reason == "RUN_ENDED"
    elif status is RunStatus.PENDING:
        assert refusal.value.reason == "RUN_NOT_STARTED"
    else:
        assert refusal.value.reason == "FENCED"


def test_every_status_is_either_active_or_ended() -> None:
    assert set(RunStatus) == ACTIVE | ENDED
    assert not ACTIVE & ENDED
