"""The Prefect flow of every deployment; it turns an ending into a Prefect state and does nothing else."""

from __future__ import annotations

import os
import socket

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed

from worker.config import Settings
from worker.execution import Outcome, Ticket, execute_run

_STATES = {Outcome.COMPLETED: Completed, Outcome.FAILED: Failed, Outcome.CANCELLED: Cancelled}


@flow(name="optaic", retries=0, persist_result=False, log_prints=False)
async def execute(tenant_id: str, instance_id: str, flow_kind: str, run_id: str = "") -> State[None]:
    """Execute the run, or, without `run_id`, the tick of the schedule that started this flow run."""
    current = FlowRunContext.get()
    if current is None or current.flow_run is None or current.flow_run.expected_start_time is None:
        raise RuntimeError("this flow is executed by a Prefect flow run only")
    ticket = Ticket(
        tenant_id=tenant_id,
        instance_id=instance_id,
        flow_kind=flow_kind,
        run_id=run_id,
        orchestrator_run_id=str(current.flow_run.id),
        scheduled_time=current.flow_run.expected_start_time,
        executor=f"{socket.gethostname()}:{os.getpid()}",
    )
    ending = await execute_run(ticket, Settings())
    return _STATES[ending.outcome](message=ending.message)
