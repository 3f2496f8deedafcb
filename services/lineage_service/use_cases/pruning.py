"""Remove the history of a tenant that is older than it is kept."""

from __future__ import annotations

from datetime import datetime

from lineage_service.store import pruning
from lineage_service.use_cases.dependencies import Dependencies

_STEP = 5_000  # rows


async def prune_history(deps: Dependencies, tenant_id: str, before: datetime) -> None:
    """Let a tenant's history begin with the state of a time, and remove what is older in short transactions."""
    async with deps.database.transaction(tenant_id) as connection:
        await pruning.start_history(connection, tenant_id, before)
    is_more = True
    while is_more:
        async with deps.database.transaction(tenant_id) as connection:
            is_more = await pruning.prune(connection, tenant_id, _STEP)
