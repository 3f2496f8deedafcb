"""Create a flow run in the orchestrator for each pending run."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from optaic.common.v1.flow_pb2 import FlowKind, FlowRef
from optaic.run.v1.run_report_service_pb2 import DispatchedRun
from redaction import redact
from run_service.domain.pairing import FlowRunState
from run_service.domain.statuses import ACTIVE, ENDED
from run_service.ports import (
    CreatedFlowRun,
    DeploymentMissingError,
    FlowRunRequest,
    Orchestrator,
    OrchestratorRefusedError,
    OrchestratorUnavailableError,
    idempotency_key,
)
from run_service.store import endings, queues
from run_service.store import runs as run_store
from run_service.store.queues import Dispatch
from run_service.store.records import Record
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.ending import ending_of, is_its_own, make_ending
from servicekit.backoff import backoff
from servicekit.enums import enum_number

_FIRST_DELAY = 0.5
_log = structlog.get_logger(__name__)


class Dispatcher:
    """The loop that creates flow runs and finds those of ended runs, with a bounded number of calls at once."""

    def __init__(self, deps: Dependencies, orchestrator: Orchestrator) -> None:
        self._deps = deps
        self._orchestrator = orchestrator
        self._failures = 0
        self._resume_time: datetime | None = None

    async def step(self) -> bool:
        """Process one batch of due dispatches; return False if none is left or the orchestrator does not answer."""
        deps, settings = self._deps, self._deps.settings
        now = deps.clock.now()
        if self._resume_time is not None and now < self._resume_time:
            return False  # the orchestrator did not answer just now; a new run does not change that
        async with deps.database.infra() as connection:
            claimed = await queues.claim_dispatches(
                connection,
                {"create", "cancel"},
                now,
                now + timedelta(seconds=settings.dispatch_claim_seconds),
                # While it does not answer, one call is enough to see that it answers again.
                1 if self._failures else settings.dispatch_concurrency,
            )
        if not claimed:
            return False
        outcomes = await asyncio.gather(
            *(self._act(dispatch) for dispatch in claimed), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome  # a fault of this service or its database; the claims expire
        has_answered = all(outcomes)
        self._failures = 0 if has_answered else self._failures + 1
        self._resume_time = None if has_answered else now + self._delay(self._failures)
        return has_answered

    async def _act(self, dispatch: Dispatch) -> bool:
        """Return whether the orchestrator answered."""
        try:
            if dispatch.action == "create":
                await self._create(dispatch)
            else:
                await self._find(dispatch)
        except OrchestratorUnavailableError as error:
            await self._postpone(dispatch, error)
            return False
        except (DeploymentMissingError, OrchestratorRefusedError) as error:
            await self._postpone(dispatch, error)
        return True

    async def _create(self, dispatch: Dispatch) -> None:
        deps, tenant_id = self._deps, dispatch.tenant_id
        created = await self._orchestrator.create_flow_run(
            FlowRunRequest(
                tenant_id=tenant_id,
                instance_id=dispatch.instance_id,
                flow_kind=dispatch.flow_kind,
                run_id=dispatch.run_id,
                name=dispatch.name,
                number=dispatch.number,
            )
        )
        # A worker claims it first, and starts its run when the pairing is stored; before that it is told to ask again.
        deps.hints.tell(tenant_id, _named(dispatch, created))
        flow_run_id = created.flow_run_id
        due_time = deps.clock.now() + timedelta(seconds=deps.settings.observe_interval_seconds)
        async with deps.database.transaction(tenant_id) as connection:
            await run_store.set_orchestrator_run(connection, tenant_id, dispatch.run_id, flow_run_id)
            record = await run_store.get_run(connection, tenant_id, dispatch.run_id)
            is_pair = record is not None and record.run.orchestrator_run_id == flow_run_id
            values = {
                "action": "await",
                "orchestrator_run_id": flow_run_id,
                "due_time": due_time,
                "attempts": 0,
                "seen_state": "",
                "seen_since_time": None,
                "last_error": "",
            }
            await queues.update_dispatches(connection, [dispatch], values if is_pair else {}, action="create")
            if not is_pair:
                # The run has ended, or has got another flow run, while this one was created.
                await endings.insert_endings(connection, [self._ending(dispatch, flow_run_id, record)])
        if not is_pair:
            deps.wake_ender()
        elif record is not None and record.status in ACTIVE:
            deps.watches.publish(tenant_id, [record])

    async def _find(self, dispatch: Dispatch) -> None:
        """Find the flow run of a run that has ended, so that it ends in the same way."""
        deps, tenant_id = self._deps, dispatch.tenant_id
        flow_run_id = dispatch.orchestrator_run_id
        if flow_run_id is None:  # one may have been created although no answer came
            key = idempotency_key(dispatch.run_id, dispatch.number)
            flow_run_id = await self._orchestrator.find_flow_run(key)
        async with deps.database.transaction(tenant_id) as connection:
            await queues.delete_dispatches(connection, [dispatch.key])
            if flow_run_id is not None:
                record = await run_store.get_run(connection, tenant_id, dispatch.run_id)
                await endings.insert_endings(connection, [self._ending(dispatch, flow_run_id, record)])
        deps.wake_ender()

    def _ending(self, dispatch: Dispatch, flow_run_id: str, record: Record | None) -> endings.Ending:
        """Return how a flow run must end: as its run, or CANCELLED if the run has another flow run."""
        if record is not None and record.status in ENDED and is_its_own(record, flow_run_id):
            return ending_of(self._deps, dispatch.tenant_id, record, flow_run_id=flow_run_id)
        return make_ending(
            self._deps,
            dispatch.tenant_id,
            flow_run_id,
            FlowRunState.CANCELLED,
            "the run has another flow run",
            instance_id=dispatch.instance_id,
            run_id=dispatch.run_id,
        )

    def _delay(self, attempts: int) -> timedelta:
        return dispatch_delay(attempts, timedelta(seconds=self._deps.settings.dispatch_backoff_seconds))

    async def _postpone(self, dispatch: Dispatch, error: Exception) -> None:
        attempts = dispatch.attempts + 1
        due_time = self._deps.clock.now() + self._delay(attempts)
        _log.info("dispatch postponed", run_id=dispatch.run_id, attempts=attempts, error=repr(error))
        async with self._deps.database.infra() as connection:
            await queues.update_dispatches(
                connection,
                [dispatch],
                {"due_time": due_time, "attempts": attempts, "last_error": redact(repr(error))[:1000]},
                action=dispatch.action,
            )


def _named(dispatch: Dispatch, created: CreatedFlowRun) -> DispatchedRun | None:
    """Return a flow run that waits, for a worker to claim; None if workers have to look."""
    if not created.queue_id:
        return None
    return DispatchedRun(
        orchestrator_run_id=created.flow_run_id,
        run_id=dispatch.run_id,
        flow=FlowRef(instance_id=dispatch.instance_id, flow_kind=enum_number(FlowKind, dispatch.flow_kind)),
        work_queue_id=created.queue_id,
    )


def dispatch_delay(attempts: int, longest: timedelta) -> timedelta:
    """Return the delay after failed attempt `attempts`, counted from 1, to reach the orchestrator."""
    return timedelta(seconds=backoff(attempts, first=_FIRST_DELAY, longest=longest.total_seconds()))
