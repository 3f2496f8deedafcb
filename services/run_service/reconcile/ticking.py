"""Starts what ticks of schedules have waited for."""

from __future__ import annotations

from datetime import timedelta

import structlog

from run_service.store import ticks
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.ticks import submit_waiting
from servicekit.errors import DomainError

_BATCH = 32
_log = structlog.get_logger(__name__)


class Ticker:
    """Works off the ticks that wait."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def step(self) -> bool:
        """Start what is due; False: nothing more is."""
        now = self._deps.clock.now()
        claim = timedelta(seconds=self._deps.settings.dispatch_claim_seconds)
        async with self._deps.database.infra() as connection:
            flows = await ticks.claim_flows(connection, now, now + claim, _BATCH)
        for flow in flows:
            try:
                await submit_waiting(self._deps, flow)
            except DomainError as error:  # not decided: the claim runs out and it is tried again
                _log.warning("tick postponed", flow=flow, error=repr(error))
        return len(flows) == _BATCH
