"""The Prefect flow of every deployment, as Prefect's own worker executes it; our worker does the same without Prefect's engine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Iterator

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Failed

from optaic.rules.deployments import FLOW_NAME
from redaction import redact
from worker.config import Settings
from worker.execution import execute_run
from worker.log_delivery import delivering
from worker.prefect_adapter import STATES, send_lines
from worker.ticket import Ticket, TicketInvalidError, check_tenant

_FAREWELL_SECONDS = 5.0  # for the last lines of the log


@flow(name=FLOW_NAME, retries=0, persist_result=False, log_prints=False)
async def execute(tenant_id: str, instance_id: str, flow_kind: str, run_id: str = "") -> State[None]:
    """Execute the run, or, without `run_id`, the tick of the schedule that started this flow run."""
    current = FlowRunContext.get()
    if current is None or current.flow_run is None or current.flow_run.expected_start_time is None:
        raise RuntimeError("only a Prefect flow run can execute this flow")
    settings = Settings()
    given = {
        "tenant_id": tenant_id,
        "instance_id": instance_id,
        "flow_kind": flow_kind,
        "run_id": run_id,
    }
    try:
        ticket = Ticket.read(given, str(current.flow_run.id), current.flow_run.expected_start_time)
        check_tenant(ticket, settings)
    except TicketInvalidError as error:
        return Failed(message=redact(str(error)))
    with _cancelled_by_sigterm():
        async with (
            get_client() as client,
            delivering(settings.log_folder, functools.partial(send_lines, client), _FAREWELL_SECONDS) as logs,
        ):
            ending = await execute_run(ticket, settings, logs=logs)
    return STATES[ending.outcome](message=redact(ending.message))


@contextlib.contextmanager
def _cancelled_by_sigterm() -> Iterator[None]:
    """Have SIGTERM cancel the run, which then says farewell.

    Prefect's own handler raises wherever the event loop happens to be, and the loop ends before anything was said.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    prefects = signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, prefects)
