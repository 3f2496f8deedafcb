"""Prefect as the executor sees it: a work pool to take flow runs from, and states to record; it starts no process."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import signal
from collections.abc import Collection, Sequence
from typing import Any, Self, TypeAlias
from uuid import UUID

import structlog
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import Abort, ObjectAlreadyExists, ObjectNotFound, Pause
from prefect.flow_engine import run_flow
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Crashed, Failed, Pending
from prefect.utilities.engine import propose_state

from servicekit import logging as service_logging
from worker.ticket import START_SECRET, Ticket

DueRun: TypeAlias = FlowRun
_log = structlog.get_logger(__name__)


class FlowRunRefusedError(Exception):
    """Prefect does not let the flow run start: another worker has it, or it was cancelled."""


class FlowRunUnusableError(Exception):
    """No worker can execute the flow run, now or later; the message says why."""


class WorkPool:
    """One work pool, seen through one client."""

    def __init__(self, name: str, type_: str) -> None:
        self._name = name
        self._type = type_
        self._entrypoints: dict[UUID, str] = {}
        self._client: PrefectClient = get_client()
        self._resources = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        # Prefect's own repetitions wait longer and longer; the executor has its own, which see a return at once.
        self._resources.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))
        await self._resources.enter_async_context(self._client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    async def ensure(self) -> None:
        """Create the pool if it is missing."""
        try:
            await self._client.read_work_pool(self._name)
        except ObjectNotFound:
            with contextlib.suppress(ObjectAlreadyExists):
                await self._client.create_work_pool(WorkPoolCreate(name=self._name, type=self._type))
                _log.info("work pool created", pool=self._name, type=self._type)

    async def list_due(self) -> Sequence[FlowRun]:
        """Flow runs that should have started by now, longest due first."""
        try:
            due = await self._client.get_scheduled_flow_runs_for_work_pool(
                self._name, scheduled_before=dt.datetime.now(dt.UTC)
            )
        except ObjectNotFound:
            await self.ensure()
            return ()
        return [found.flow_run for found in due]

    async def claim(self, flow_run: FlowRun) -> str:
        """Record the flow run as pending, ours; what the child needs to execute it.

        Raises:
            FlowRunRefusedError: it is not ours to start.
        """
        try:
            state = await propose_state(self._client, Pending(), flow_run_id=flow_run.id)
        except (Abort, Pause) as error:
            raise FlowRunRefusedError(str(error)) from error
        if not state.is_pending():
            raise FlowRunRefusedError(f"Prefect says {state.name}")
        flow_run.state = state
        return flow_run.model_dump_json()

    async def find_entrypoint(self, flow_run: FlowRun) -> str:
        """Return the code that its deployment names; deployments do not change theirs.

        Raises:
            FlowRunUnusableError: nothing names its code.
        """
        deployment_id = flow_run.deployment_id
        if deployment_id is None:
            raise FlowRunUnusableError(
                "The flow run was not started: it has no deployment. Start runs with `optaic run submit`."
            )
        if deployment_id not in self._entrypoints:
            try:
                deployment = await self._client.read_deployment(deployment_id)
            except ObjectNotFound:
                raise FlowRunUnusableError(
                    "The flow run was not started: its deployment was deleted."
                ) from None
            if not deployment.entrypoint:
                raise FlowRunUnusableError(
                    f"The flow run was not started: its deployment {deployment.name} has no entrypoint."
                )
            self._entrypoints[deployment_id] = deployment.entrypoint
        return self._entrypoints[deployment_id]

    async def list_cancelling(self, ids: Collection[UUID]) -> Sequence[UUID]:
        """Return those of `ids` that Prefect was asked to cancel."""
        found = await self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                id=FlowRunFilterId(any_=list(ids)),
                state=FlowRunFilterState(
                    type=FlowRunFilterStateType(any_=[StateType.CANCELLING, StateType.CANCELLED])
                ),
            )
        )
        return [flow_run.id for flow_run in found]

    async def record_cancelled(self, flow_run_id: UUID) -> None:
        """Set a flow run CANCELLED whatever its state; its process has ended."""
        state: State[None] = Cancelled(message="Cancelled; the process was ended.")
        await self._client.set_flow_run_state(flow_run_id, state, force=True)

    async def record_failed(self, flow_run_id: UUID, message: str) -> None:
        """FAILED, unless it has ended: it asks for what no worker can do."""
        await self._end(flow_run_id, Failed(message=message))

    async def record_crashed(self, flow_run_id: UUID, message: str) -> None:
        """CRASHED, unless it has ended: the fault is outside of it, and another flow run may fare better."""
        await self._end(flow_run_id, Crashed(message=message))

    async def _end(self, flow_run_id: UUID, state: State[Any]) -> None:
        current = (await self._client.read_flow_run(flow_run_id)).state
        if current is None or not current.is_final():
            await self._client.set_flow_run_state(flow_run_id, state, force=True)

    async def record_death(self, flow_run_id: UUID, exit_code: int) -> None:
        """Record the end of a child: CANCELLED if requested, CRASHED if the flow run has no end of its own."""
        current = (await self._client.read_flow_run(flow_run_id)).state
        if current is not None and current.is_final():
            return
        if current is not None and current.is_cancelling():
            await self.record_cancelled(flow_run_id)
            return
        message = f"The process ended with exit code {exit_code}."
        with contextlib.suppress(Abort):
            await propose_state(self._client, Crashed(message=message), flow_run_id=flow_run_id)


def make_ticket(flow_run: FlowRun) -> Ticket:
    """Return the ticket of a flow run, for a process that reports in its place.

    Raises:
        TicketInvalidError: it is no flow run of ours.
    """
    time = flow_run.expected_start_time or dt.datetime.now(dt.UTC)
    return Ticket.read(flow_run.parameters, str(flow_run.id), time)


def execute_flow_run(flow_run_json: str, entrypoint: str, log_level: str, start_secret: str) -> None:
    """Execute a claimed flow run in this process, a fresh child; SIGTERM cancels it."""
    from worker import isolation  # noqa: PLC0415 - imports what computes, which the executor does not need

    isolation.prepare()
    flow_run = FlowRun.model_validate_json(flow_run_json)
    os.environ["PREFECT__FLOW_RUN_ID"] = str(flow_run.id)
    os.environ[START_SECRET] = start_secret  # after the guardian was forked: no user code has it
    quieten(log_level)
    code = 0
    try:
        asyncio.run(_execute(flow_run, entrypoint))
    except (Abort, Pause) as error:
        _log.info("flow run not executed", flow_run_id=str(flow_run.id), reason=str(error))
    except (asyncio.CancelledError, KeyboardInterrupt):
        code = 128 + signal.SIGTERM
    finally:
        isolation.end_leftovers()
    if code:
        raise SystemExit(code)


async def _execute(flow_run: FlowRun, entrypoint: str) -> None:
    flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    running = run_flow(flow, flow_run=flow_run, return_type="state")
    if asyncio.iscoroutine(running):
        await running


def quieten(log_level: str) -> None:
    """Write all logs as JSON lines; keep only Prefect's handler that shows a run's log in its UI."""
    service_logging.configure(log_level, "worker")
    for name in ("prefect", *logging.root.manager.loggerDict):
        if name.split(".")[0] == "prefect":
            logger = logging.getLogger(name)
            api = [handler for handler in logger.handlers if type(handler).__name__ == "APILogHandler"]
            logger.handlers = api
            for handler in api:
                handler.addFilter(service_logging.hide_secrets)
            # `prefect.flow_runs` repeats what worker.execution says.
            logger.propagate = name != "prefect.flow_runs"
    logging.getLogger("prefect").setLevel(logging.WARNING)
