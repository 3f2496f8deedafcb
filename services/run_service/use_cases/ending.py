"""Make the flow run of an ended run end alike, whichever process dies meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from optaic.run.v1 import run_pb2
from run_service.domain.pairing import FlowRunState, end_of
from run_service.store.endings import Ending
from run_service.store.records import Record
from run_service.use_cases.dependencies import Dependencies

# Whether the executor ends the flow run itself after its report, or run-service must.
Manner = Literal["ends_itself", "must_end"]


def is_its_own(record: Record, flow_run_id: str) -> bool:
    """Return whether a flow run is, or may become, the flow run of the run."""
    is_free = record.run.orchestrator_run_id in {"", flow_run_id}
    return is_free and flow_run_id not in record.superseded_run_ids


def ending_of(
    deps: Dependencies,
    tenant_id: str,
    record: Record,
    manner: Manner = "must_end",
    flow_run_id: str = "",
) -> Ending:
    """Return how a flow run of an ended run must end; by default the flow run that it is paired with."""
    return make_ending(
        deps,
        tenant_id,
        flow_run_id or record.run.orchestrator_run_id,
        end_of(record.status),
        _message(record.run),
        instance_id=record.run.instance_id,
        run_id=record.run.run_id,
        manner=manner,
    )


def make_ending(
    deps: Dependencies,
    tenant_id: str,
    flow_run_id: str,
    state: FlowRunState,
    message: str,
    *,
    instance_id: str,
    run_id: str | None = None,
    manner: Manner = "must_end",
) -> Ending:
    """Return how a flow run must end."""
    now: datetime = deps.clock.now()
    settings = deps.settings
    wait = settings.observe_interval_seconds if manner == "ends_itself" else 0
    settle = wait if manner == "ends_itself" else settings.end_settle_seconds
    return Ending(
        tenant_id=tenant_id,
        orchestrator_run_id=flow_run_id,
        run_id=run_id,
        instance_id=instance_id,
        state=state,
        message=message,
        settle_time=now + timedelta(seconds=settle),
        due_time=now + timedelta(seconds=wait),
    )


def _message(run: run_pb2.Run) -> str:
    if run.HasField("error"):
        return f"{run.error.type}: {run.error.message}"[:1000]
    return "the run has ended"
