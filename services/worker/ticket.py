"""What the orchestrator hands to an executor, and how a run is asked for with it; it asks nobody."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_report_service_pb2


@dataclass(frozen=True)
class Ticket:
    """What the orchestrator hands to an executor."""

    tenant_id: str
    instance_id: str
    flow_kind: str  # lower case, without prefix
    run_id: str  # empty: the orchestrator's schedule started it
    orchestrator_run_id: str
    scheduled_time: dt.datetime  # the nominal time
    executor: str

    def make_request(self) -> run_report_service_pb2.StartRunRequest:
        """Start the run, or, asked again for the same flow run, learn how it was started."""
        request = run_report_service_pb2.StartRunRequest(
            orchestrator_run_id=self.orchestrator_run_id, executor=self.executor
        )
        if self.run_id:
            request.run_id = self.run_id
        else:
            request.scheduled.flow.instance_id = self.instance_id
            request.scheduled.flow.flow_kind = flow_pb2.FlowKind.Value(f"FLOW_KIND_{self.flow_kind.upper()}")
            request.scheduled.scheduled_time.FromDatetime(self.scheduled_time)
        return request
