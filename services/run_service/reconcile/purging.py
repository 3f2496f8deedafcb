"""Delete refreshes that have ended long ago."""

from __future__ import annotations

from datetime import timedelta

from run_service.store import refreshes
from run_service.use_cases.dependencies import Dependencies

_BATCH = 100


class RefreshPurge:
    """The loop that deletes ended refreshes after the time for which they are kept."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def step(self) -> bool:
        """Delete one batch; return False if no more is old enough."""
        before = self._deps.clock.now() - timedelta(seconds=self._deps.settings.refresh_keep_seconds)
        async with self._deps.database.infra() as connection:
            return await refreshes.delete_ended(connection, before, _BATCH) == _BATCH
