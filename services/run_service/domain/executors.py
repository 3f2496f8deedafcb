"""Decide which executor holds a run."""

from __future__ import annotations

from collections.abc import Collection

from run_service.domain.errors import fenced
from run_service.domain.statuses import RunStatus


def is_executor(paired_with: str, orchestrator_run_id: str, superseded: Collection[str] = ()) -> bool:
    """Return whether a flow run may execute the run.

    It may if it is the run's flow run. A run without one takes any flow run that has not lost it before.
    """
    return orchestrator_run_id not in superseded and paired_with in {"", orchestrator_run_id}


def check_executor(
    run_id: str, paired_with: str, orchestrator_run_id: str, superseded: Collection[str] = ()
) -> None:
    """Refuse a flow run that may not execute the run.

    Raises:
        FailedPreconditionError: FENCED.
    """
    if not is_executor(paired_with, orchestrator_run_id, superseded):
        raise fenced(run_id)


def check_fence(run_id: str, holder: str, token: str, status: RunStatus | None = None) -> None:
    """Refuse the report of an executor that does not hold the run.

    `holder` is the token of the executor that does; it is empty after the run was given up.

    Raises:
        FailedPreconditionError: FENCED; with the status if given, so that the flow run can end as the run did.
    """
    if holder != token:
        raise fenced(run_id, status)
