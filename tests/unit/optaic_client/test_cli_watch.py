"""Who watches on the command line hears that a service is away, on standard error, and goes on when it is back."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from optaic.cli import session
from optaic.client import silence
from optaic.instance.v1 import instance_service_pb2
from optaic.run.v1 import run_pb2
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
