"""`optaic status` against the same services: what it shows, and what it asks for."""

import datetime as dt
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2
from optaic.status.v1 import status_pb2, status_service_pb2
from support.command_line import ID, invoke
from support.fake_services import FakeServices, refuse

FILTERS = (
    "--kind", "dataset", "--cause", "overdue", "--flow", "refresh", "--label", "desk=a=b", "--owner", "ann",
    "--name", "eod_prices", "--name-prefix", "eod", "--unchanged-for", "2d", "--changed-within", "90m",
    "--as-of", "2026-11-20",
)  # fmt: skip


def _check_filters(request: status_service_pb2.ListInstanceStatusesRequest) -> None:
    """Check that every one of the filters arrived."""
    shown = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    assert request.as_of.time.ToDatetime(dt.UTC) == shown
    assert request.unchanged_since_time.ToDatetime(dt.UTC) == shown - dt.timedelta(days=2)
    assert request.changed_since_time.ToDatetime(dt.UTC) == shown - dt.timedelta(minutes=90)
    assert list(request.kinds) == [instance_pb2.INSTANCE_KIND_DATASET]
    assert list(request.cause_kinds) == [lineage_pb2.CAUSE_KIND_OVERDUE]
    assert list(request.flow_kinds) == [flow_pb2.FLOW_KIND_REFRESH]
    assert dict(request.labels) == {"desk": "a=b"}
    assert (request.owner, request.name, request.name_prefix) == ("ann", "eod_prices", "eod")


def test_statuses_are_watched_live(optaic: FakeServices) -> None:
    cause = lineage_pb2.Cause(message="prices moved")
    status = status_pb2.InstanceStatus(
        instance_id=ID,
        instance_name="prices",
        status=flow_pb2.STATUS_STALE,
        flows=[status_pb2.FlowStatus(causes=[cause])],
    )

    def watch(request: Any, _: grpc.ServicerContext) -> Iterator[Any]:
        yield status_service_pb2.WatchInstanceStatusesResponse(revision=request.from_revision + 1)
        yield status_service_pb2.WatchInstanceStatusesResponse(revision=8, instance_status=status)

    optaic.on("WatchInstanceStatuses", watch)
    line = invoke("status", "watch", "prices", "--from-revision", "6", "--limit", "1").stdout
    assert "prices  STALE  prices moved" in line
    request = optaic.calls("WatchInstanceStatuses")[0].request
    assert (list(request.instance_ids), request.from_revision) == ([ID], 6)
    lines = invoke(
        "status", "watch", "--from-revision", "6", "--limit", "2", "-o", "json"
    ).stdout.splitlines()
    assert [json.loads(each)["revision"] for each in lines] == ["7", "8"]
    optaic.on(
        "ListInstanceStatuses", status_service_pb2.ListInstanceStatusesResponse(instance_statuses=[status])
    )
    assert "STALE" in invoke("status", "list").stdout
    invoke("status", "list", "--status", "stale", *FILTERS)
    request = optaic.calls("ListInstanceStatuses")[-1].request
    assert list(request.statuses) == [flow_pb2.STATUS_STALE]
    _check_filters(request)
    invoke("status", "list", "--unchanged-for", "2d", "--changed-within", "90m")
    request = optaic.calls("ListInstanceStatuses")[-1].request
    assert request.unchanged_since_time.seconds + 172_800 == pytest.approx(time.time(), abs=60)
    assert request.changed_since_time.seconds + 5_400 == pytest.approx(time.time(), abs=60)
    for wrong in (("--label", "desk"), ("--label", "a=1", "--label", "a=2"), ("--unchanged-for", "two days")):
        invoke("status", "list", *wrong, status=2)


def test_ages_count_until_the_moment_that_is_shown(optaic: FakeServices) -> None:
    optaic.on("ListInstanceStatuses", status_service_pb2.ListInstanceStatusesResponse())

    def asked(*options: str) -> status_service_pb2.ListInstanceStatusesRequest:
        invoke("status", "list", "--as-of", "2026-11-10T12:00:00", *options)
        request: status_service_pb2.ListInstanceStatusesRequest = optaic.calls("ListInstanceStatuses")[
            -1
        ].request
        return request

    moment = dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC)
    unchanged = asked("--unchanged-for", "2d").unchanged_since_time
    assert unchanged.ToDatetime(dt.UTC) == moment - dt.timedelta(days=2)
    changed = asked("--changed-within", "100000s").changed_since_time
    assert changed.ToDatetime(dt.UTC) == moment - dt.timedelta(seconds=100_000)
    for endless in ("1000000d", "1" + 30 * "0" + "s"):
        refused = invoke("status", "list", "--unchanged-for", endless, status=2)
        assert "--unchanged-for" in refused.stderr


