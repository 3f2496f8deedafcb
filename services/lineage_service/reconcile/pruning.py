"""Prune the history of lineage that is older than it is kept."""

from __future__ import annotations

from datetime import timedelta

from lineage_service.store import pruning
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.pruning import prune_history


class Pruner:
    """The loop that removes old history; several replicas may do so at once."""

    def __init__(self, deps: Dependencies, kept: timedelta) -> None:
        self._deps = deps
        self._kept = kept

    async def step(self) -> bool:
        """Remove what is too old now, tenant by tenant; the loop waits afterwards."""
        before = self._deps.clock.now() - self._kept
        async with self._deps.database.infra() as connection:
            tenants = await pruning.list_tenants(connection, before)
        for tenant_id in tenants:
            await prune_history(self._deps, tenant_id, before)
        return False
