"""Sweep the freshness policies that are due; the work grows with what falls due, not with the number of flows."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from lineage_service.store import policies
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.judging import judge

_BATCH = 500


class Sweeper:
    """The loop that judges due policies; several replicas may do so at once, and each answer is published once."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def step(self) -> bool:
        """Judge one batch; return False if no more is due."""
        now = self._deps.clock.now()
        async with self._deps.database.infra() as connection:
            found = await policies.list_due_flows(connection, now, _BATCH)
        by_tenant: dict[str, list[int]] = defaultdict(list)
        for tenant_id, flow_id in found:
            by_tenant[tenant_id].append(flow_id)
        # At once, so that no tenant waits for another one's calendars.
        outcomes = await asyncio.gather(
            *(judge(self._deps, tenant_id, flow_ids) for tenant_id, flow_ids in by_tenant.items()),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(found) == _BATCH
