"""Fail runs whose executor has stopped its heartbeats; not while the service could not receive them."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

from run_service.domain.statuses import RunEvent, RunStatus
from run_service.store import queues
from run_service.store import runs as run_store
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.transitions import announce, change_runs, error_json

_BATCH = 200
_ERROR = error_json("WORKER_LOST", "the worker has sent no heartbeat for longer than its lease")


class LeaseKeeper:
    """The loop that checks the leases of all runs; several replicas may do so at once."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps
        self._last_look: datetime | None = None

    async def step(self) -> bool:
        """Fail one batch of runs with expired leases; return False if none is left."""
        deps = self._deps
        now, lease = deps.clock.now(), timedelta(seconds=deps.settings.lease_seconds)
        if self._last_look is None or now - self._last_look > lease / 2:
            # The service was away (start, no database, a suspended machine) and could accept no heartbeat.
            async with deps.database.infra() as connection:
                await queues.extend_all_leases(connection, now + lease)
            self._last_look = deps.clock.now()
            return False
        async with deps.database.infra() as connection:
            expired = await queues.list_expired_leases(connection, now, _BATCH)
        self._last_look = deps.clock.now()
        by_tenant: dict[str, list[str]] = defaultdict(list)
        for tenant_id, run_id in expired:
            by_tenant[tenant_id].append(run_id)
        for tenant_id, run_ids in by_tenant.items():
            await self._give_up(tenant_id, run_ids, now)
        self._last_look = deps.clock.now()  # failing many runs takes long; the service was not away
        return len(expired) == _BATCH

    async def _give_up(self, tenant_id: str, run_ids: list[str], now: datetime) -> None:
        async with self._deps.database.transaction(tenant_id) as connection:
            # Lock runs before leases, as every transition does. A heartbeat that comes in between keeps its run.
            await run_store.lock_runs(connection, tenant_id, run_ids)
            lost = await queues.lock_expired_leases(connection, tenant_id, run_ids, now)
            records = await change_runs(
                self._deps,
                connection,
                tenant_id,
                lost,
                RunEvent.FAILED,
                only=RunStatus.RUNNING,
                actor="run-service",
                message=_ERROR["message"],
                values={"error": _ERROR, "fencing_token": None},
            )
        announce(self._deps, tenant_id, records)
