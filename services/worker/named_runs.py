"""Flow runs that run-service names as it makes them, and when a worker may claim one without a look into its work pool."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import structlog

from optaic.common.v1 import flow_pb2
from optaic.rules.deployments import flow_run_parameters
from optaic.run.v1.run_report_service_pb2 import DispatchedRun
from servicekit.enums import enum_word
from worker.prefect_adapter import WorkPool
from worker.ticket import Ticket, TicketInvalidError

_VALID_SECONDS = 2.0  # for which a view of the work pool counts, from when it was asked for
_PAUSE_SECONDS = 1.0  # between two views
_LAST_SECONDS = 10.0  # for which the views go on after a name
_CALL_SECONDS = 10.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class NamedRun:
    """A flow run that run-service has just made for a run."""

    flow_run_id: UUID
    queue_id: UUID
    ticket: Ticket


def read_named(named: DispatchedRun, tenant_id: str) -> NamedRun | None:
    """Return what run-service names, as a flow run of the tenant; None if it names no run."""
    try:
        flow_run_id, queue_id = UUID(named.orchestrator_run_id), UUID(named.work_queue_id)
        given = flow_run_parameters(
            tenant_id,
            named.flow.instance_id,
            enum_word(flow_pb2.FlowKind, named.flow.flow_kind),
            named.run_id,
        )
        ticket = Ticket.read(given, str(flow_run_id), dt.datetime.now(dt.UTC))
    except (ValueError, TicketInvalidError) as error:
        _log.warning("flow run not understood", error=repr(error))
        return None
    return NamedRun(flow_run_id, queue_id, ticket) if ticket.run_id else None


class PoolViews:
    """The newest view of the work pool, renewed while names come: from which of its queues flow runs may be taken freely."""

    def __init__(self, pool: WorkPool) -> None:
        self._pool = pool
        self._free: Collection[UUID] = ()
        self._view_time = self._name_time = float("-inf")
        self._named = asyncio.Event()

    def note_name(self) -> None:
        """Have views for a while."""
        self._name_time = time.monotonic()
        self._named.set()

    def is_free(self, queue_id: UUID) -> bool:
        """Return whether a recent view shows that flow runs of the queue may be taken freely."""
        return time.monotonic() - self._view_time <= _VALID_SECONDS and queue_id in self._free

    async def run(self) -> None:
        """Look again and again while names come."""
        while True:
            if time.monotonic() - self._name_time > _LAST_SECONDS:
                self._named.clear()
                await self._named.wait()
            begun = time.monotonic()
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    self._free = await self._pool.list_free_queues()
                self._view_time = begun
            except Exception as error:  # noqa: BLE001 - the last view grows old, and then flow runs are looked for
                _log.info("work pool not seen", error=repr(error))
            await asyncio.sleep(_PAUSE_SECONDS)
