"""Compare active runs with their flow runs in the orchestrator, so that no run stays active for ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog

from run_service.domain.pairing import FlowRunState, Patience, Step, next_step
from run_service.domain.statuses import RunStatus
from run_service.ports import Orchestrator, OrchestratorUnavailableError
from run_service.store import queues
from run_service.store.queues import Dispatch
from run_service.use_cases.cancellation import cancel_as_orchestrator
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.redispatch import dispatch_again
from run_service.use_cases.transitions import fail_runs

_ABSENT = "ABSENT"  # as it is stored
_log = structlog.get_logger(__name__)


class Observer:
    """The loop that takes the step of `next_step` for each active run, and fails pending runs that are too old."""

    def __init__(self, deps: Dependencies, orchestrator: Orchestrator) -> None:
        self._deps = deps
        self._orchestrator = orchestrator
        self._last_look: datetime | None = None

    async def step(self) -> bool:
        """Compare one batch; return False if no more is due."""
        now = self._deps.clock.now()
        await self._notice_absence(now)
        has_more = await self._look(now)
        self._last_look = self._deps.clock.now()  # the service was not away while a step took long
        return has_more

    async def _look(self, now: datetime) -> bool:
        deps = self._deps
        await self._expire(now)
        async with deps.database.infra() as connection:
            claimed = await queues.claim_dispatches(
                connection,
                {"await", "observe"},
                now,
                now + timedelta(seconds=deps.settings.observe_claim_seconds),
                deps.settings.observe_batch,
            )
        self._last_look = deps.clock.now()  # the service and its database are there
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
        return len(claimed) == deps.settings.observe_batch

    async def _notice_absence(self, now: datetime) -> None:
        """Restart the time in which workers must start runs, if the service was away: no run could start then."""
        longest = timedelta(seconds=self._deps.settings.start_timeout_seconds) / 2
        if self._last_look is None or now - self._last_look > longest:
            async with self._deps.database.infra() as connection:
                await queues.forget_ages(connection, now)

    async def _release(self, dispatches: Iterable[Dispatch], now: datetime) -> None:
        """Release claimed dispatches, and restart their times: without the orchestrator no worker can proceed."""
        due_time = now + timedelta(seconds=self._deps.settings.observe_interval_seconds)
        async with self._deps.database.infra() as connection:
            await queues.update_dispatches(
                connection, list(dispatches), {"due_time": due_time, "seen_state": ""}
            )

    async def _compare(
        self, claimed: Iterable[Dispatch], states: dict[str, FlowRunState], now: datetime
    ) -> None:
        settings = self._deps.settings
        patience = Patience(
            start=timedelta(seconds=settings.start_timeout_seconds),
            report=timedelta(seconds=settings.orchestrator_grace_seconds),
        )
        unchanged: list[Dispatch] = []
        changed: dict[str, list[Dispatch]] = defaultdict(list)
        by_step: dict[Step, list[Dispatch]] = defaultdict(list)
        for dispatch in claimed:
            state = states.get(dispatch.orchestrator_run_id or "")
            is_same = dispatch.seen_state == (state or _ABSENT) and dispatch.seen_since_time is not None
            step = next_step(
                RunStatus.PENDING if dispatch.action == "await" else RunStatus.RUNNING,
                state,
                now - (dispatch.seen_since_time or now) if is_same else timedelta(0),
                is_last=dispatch.number >= settings.dispatch_limit,
                patience=patience,
            )
            if step is not Step.KEEP:
                by_step[step].append(dispatch)
            elif is_same:
                unchanged.append(dispatch)
            else:
                changed[state.value if state is not None else _ABSENT].append(dispatch)
        due_time = now + timedelta(seconds=settings.observe_interval_seconds)
        async with self._deps.database.infra() as connection:
            await queues.update_dispatches(connection, unchanged, {"due_time": due_time})
            for word, some in changed.items():
                values = {"due_time": due_time, "seen_state": word, "seen_since_time": now}
                await queues.update_dispatches(connection, some, values)
        for step, dispatches in by_step.items():
            for tenant_id, those in _by_tenant(dispatches).items():
                await self._take(step, tenant_id, those, states)

    async def _take(
        self, step: Step, tenant_id: str, dispatches: list[Dispatch], states: dict[str, FlowRunState]
    ) -> None:
        # Only runs that still have the flow run that was looked at.
        pairs = {dispatch.run_id: str(dispatch.orchestrator_run_id) for dispatch in dispatches}
        if step is Step.CANCEL:
            await cancel_as_orchestrator(self._deps, tenant_id, pairs)
        elif step is Step.DISPATCH_AGAIN:
            await dispatch_again(self._deps, tenant_id, dispatches, states)
        elif step is Step.GIVE_UP:
            text = (
                f"workers claimed {self._deps.settings.dispatch_limit} flow runs of the run in turn, and none started it"
                f" within {self._deps.settings.start_timeout_seconds:g} s; see the workers' logs, then run it again"
            )
            await fail_runs(
                self._deps, tenant_id, list(pairs), "WORKER_LOST", text, only=RunStatus.PENDING, pairs=pairs
            )
        else:
            by_state: dict[FlowRunState, list[str]] = defaultdict(list)
            for dispatch in dispatches:
                by_state[states[dispatch.orchestrator_run_id or ""]].append(dispatch.run_id)
            for state, some in by_state.items():
                text = f"the flow run ended as {state} before its worker reported the end of the run"
                await fail_runs(self._deps, tenant_id, some, f"ORCHESTRATOR_{state}", text, pairs=pairs)

    async def _expire(self, now: datetime) -> None:
        """Fail runs that no worker has started for too long."""
        before = now - timedelta(seconds=self._deps.settings.dispatch_expiry_seconds)
        async with self._deps.database.infra() as connection:
            expired = await queues.list_expired_dispatches(
                connection, before, self._deps.settings.observe_batch
            )
        by_tenant: dict[str, list[str]] = defaultdict(list)
        for tenant_id, run_id in expired:
            by_tenant[tenant_id].append(run_id)
        for tenant_id, run_ids in by_tenant.items():
            await fail_runs(
                self._deps,
                tenant_id,
                run_ids,
                "DISPATCH_EXPIRED",
                "no worker started the run in time (OPTAIC_DISPATCH_EXPIRY_SECONDS)",
                only=RunStatus.PENDING,
            )


def _by_tenant(dispatches: Iterable[Dispatch]) -> dict[str, list[Dispatch]]:
    by_tenant: dict[str, list[Dispatch]] = defaultdict(list)
    for dispatch in dispatches:
        by_tenant[dispatch.tenant_id].append(dispatch)
    return by_tenant
