"""Prefect as the executor sees it: a work pool to take flow runs from, and states to record; it starts no process."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self
from uuid import UUID

import structlog
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort, ObjectAlreadyExists, ObjectNotFound, Pause, PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running
from prefect.utilities.engine import propose_state

from redaction import redact
from servicekit import logging as service_logging
from worker.config import Settings
from worker.execution import Ending, Outcome
from worker.log_delivery import LinesRefusedError
from worker.log_spool import TimedLine
from worker.ticket import Ticket

STATES = {Outcome.COMPLETED: Completed, Outcome.FAILED: Failed, Outcome.CANCELLED: Cancelled}
_EPOCH, _MICROSECOND = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(microseconds=1)
_REFUSALS = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
_log = structlog.get_logger(__name__)


class FlowRunRefusedError(Exception):
    """Prefect does not let the flow run start: another worker has it, or it was cancelled."""


class FlowRunNotWaitingError(FlowRunRefusedError):
    """Prefect has let a flow run be claimed that had ended, or whose time has not come; it must be given back."""

    def __init__(self, message: str, state_id: UUID) -> None:
        super().__init__(message)
        self.state_id = state_id  # of the claim


@dataclass(frozen=True)
class DueRun:
    """A flow run that waits in a work pool."""

    id: UUID
    parameters: Mapping[str, Any]
    expected_start_time: dt.datetime | None = None


class WorkPool:
    """One work pool, seen through one client."""

    def __init__(self, settings: Settings) -> None:
        self._name, self._type = settings.own_work_pool, settings.work_pool_type
        # Given here, because the environment has neither the address nor a credential.
        self._client = PrefectClient(
            settings.prefect_api_url,
            auth_string=settings.prefect_auth_string or None,
            api_key=settings.prefect_api_key or None,
            httpx_settings={"verify": settings.https_context()} if settings.https_ca is not None else None,
        )
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

    async def list_due(self, limit: int) -> Sequence[DueRun]:
        """Return flow runs that should have started by now, longest due first."""
        try:
            # The client has a method for this that takes no limit: with hundreds in the queue each look costs much.
            response = await self._client.request(
                "POST",
                "/work_pools/{name}/get_scheduled_flow_runs",
                path_params={"name": self._name},
                json={"scheduled_before": dt.datetime.now(dt.UTC).isoformat(), "limit": limit},
            )
        except PrefectHTTPStatusError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
            await self.ensure()
            return ()
        return [_due_run_of(each["flow_run"]) for each in response.json()]

    async def list_free_queues(self) -> Collection[UUID]:
        """Return the queues from which flow runs may be taken in any number; none while the pool is paused or limited."""
        pool, queues = await asyncio.gather(
            self._client.read_work_pool(self._name),
            self._client.read_work_queues(work_pool_name=self._name),
        )
        if pool.is_paused or pool.concurrency_limit is not None:
            return frozenset()
        return frozenset(each.id for each in queues if not each.is_paused and each.concurrency_limit is None)

    async def list_waiting(self, ids: Collection[UUID]) -> Collection[UUID]:
        """Return those of `ids` that still wait and should have started by now."""
        wanted = {
            "id": {"any_": [str(flow_run_id) for flow_run_id in ids]},
            "state": {"type": {"any_": [StateType.SCHEDULED]}},
            "next_scheduled_start_time": {"before_": dt.datetime.now(dt.UTC).isoformat()},
        }
        response = await self._client.request("POST", "/flow_runs/filter", json={"flow_runs": wanted})
        return {UUID(each["id"]) for each in response.json()}

    async def claim(self, flow_run_id: UUID) -> None:
        """Record a flow run as pending, ours.

        Raises:
            FlowRunNotWaitingError: It must be given back.
            FlowRunRefusedError: It is not ours to start.
        """
        claimed = await self._propose(flow_run_id, Pending())
        # Prefect copies this time from a state SCHEDULED only. It lets a flow run that has ended become PENDING, too.
        time = claimed.state_details.scheduled_time
        if time is None:
            raise FlowRunNotWaitingError("it had ended", claimed.id)
        if time > max(claimed.timestamp, dt.datetime.now(dt.UTC)):  # Prefect's clock and ours
            raise FlowRunNotWaitingError(f"it is not due before {time}", claimed.id)

    async def give_back(self, flow_run_id: UUID, claim_id: UUID) -> None:
        """Undo a claim: set the state that the flow run had before it, unless it has a later one by now."""
        states = await self._client.read_flow_run_states(flow_run_id)  # oldest first
        if len(states) > 1 and states[-1].id == claim_id:
            await self._client.set_flow_run_state(flow_run_id, states[-2], force=True)

    async def record_running(self, flow_run_id: UUID) -> None:
        """Record that a claimed flow run is executed; raises as `claim`."""
        await self._propose(flow_run_id, Running())

    async def _propose(self, flow_run_id: UUID, wanted: State[Any]) -> State[Any]:
        try:
            state = await propose_state(self._client, wanted, flow_run_id=flow_run_id)
        except (Abort, Pause) as error:
            raise FlowRunRefusedError(str(error)) from error
        if state.type is not wanted.type:
            raise FlowRunRefusedError(f"Prefect says {state.name}")
        return state

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

    async def record_end(self, flow_run_id: UUID, ending: Ending) -> None:
        """Record how its run ended, unless the flow run has ended; a run that has completed says how, in any case."""
        state: State[Any] = STATES[ending.outcome](message=redact(ending.message))
        if ending.outcome is Outcome.COMPLETED:
            await self._client.set_flow_run_state(flow_run_id, state, force=True)
        else:
            await self._end(flow_run_id, state)

    async def record_failed(self, flow_run_id: UUID, message: str) -> None:
        """FAILED, unless it has ended: it asks for what no worker can do."""
        await self._end(flow_run_id, Failed(message=message))

    async def record_crashed(self, flow_run_id: UUID, message: str) -> None:
        """CRASHED, unless it has ended: the fault is outside of it, and another flow run may fare better."""
        await self._end(flow_run_id, Crashed(message=message))

    async def send_lines(self, flow_run_id: str, lines: Sequence[TimedLine]) -> None:
        """Add lines to the log of a flow run; raises as the function of that name."""
        await send_lines(self._client, flow_run_id, lines)

    async def _end(self, flow_run_id: UUID, state: State[Any]) -> None:
        current = (await self._client.read_flow_run(flow_run_id)).state
        if current is None or not current.is_final():
            await self._client.set_flow_run_state(flow_run_id, state, force=True)


async def send_lines(client: PrefectClient, flow_run_id: str, lines: Sequence[TimedLine]) -> None:
    """Add lines to the log of a flow run.

    Raises:
        LinesRefusedError: Prefect never takes them.
    """
    body = [
        {
            "flow_run_id": flow_run_id,
            "timestamp": (_EPOCH + each.time * _MICROSECOND).isoformat(),
            "level": each.line.level,
            "name": each.line.logger,
            "message": each.line.message,
        }
        for each in lines
    ]
    try:
        await client.request("POST", "/logs/", json=body)
    except PrefectHTTPStatusError as error:
        if error.response.status_code in _REFUSALS:
            raise LinesRefusedError(f"{error.response.status_code}: {error.response.text[:500]}") from error
        raise


def _due_run_of(found: dict[str, Any]) -> DueRun:
    time = found["expected_start_time"]
    return DueRun(UUID(found["id"]), found["parameters"], dt.datetime.fromisoformat(time) if time else None)


def make_ticket(flow_run: DueRun) -> Ticket:
    """Return the ticket of a flow run, for a process that reports in its place.

    Raises:
        TicketInvalidError: it is no flow run of ours.
    """
    time = flow_run.expected_start_time or dt.datetime.now(dt.UTC)
    return Ticket.read(flow_run.parameters, str(flow_run.id), time)


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
