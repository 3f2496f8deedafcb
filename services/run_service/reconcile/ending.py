"""End the flow runs of ended runs in the orchestrator, and check that they stay ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta

import structlog

from redaction import redact
from run_service.domain.pairing import Closing, close
from run_service.ports import FlowRun, Orchestrator, OrchestratorRefusedError, OrchestratorUnavailableError
from run_service.store import endings
from run_service.store.endings import Ending
from run_service.use_cases.dependencies import Dependencies
from servicekit.backoff import backoff

_LONGEST_PAUSE = 60.0
_log = structlog.get_logger(__name__)


class Ender:
    """The loop that ends flow runs; it checks one that has ended at growing intervals, and then forgets it."""

    def __init__(self, deps: Dependencies, orchestrator: Orchestrator) -> None:
        self._deps = deps
        self._orchestrator = orchestrator

    async def step(self) -> bool:
        """Process one batch; return False if no more is due or the orchestrator does not answer."""
        deps, settings = self._deps, self._deps.settings
        now = deps.clock.now()
        claim_expire_time = now + timedelta(seconds=settings.end_claim_seconds)
        async with deps.database.infra() as connection:
            claimed = await endings.claim_endings(connection, now, claim_expire_time, settings.end_batch)
        if not claimed:
            return False
        try:
            flow_runs = await self._orchestrator.get_flow_runs([each.orchestrator_run_id for each in claimed])
        except OrchestratorUnavailableError as error:
            await self._postpone(claimed, now, error)
            return False
        by_closing: dict[Closing, list[Ending]] = {closing: [] for closing in Closing}
        for each in claimed:
            flow_run = flow_runs.get(each.orchestrator_run_id)
            if flow_run is not None and not is_for(each, flow_run):
                _log.warning(
                    "flow run is not the run's; left alone", run_id=each.run_id, tenant=each.tenant_id
                )
                flow_run = None
            state = None if flow_run is None else flow_run.state
            closing = close(each.state, state, is_settled=now >= each.settle_time)
            by_closing[closing].append(each)
        async with deps.database.infra() as connection:
            await endings.delete_endings(connection, [each.key for each in by_closing[Closing.DONE]])
        await self._look_again(by_closing[Closing.LOOK_AGAIN], now)
        return await self._set_all(by_closing[Closing.SET], now) and len(claimed) == settings.end_batch

    async def _set_all(self, wanted: Collection[Ending], now: datetime) -> bool:
        """Set the states; return whether the orchestrator answered every call."""
        limit = asyncio.Semaphore(self._deps.settings.dispatch_concurrency)

        async def set_one(each: Ending) -> Exception | None:
            async with limit:
                try:
                    await self._orchestrator.end_flow_run(each.orchestrator_run_id, each.state, each.message)
                except (OrchestratorUnavailableError, OrchestratorRefusedError) as error:
                    return error
            return None

        errors = await asyncio.gather(*(set_one(each) for each in wanted))
        done = [each for each, error in zip(wanted, errors, strict=True) if error is None]
        await self._look_again(done, now)
        failed = [each for each, error in zip(wanted, errors, strict=True) if error is not None]
        for error in [error for error in errors if error is not None][:1]:
            await self._postpone(failed, now, error)
        return not any(isinstance(error, OrchestratorUnavailableError) for error in errors)

    async def _look_again(self, some: Collection[Ending], now: datetime) -> None:
        """Release claimed entries for another check; each pause is twice the one before."""
        async with self._deps.database.infra() as connection:
            for attempts in {each.attempts for each in some}:
                keys = [each.key for each in some if each.attempts == attempts]
                pause = pause_after(attempts, self._deps.settings.observe_interval_seconds)
                values = {"due_time": now + pause, "attempts": attempts + 1, "last_error": ""}
                await endings.update_endings(connection, keys, values)

    async def _postpone(self, some: Collection[Ending], now: datetime, error: Exception) -> None:
        _log.info("ends of flow runs postponed", flow_runs=len(some), error=repr(error))
        due_time = now + timedelta(seconds=self._deps.settings.dispatch_backoff_seconds)
        values = {"due_time": due_time, "last_error": redact(repr(error))[:1000]}
        async with self._deps.database.infra() as connection:
            await endings.update_endings(connection, [each.key for each in some], values)


def is_for(ending: Ending, flow_run: FlowRun) -> bool:
    """Return whether a flow run was made for the run, or scheduled for the flow, that the entry names.

    An executor names the flow run of a scheduled time; it could name any.
    """
    is_named = not flow_run.run_id or ending.run_id is None or flow_run.run_id == ending.run_id
    is_of_flow = ending.instance_id is None or flow_run.instance_id == ending.instance_id
    return flow_run.tenant_id == ending.tenant_id and is_named and is_of_flow


def pause_after(looks: int, first_seconds: float) -> timedelta:
    """Return the pause before the next check of a flow run that was seen ended `looks` times before."""
    return timedelta(seconds=backoff(looks + 1, first=first_seconds, longest=_LONGEST_PAUSE))
