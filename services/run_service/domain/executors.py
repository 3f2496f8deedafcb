"""Which executor holds a run."""

from __future__ import annotations

from collections.abc import Collection

from run_service.domain.errors import fenced
from run_service.domain.statuses import RunStatus


def is_executor(paired_with: str, orchestrator_run_id: str, superseded: Collection[str] = ()) -> bool:
    """Return whether a flow run is the one the run is paired with; an unpaired run takes the first that never had it."""
    return orchestrator_run_id not in superseded and paired_with in {"", orchestrator_run_id}


def check_executor(
    run_id: str, paired_with: str, orchestrator_run_id: str, superseded: Collection[str] = ()
) -> None:
    """Refuse a flow run that is not the run's.

    Raises:
        FailedPreconditionError: FENCED.
    """
    if not is_executor(paired_with, orchestrator_run_id, superseded):
        raise fenced(run_id)


def check_fence(run_id: str, holder: str, token: str, status: RunStatus | None = None) -> None:
    """Refuse the report of an executor that does not hold the run; `holder` is empty once it was given up.

    Raises:
        FailedPreconditionError: FENCED, with the status where given: so the executor's flow run can end as the run did.
    """
    if holder != token:
        raise fenced(run_id, status)
