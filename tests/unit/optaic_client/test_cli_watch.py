"""Who watches on the command line hears that a service is away, on standard error, and goes on when it is back."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from optaic.cli import session
from optaic.client import silence
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_service_pb2
from optaic.run.v1 import refresh_pb2, run_pb2, run_service_pb2
from optaic.status.v1 import status_pb2, status_service_pb2
from support.command_line import ID, PRICES, invoke
from support.fake_services import FakeServices


@pytest.fixture(autouse=True)
def notices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said, sooner than after the usual seconds."""
    monkeypatch.setattr(silence, "_PATIENCE", 0.1)
    monkeypatch.setattr(silence, "_LOOK", 0.02)
    monkeypatch.setattr(session, "_PAUSE", 0.01)
    said: list[str] = []
    give_notice = session._give_notice

    def note(message: str) -> None:
        said.append(message)
        give_notice(message)

    monkeypatch.setattr(session, "_give_notice", note)
    return said


def _away(optaic: FakeServices, method: str, context: grpc.ServicerContext, notices: list[str]) -> None:
    """Be away until somebody has said so."""
    if not notices and len(optaic.calls(method)) < 500:
        context.abort(grpc.StatusCode.UNAVAILABLE, "the stack is down")


def _assert_said(optaic: FakeServices, result: Any, service: str) -> None:
    assert f"{service}-service at {optaic.address} does not answer (the stack is down" in result.stderr
    assert "does not answer" not in result.stdout
    assert result.stdout.strip()


def test_a_status_watch_gives_notice_of_silence(optaic: FakeServices, notices: list[str]) -> None:
    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        _away(optaic, "WatchInstanceStatuses", context, notices)
        assert request.from_revision == 6
        status = status_pb2.InstanceStatus(instance_id=ID, instance_name="prices")
        yield status_service_pb2.WatchInstanceStatusesResponse(revision=7, instance_status=status)

    optaic.on("WatchInstanceStatuses", watch)
    result = invoke("status", "watch", "--from-revision", "6", "--limit", "1")
    _assert_said(optaic, result, "status")


@pytest.mark.parametrize("arguments", [("run", "watch", "r"), ("run", "submit", "prices", "--wait")])
def test_a_run_watch_gives_notice_of_silence(
    optaic: FakeServices, notices: list[str], arguments: tuple[str, ...]
) -> None:
    def watch(_: Any, context: grpc.ServicerContext) -> Iterator[run_pb2.Run]:
        _away(optaic, "WatchRun", context, notices)
        yield run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED)

    optaic.on("GetRun", run_pb2.Run(run_id="r"))
    optaic.on("SubmitRun", run_pb2.Run(run_id="r"))
    optaic.on("WatchRun", watch)
    _assert_said(optaic, invoke(*arguments), "run")


@pytest.mark.parametrize(
    ("arguments", "method"),
    [(("status", "watch", "prices", "--limit", "1"), "ListInstances"), (("run", "watch", "r"), "GetRun")],
)
def test_lookups_before_a_watch_give_notice_of_silence(
    optaic: FakeServices, notices: list[str], arguments: tuple[str, ...], method: str
) -> None:
    answers = {
        "ListInstances": instance_service_pb2.ListInstancesResponse(instances=[PRICES]),
        "GetRun": run_pb2.Run(run_id="r"),
    }

    def look(_: Any, context: grpc.ServicerContext) -> Any:
        _away(optaic, method, context, notices)
        return answers[method]

    def changes(*_: Any) -> Iterator[Any]:
        status = status_pb2.InstanceStatus(instance_id=ID, instance_name="prices")
        yield status_service_pb2.WatchInstanceStatusesResponse(revision=7, instance_status=status)

    def runs(*_: Any) -> Iterator[run_pb2.Run]:
        yield run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED)

    optaic.on(method, look)
    optaic.on("WatchInstanceStatuses", changes)
    optaic.on("WatchRun", runs)
    result = invoke(*arguments)
    assert "the services do not answer; waiting until they do" in result.stderr
    assert "the services answer again" in result.stderr
    assert result.stdout.strip()


def _status(name: str, status: flow_pb2.Status.ValueType, revision: int = 0) -> status_pb2.InstanceStatus:
    return status_pb2.InstanceStatus(
        instance_id=f"{ID[:-1]}{len(name)}", instance_name=name, status=status, revision=revision
    )


