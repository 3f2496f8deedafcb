"""Starts the runs that follow failed ones when their time has come."""

from __future__ import annotations

from datetime import timedelta

import structlog

from run_service.store import queues
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.retries import retry_automatically
from servicekit.errors import DomainError

_BATCH = 8
_log = structlog.get_logger(__name__)


class Retrier:
    """Works off the queue of due retries."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def step(self) -> bool:
        """Start what is due; False: nothing more is."""
        now = self._deps.clock.now()
        claim = timedelta(seconds=self._deps.settings.dispatch_claim_seconds)
        async with self._deps.database.infra() as connection:
            claimed = await queues.claim_retries(connection, now, now + claim, _BATCH)
        for tenant_id, run_id in claimed:
            try:
                await retry_automatically(self._deps, tenant_id, run_id)
            except DomainError as error:  # not decided: the claim runs out and it is tried again
                _log.warning("retry postponed", tenant=tenant_id, run_id=run_id, error=repr(error))
        return len(claimed) == _BATCH
