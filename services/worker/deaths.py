"""Report the death of a flow run's process to run-service, from the process that observed it."""

from __future__ import annotations

from typing import Any, cast

import structlog

from optaic.run.v1 import (
    run_pb2,
    run_report_service_pb2,
    run_report_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
)
from servicekit import client, context
from servicekit.errors import DomainError
from servicekit.ids import new_id
from worker.config import Settings
from worker.failures import describe_death
from worker.reports import persist
from worker.ticket import Ticket

_PATIENCE_SECONDS = 60.0  # then run-service has found out by itself
_log = structlog.get_logger(__name__)


async def report_death(ticket: Ticket, settings: Settings, exit_code: int) -> None:
    """Fail the run that the process had: it can say nothing any more, and took what it held of the run with it.

    A run that it had not begun is left alone: the crash of the flow run has it dispatched again.
    """
    request = context.RequestContext(ticket.tenant_id, "worker", new_id(), context.new_traceparent())
    async with client.connect(settings.run_address, token_source=lambda: settings.service_token) as channel:
        stub = cast(
            "run_report_service_pb2_grpc.RunReportServiceAsyncStub",
            run_report_service_pb2_grpc.RunReportServiceStub(cast("Any", channel)),
        )
        reads = cast(
            "run_service_pb2_grpc.RunServiceAsyncStub",
            run_service_pb2_grpc.RunServiceStub(cast("Any", channel)),
        )
        with context.bind(request):
            try:
                if ticket.run_id:  # a tick that was not begun has no run: it gets one, which fails
                    wanted = run_service_pb2.GetRunRequest(run_id=ticket.run_id)
                    run = await persist(lambda: reads.GetRun(wanted), _PATIENCE_SECONDS)
                    if run.status == run_pb2.RUN_STATUS_PENDING:
                        _log.info(
                            "its process ended before the run began", run_id=run.run_id, exit_code=exit_code
                        )
                        return
                # The same flow run gets the same answer: the fencing token that its process was given.
                started = await persist(lambda: stub.StartRun(ticket.make_request()), _PATIENCE_SECONDS)
                if started.run.status != run_pb2.RUN_STATUS_RUNNING:
                    return
                failure = describe_death(exit_code, None, "")
                report = run_report_service_pb2.FailRunRequest(
                    run_id=started.run.run_id,
                    fencing_token=started.fencing_token,
                    error=run_pb2.RunError(type=failure.type, message=failure.message),
                )
                await persist(lambda: stub.FailRun(report), _PATIENCE_SECONDS)
            except DomainError as error:
                _log.info("death not reported", flow_run_id=ticket.orchestrator_run_id, reason=repr(error))
            else:
                _log.warning("run failed", run_id=report.run_id, type=failure.type, error=failure.message)
