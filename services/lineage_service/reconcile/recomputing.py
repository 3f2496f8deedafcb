"""Recompute the freshness of all flows from time to time, a part in each second, so that nobody else waits."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from lineage_service.use_cases import recomputation
from lineage_service.use_cases.dependencies import Dependencies

PAUSE = 1.0  # seconds between two parts
_log = structlog.get_logger(__name__)


class Recomputer:
    """The loop that compares what is stored with the facts; replicas may do so at once, and each repair is made once."""

    def __init__(self, deps: Dependencies, interval: float) -> None:
        self._deps = deps
        self._interval = timedelta(seconds=interval)
        self._due: datetime | None = None  # None: at once
        self._tenants: list[str] = []  # that are left
        self._after = 0  # the last flow of the first of them that was compared
        self._compared = self._repaired = 0

    async def step(self) -> bool:
        """Compare one part; return False, because the next one has time."""
        now = self._deps.clock.now()
        if not self._tenants:
            if self._due is not None and now < self._due:
                return False
            self._tenants = await recomputation.list_tenants(self._deps)
            self._due = now + self._interval
            self._after = self._compared = self._repaired = 0
        if self._tenants:
            part = await recomputation.recompute_part(self._deps, self._tenants[0], self._after)
            self._compared += part.compared
            self._repaired += len(part.repaired)
            self._after = part.last
            if not part.last:
                del self._tenants[0]
        if not self._tenants and self._compared:
            _log.info("freshness recomputed", compared_total=self._compared, repaired_total=self._repaired)
        return False
