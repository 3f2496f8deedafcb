"""Compares active runs with the orchestrator's view, so that none stays active for ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog

from run_service.domain import RunStatus
from run_service.ports import FlowRunState, Orchestrator, OrchestratorUnavailableError
from run_service.store import queues
from run_service.store import runs as run_store
from run_service.store.queues import Dispatch, Key
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.transitions import fail_runs

_BATCH = 200
_log = structlog.get_logger(__name__)


class Observer:
    """Ends runs whose flow run has ended, dispatches anew those whose flow run is gone, expires old ones."""

    def __init__(self, deps: Dependencies, orchestrator: Orchestrator) -> None:
        self._deps = deps
        self._orchestrator = orchestrator

    async def step(self) -> bool:
        """Compare one batch; False: nothing more is due."""
        deps = self._deps
        now = deps.clock.now()
        await self._expire(now)
        async with deps.database.infra() as connection:
            claimed = await queues.claim_dispatches(
                connection,
                {"await", "observe"},
                now,
                now + timedelta(seconds=deps.settings.dispatch_claim_seconds),
                _BATCH,
            )
        if not claimed:
            return False
        try:
            states = await self._orchestrator.get_states(
                [dispatch.orchestrator_run_id for dispatch in claimed if dispatch.orchestrator_run_id]
            )
        except OrchestratorUnavailableError as error:
            _log.info("orchestrator not compared", error=repr(error))
            await self._release(claimed, now)
            return False
        await self._compare(claimed, states, now)
        return len(claimed) == _BATCH

    async def _release(self, dispatches: Iterable[Dispatch], now: datetime) -> None:
        due_time = now + timedelta(seconds=self._deps.settings.observe_interval_seconds)
        async with self._deps.database.infra() as connection:
            await queues.update_dispatches(
                connection, [item.key for item in dispatches], {"due_time": due_time}
            )

    async def _compare(
        self, claimed: Iterable[Dispatch], states: dict[str, FlowRunState], now: datetime
    ) -> None:
        grace = timedelta(seconds=self._deps.settings.orchestrator_grace_seconds)
        going_on: list[Key] = []
        just_ended: list[Key] = []
        waiting: list[Dispatch] = []
        gone: list[Dispatch] = []
        over: dict[tuple[str, FlowRunState], list[str]] = defaultdict(list)
        for dispatch in claimed:
            state = states.get(dispatch.orchestrator_run_id or "")
            if state is None and dispatch.action == "await":
                gone.append(dispatch)
            elif state is None or state is FlowRunState.ACTIVE:
                going_on.append(dispatch.key)  # a started one without a flow run is the lease's matter
            elif dispatch.ended_since_time is None:
                just_ended.append(dispatch.key)
            elif now - dispatch.ended_since_time < grace:
                waiting.append(dispatch)
            else:
                over[dispatch.tenant_id, state].append(dispatch.run_id)
        interval = timedelta(seconds=self._deps.settings.observe_interval_seconds)
        async with self._deps.database.infra() as connection:
            await queues.update_dispatches(
                connection, going_on, {"due_time": now + interval, "ended_since_time": None}
            )
            await queues.update_dispatches(
                connection, just_ended, {"due_time": now + grace, "ended_since_time": now}
            )
            await queues.update_dispatches(
                connection, [item.key for item in waiting], {"due_time": now + grace}
            )
        await self._dispatch_again(gone, now)
        for (tenant_id, state), run_ids in over.items():
            await fail_runs(
                self._deps,
                tenant_id,
                run_ids,
                f"ORCHESTRATOR_{state}",
                f"the flow run ended as {state} without a report of the run's end",
                flow_run="has_ended",
            )

    async def _dispatch_again(self, gone: Iterable[Dispatch], now: datetime) -> None:
        by_tenant: dict[str, list[Key]] = defaultdict(list)
        for dispatch in gone:
            by_tenant[dispatch.tenant_id].append(dispatch.key)
        for tenant_id, keys in by_tenant.items():
            _log.warning("flow runs are gone, dispatched again", tenant=tenant_id, runs=len(keys))
            async with self._deps.database.transaction(tenant_id) as connection:
                await run_store.clear_orchestrator_runs(connection, tenant_id, [run_id for _, run_id in keys])
                values = {"action": "create", "orchestrator_run_id": None, "due_time": now, "attempts": 0}
                await queues.update_dispatches(connection, keys, values, action="await")
            self._deps.wake_dispatcher()

    async def _expire(self, now: datetime) -> None:
        """Give up runs that nobody started for too long."""
        before = now - timedelta(seconds=self._deps.settings.dispatch_expiry_seconds)
        async with self._deps.database.infra() as connection:
            expired = await queues.list_expired_dispatches(connection, before, _BATCH)
        by_tenant: dict[str, list[str]] = defaultdict(list)
        for tenant_id, run_id in expired:
            by_tenant[tenant_id].append(run_id)
        for tenant_id, run_ids in by_tenant.items():
            await fail_runs(
                self._deps,
                tenant_id,
                run_ids,
                "DISPATCH_EXPIRED",
                "the run was not started in time",
                only=RunStatus.PENDING,
                flow_run="cancel",
            )