@pytest.fixture
def statuses(optaic: FakeServices) -> FakeServices:
    """Two statuses, of which one changes while the connection is lost once."""

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        answer = status_service_pb2.WatchInstanceStatusesResponse
        if len(optaic.calls("WatchInstanceStatuses")) == 1:
            yield answer(instance_status=_status("b", flow_pb2.STATUS_READY), is_initial=True)
            context.abort(grpc.StatusCode.UNAVAILABLE, "in the middle of the beginning")
        if not request.HasField("from_revision"):
            yield answer(instance_status=_status("b", flow_pb2.STATUS_READY), is_initial=True)
            yield answer(instance_status=_status("aa", flow_pb2.STATUS_ERROR), is_initial=True)
            yield answer(revision=5)
            context.abort(grpc.StatusCode.UNAVAILABLE, "once more")
        assert request.from_revision == 5
        yield answer(instance_status=_status("b", flow_pb2.STATUS_STALE, 6), revision=6)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "that is enough")

    optaic.on("WatchInstanceStatuses", watch)
    return optaic


@pytest.mark.parametrize("arguments", [("list",), ("get", "prices")])
@pytest.mark.usefixtures("statuses")
def test_watching_prints_what_is_there_once_and_then_each_change(arguments: tuple[str, ...]) -> None:
    lines = invoke("status", *arguments, "-w", status=5).stdout.splitlines()
    found = [
        (word, name)
        for line in lines
        for name in ("aa", "b")
        for word in line.split()
        if name in line.split()
    ]
    changes = [pair for pair in found if pair[0] in {"READY", "ERROR", "STALE"}]
    assert changes == [("ERROR", "aa"), ("READY", "b"), ("STALE", "b")]


@pytest.mark.usefixtures("statuses")
def test_watching_writes_one_json_object_a_line() -> None:
    lines = invoke("status", "list", "--watch", "-o", "json", status=5).stdout.splitlines()
    assert [json.loads(line).get("revision", "0") for line in lines] == ["0", "0", "0", "5", "6"]


@pytest.mark.parametrize(
    "option",
    [("--status", "stale"), ("--filter", "kind=model"), ("--as-of", "3"), ("-o", "name"), ("-o", "csv")],
)
@pytest.mark.usefixtures("optaic")
def test_what_a_watch_cannot_do_is_wrong_usage(option: tuple[str, ...]) -> None:
    assert "--watch" in invoke("status", "list", "--watch", *option, status=2).stderr


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (run_pb2.RUN_STATUS_COMPLETED, 0),
        (run_pb2.RUN_STATUS_FAILED, 9),
        (run_pb2.RUN_STATUS_CANCELLED, 10),
    ],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_a_watched_run_ends_with_its_status(
    optaic: FakeServices, end: run_pb2.RunStatus.ValueType, status: int, output: str
) -> None:
    running = run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_RUNNING)
    optaic.on("GetRun", running)
    optaic.on("WatchRun", lambda *_: iter([running, run_pb2.Run(run_id="r", status=end)]))
    result = invoke("run", "get", "r", "-w", "-o", output, status=status)
    assert result.stdout.count(run_pb2.RunStatus.Name(end).removeprefix("RUN_STATUS_")) == 1
    if output == "json":
        assert len(result.stdout.splitlines()) == 2


def test_a_watched_refresh_ends_with_its_status(optaic: FakeServices) -> None:
    refresh = refresh_pb2.Refresh(refresh_id="x", status=refresh_pb2.REFRESH_STATUS_RUNNING)
    ended = refresh_pb2.Refresh(refresh_id="x", status=refresh_pb2.REFRESH_STATUS_FAILED)
    flow = refresh_pb2.RefreshFlow(instance_name="prices", status=refresh_pb2.REFRESH_FLOW_STATUS_FAILED)
    optaic.on("GetRefresh", refresh)
    changes = [run_service_pb2.WatchRefreshResponse(refresh=ended, flows=[flow])]
    optaic.on("WatchRefresh", lambda *_: iter(changes))
    result = invoke("refreshes", "get", "x", "--watch", status=9)
    assert "prices" in result.stdout
