"""Compare the flow runs that are under way or cancelled in the orchestrator with the runs, and end those without one.

No queue has a row for these flow runs: scheduled ones that a worker claimed and never started, and those that a late
worker started again after their run had ended. Scheduled flow runs that a user cancelled before they started are
recorded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta

import structlog

from run_service.domain.pairing import FlowRunState
from run_service.domain.statuses import ACTIVE
from run_service.ports import FlowRun, Orchestrator, OrchestratorUnavailableError
from run_service.store import endings
from run_service.store import runs as run_store
from run_service.store.endings import Ending
from run_service.store.records import Record
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.ending import ending_of, is_its_own, make_ending
from run_service.use_cases.lost_ticks import lose_tick
from servicekit.errors import DomainError, NotFoundError

# How far back cancelled flow runs are listed, by the orchestrator's clock: at the start, and at each look.
_FIRST_CANCELLED = timedelta(days=1)
_CANCELLED = timedelta(minutes=5)
_log = structlog.get_logger(__name__)


class Sweeper:
    """The loop that lists the active flow runs once, and makes two queries for each tenant in the list."""

    def __init__(self, deps: Dependencies, orchestrator: Orchestrator) -> None:
        self._deps = deps
        self._orchestrator = orchestrator
        # When flow runs without a run were first seen. A new process starts without any: while none was there, no worker
        # could start them.
        self._unknown_since: dict[str, datetime] = {}
        self._cancelled_since = deps.clock.now() - _FIRST_CANCELLED
        self._settled: set[str] = set()  # of those that the last look found cancelled

    async def step(self) -> bool:
        """Compare once; return False, since the next comparison can wait."""
        now = self._deps.clock.now()
        try:
            under_way = await self._orchestrator.list_under_way()
            cancelled = await self._orchestrator.list_cancelled(self._cancelled_since)
        except OrchestratorUnavailableError as error:
            _log.info("orchestrator not swept", error=repr(error))
            self._unknown_since.clear()  # no worker can start them now either
            return False
        by_tenant: dict[str, list[FlowRun]] = defaultdict(list)
        for flow_run in under_way:
            by_tenant[flow_run.tenant_id].append(flow_run)
        unknown: list[FlowRun] = []
        for tenant_id, flow_runs in by_tenant.items():
            unknown += await self._sweep(tenant_id, flow_runs)
        await self._lose(unknown)
        if await self._settle(cancelled):
            self._cancelled_since = now - _CANCELLED
        return False

    async def _sweep(self, tenant_id: str, flow_runs: Collection[FlowRun]) -> list[FlowRun]:
        """End the flow runs whose run has ended or has another one; return scheduled ones without a run."""
        deps = self._deps
        async with deps.database.read(tenant_id) as connection:
            ids = {flow_run.flow_run_id for flow_run in flow_runs}
            paired = await run_store.list_runs_of_flow_runs(connection, tenant_id, ids)
            run_ids = {flow_run.run_id for flow_run in flow_runs if flow_run.run_id}
            named = await run_store.list_runs_by_id(connection, tenant_id, run_ids)
        by_flow_run = {record.run.orchestrator_run_id: record for record in paired}
        by_run = {record.run.run_id: record for record in named}
        wanted: list[Ending] = []
        unknown: list[FlowRun] = []
        for flow_run in flow_runs:
            record = by_flow_run.get(flow_run.flow_run_id) or by_run.get(flow_run.run_id)
            if record is not None:
                wanted += self._ending(flow_run, record)
            elif not flow_run.run_id:
                unknown.append(flow_run)
            # A run that is not known here belongs to another installation.
        if wanted:
            async with deps.database.transaction(tenant_id) as connection:
                await endings.insert_endings(connection, wanted)
            deps.wake_ender()
        return unknown

    def _ending(self, flow_run: FlowRun, record: Record) -> list[Ending]:
        tenant_id, flow_run_id = flow_run.tenant_id, flow_run.flow_run_id
        if not is_its_own(record, flow_run_id):
            text = "the run has another flow run"
            return [
                make_ending(
                    self._deps,
                    tenant_id,
                    flow_run_id,
                    FlowRunState.CANCELLED,
                    text,
                    instance_id=record.run.instance_id,
                    run_id=record.run.run_id,
                )
            ]
        if record.status in ACTIVE:
            return []
        return [ending_of(self._deps, tenant_id, record, flow_run_id=flow_run_id)]

    async def _settle(self, cancelled: Collection[FlowRun]) -> bool:
        """Record ticks that were cancelled before they started; return False if some must be looked at again."""
        unknown: dict[str, list[FlowRun]] = defaultdict(list)
        for flow_run in cancelled:
            if flow_run.flow_run_id not in self._settled:
                unknown[flow_run.tenant_id].append(flow_run)
        self._settled &= {flow_run.flow_run_id for flow_run in cancelled}
        is_complete = True
        for tenant_id, flow_runs in unknown.items():
            async with self._deps.database.read(tenant_id) as connection:
                ids = {flow_run.flow_run_id for flow_run in flow_runs}
                paired = await run_store.list_runs_of_flow_runs(connection, tenant_id, ids)
            known = {record.run.orchestrator_run_id for record in paired}
            for flow_run in flow_runs:
                if flow_run.flow_run_id in known or await self._lose_one(flow_run):
                    self._settled.add(flow_run.flow_run_id)
                else:
                    is_complete = False
        return is_complete

    async def _lose(self, unknown: Collection[FlowRun]) -> None:
        now = self._deps.clock.now()
        patience = timedelta(seconds=self._deps.settings.start_timeout_seconds)
        self._unknown_since = {
            flow_run.flow_run_id: self._unknown_since.get(flow_run.flow_run_id, now) for flow_run in unknown
        }
        for flow_run in unknown:
            is_lost = now - self._unknown_since[flow_run.flow_run_id] >= patience
            if not is_lost and flow_run.state is not FlowRunState.CANCELLING:
                continue
            await self._lose_one(flow_run)

    async def _lose_one(self, flow_run: FlowRun) -> bool:
        """Settle a scheduled time whose flow run was lost; return False if that is not possible yet."""
        try:
            await lose_tick(self._deps, flow_run)
        except (NotFoundError, ValueError) as error:  # another installation's, or its instance was deleted
            _log.info("flow run left alone", flow_run_id=flow_run.flow_run_id, error=repr(error))
        except DomainError as error:
            _log.warning("scheduled time not settled", flow_run_id=flow_run.flow_run_id, error=repr(error))
            return False
        return True
