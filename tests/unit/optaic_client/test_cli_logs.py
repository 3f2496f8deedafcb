"""The command line about failures and logs: why a flow failed, what a run printed, and where it was."""

import json
from collections.abc import Iterator
from typing import Any

import grpc

from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2
from optaic.run.v1 import run_log_pb2, run_pb2, run_service_pb2
from optaic.status.v1 import status_pb2, status_service_pb2
from support.command_line import ID, invoke
from support.fake_services import FakeServices


def test_a_failed_flow_shows_why(optaic: FakeServices) -> None:
    failure = lineage_pb2.FlowFailure(type="SourceNotFound", message="there is no file panel.csv")
    flow = flow_pb2.FlowRef(instance_id=ID, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
    cause = lineage_pb2.Cause(
        kind=lineage_pb2.CAUSE_KIND_NEVER_SUCCEEDED, origin=flow, message="run 1 failed: SourceNotFound"
    )
    state = lineage_pb2.FlowState(
        flow=flow, instance_name="prices", status=flow_pb2.STATUS_ERROR, failure=failure, causes=[cause]
    )
    optaic.on(
        "ExplainStaleness",
        lineage_service_pb2.ExplainStalenessResponse(
            flow_state=state, explanations=[lineage_pb2.StalenessExplanation(cause=cause)]
        ),
    )
    shown = invoke("lineage", "explain", "prices").stdout
    assert "prices/refresh  ERROR\n  SourceNotFound: there is no file panel.csv\n" in shown
    assert shown.count("SourceNotFound") == 1
    status = status_pb2.InstanceStatus(
        instance_id=ID,
        instance_name="prices",
        status=flow_pb2.STATUS_ERROR,
        flows=[status_pb2.FlowStatus(failure=failure, causes=[cause])],
    )
    optaic.on(
        "ListInstanceStatuses", status_service_pb2.ListInstanceStatusesResponse(instance_statuses=[status])
    )
    shown = invoke("status", "list").stdout
    assert "SourceNotFound: there is no file panel.csv" in shown
    assert shown.count("SourceNotFound") == 1


def test_a_failed_run_shows_its_last_lines(optaic: FakeServices) -> None:
    error = run_pb2.RunError(
        type="SourceNotFound", message="there is no file panel.csv", last_lines=["reading", "\x1b[2Jtrying"]
    )
    optaic.on("GetRun", run_pb2.Run(run_id=ID, status=run_pb2.RUN_STATUS_FAILED, error=error))
    shown = invoke("run", "get", ID).stdout
    assert "SourceNotFound: there is no file panel.csv" in shown
    assert "  reading\n  \\x1b[2Jtrying\n" in shown


def test_the_log_of_a_run_is_printed_and_followed(optaic: FakeServices) -> None:
    def line(number: int, level: Any = run_log_pb2.LOG_LEVEL_INFO) -> run_log_pb2.LogLine:
        return run_log_pb2.LogLine(level=level, logger="stdout", message=f"line {number}\x1b")

    def page(request: run_service_pb2.ListRunLogsRequest, _context: Any) -> Any:
        if request.page_token:
            return run_service_pb2.ListRunLogsResponse(lines=[line(2)])
        return run_service_pb2.ListRunLogsResponse(lines=[line(1)], next_page_token="more")

    optaic.on("ListRunLogs", page)
    shown = invoke("run", "logs", ID, "--level", "info").stdout
    assert [each.split("  ")[-1] for each in shown.splitlines()] == ["line 1\\x1b", "line 2\\x1b"]
    assert optaic.calls("ListRunLogs")[0].request.min_level == run_log_pb2.LOG_LEVEL_INFO
    lines = invoke("run", "logs", ID, "-o", "json").stdout.splitlines()
    assert [json.loads(each)["message"] for each in lines] == ["line 1\x1b", "line 2\x1b"]

    def watch(
        request: run_service_pb2.WatchRunLogsRequest, context: Any
    ) -> Iterator[run_service_pb2.WatchRunLogsResponse]:
        if not request.position:
            yield run_service_pb2.WatchRunLogsResponse(lines=[line(1)], position="one")
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        assert request.position == "one"
        yield run_service_pb2.WatchRunLogsResponse(lines=[line(2)], position="two")
        yield run_service_pb2.WatchRunLogsResponse(position="two", is_incomplete=True)

    optaic.on("WatchRunLogs", watch)
    optaic.on("GetRun", run_pb2.Run(run_id=ID, status=run_pb2.RUN_STATUS_RUNNING))
    shown = invoke("run", "logs", "-f", ID).stdout
    assert [each.split("  ")[-1][:8] for each in shown.splitlines()] == ["line 1\\x", "line 2\\x", "[optaic:"]


def test_the_traceback_of_a_run_is_printed(optaic: FakeServices) -> None:
    optaic.on("GetRunTraceback", run_service_pb2.GetRunTracebackResponse(traceback="Traceback\n  line 1\n"))
    assert invoke("run", "traceback", ID).stdout == "Traceback\n  line 1\n"
    optaic.on("GetRunTraceback", run_service_pb2.GetRunTracebackResponse())
    assert "has no traceback" in invoke("run", "traceback", ID, status=1).stderr