@pytest.mark.parametrize("command", ["list", "count"])
def test_statuses_are_shown_as_of_a_revision_or_as_a_run_saw_them(optaic: FakeServices, command: str) -> None:
    optaic.on("ListInstanceStatuses", status_service_pb2.ListInstanceStatusesResponse())
    optaic.on("GetRun", run_pb2.Run(run_id=ID, lineage_revision=17))
    for text, revision in (("1841", 1841), (ID, 17)):
        invoke("status", command, "--as-of", text)
        assert optaic.calls("ListInstanceStatuses")[-1].request.as_of.revision == revision
        refused = invoke("status", command, "--as-of", text, "--unchanged-for", "2d", status=2)
        assert "must be a time" in refused.stderr


@pytest.mark.parametrize("command", ["list", "count"])
def test_an_incomplete_answer_says_so(optaic: FakeServices, command: str) -> None:
    count = status_service_pb2.StatusCount(status=flow_pb2.STATUS_STALE, instance_count=3)
    answer = status_service_pb2.ListInstanceStatusesResponse(status_counts=[count], is_incomplete=True)
    optaic.on("ListInstanceStatuses", answer)
    assert "some instances may be missing" in invoke("status", command, "--owner", "ann").stderr
    answer.is_incomplete = False
    assert not invoke("status", command, "--owner", "ann").stderr


def test_the_history_of_a_deleted_instance_is_shown_by_its_id(optaic: FakeServices) -> None:
    def missing(_: Any, context: grpc.ServicerContext) -> None:
        refuse(context, grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND", "there is no such instance")

    for method in ("GetInstance", "BatchGetInstances"):
        optaic.on(method, missing)
    deleted = status_pb2.StatusTransition(instance_id=ID, from_status=flow_pb2.STATUS_READY)
    optaic.on("GetStatusHistory", status_service_pb2.GetStatusHistoryResponse(transitions=[deleted]))
    assert "DELETED" in invoke("status", "history", ID).stdout
    optaic.on("GetStatusHistory", status_service_pb2.GetStatusHistoryResponse())
    assert "no such instance" in invoke("status", "history", ID, status=3).stderr


def test_the_history_and_the_availability_of_statuses_are_shown(optaic: FakeServices) -> None:
    entry = status_pb2.StatusTransition(instance_id=ID, to_status=flow_pb2.STATUS_READY, caused_by_run_id="r")
    entry.duration.FromTimedelta(dt.timedelta(days=2, hours=3))
    deleted = status_pb2.StatusTransition(instance_id=ID, from_status=flow_pb2.STATUS_READY)
    optaic.on("GetStatusHistory", status_service_pb2.GetStatusHistoryResponse(transitions=[deleted, entry]))
    table = invoke("status", "history", "prices", "--start", "2026-11-01").stdout
    assert "READY" in table
    assert "2 days, 3:00:00" in table
    assert "DELETED" in table
    request = optaic.calls("GetStatusHistory")[0].request
    assert request.start_time.ToDatetime() == dt.datetime(2026, 11, 1)  # noqa: DTZ001 - a Timestamp is in UTC
    assert (request.instance_id, request.HasField("end_time"), request.only_status_changes) == (
        ID,
        False,
        True,
    )
    share = status_pb2.WindowAvailability(ready_share=0.125)
    windows = [share, status_pb2.WindowAvailability(), share]
    shares = status_pb2.InstanceAvailability(instance_id=ID, instance_name="prices", windows=windows)
    optaic.on(
        "ListInstanceAvailability",
        status_service_pb2.ListInstanceAvailabilityResponse(instance_availabilities=[shares]),
    )
    assert "prices  12.50%    -       12.50%" in invoke("status", "availability", "prices").stdout
    invoke("status", "availability", "--start", "2026-11-01", "--end", "2026-11-02T12:00:00")
    first, second = (call.request for call in optaic.calls("ListInstanceAvailability"))
    assert (list(first.instance_ids), len(first.windows)) == ([ID], 0)
    (window,) = second.windows
    assert window.end_time.seconds - window.start_time.seconds == 36 * 3_600
    invoke("status", "availability", "--end", "2026-11-02", status=2)


def test_statuses_are_counted(optaic: FakeServices) -> None:
    counts = [status_service_pb2.StatusCount(status=flow_pb2.STATUS_STALE, instance_count=3)]
    optaic.on("ListInstanceStatuses", status_service_pb2.ListInstanceStatusesResponse(status_counts=counts))
    assert json.loads(invoke("status", "count", "--owner", "ann", "-o", "json").stdout) == {"STALE": 3}
    assert "STALE" in invoke("status", "count").stdout
    request = optaic.calls("ListInstanceStatuses")[0].request
    assert (request.owner, request.with_counts) == ("ann", True)
    invoke("status", "count", *FILTERS)
    _check_filters(optaic.calls("ListInstanceStatuses")[-1].request)
