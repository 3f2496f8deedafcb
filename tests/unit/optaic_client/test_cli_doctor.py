"""`optaic doctor`: one finding for each thing that a command needs, and what to do."""

import datetime as dt
import http.server
import json
import threading
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest

from optaic.cli import doctor
from optaic.cli.doctor import Finding
from optaic.client.connection import Connection
from optaic.client.discovery import find_source, find_state
from optaic.errors import UnavailableError
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from support.command_line import invoke
from support.fake_services import FakeServices, refuse

_SERVICES = [f"{each}-service" for each in ("instance", "run", "lineage", "status")]


class _Readiness(http.server.BaseHTTPRequestHandler):
    """A gateway's /readyz."""

    reached: ClassVar[dict[str, bool]] = {"instance": True}
    seconds_ahead = 0

    def do_GET(self) -> None:
        assert "Authorization" not in self.headers
        body = json.dumps(self.reached).encode()
        self.send_response_only(200)
        time = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.seconds_ahead)
        self.send_header("Date", format_datetime(time, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Readiness]]:
    """A gateway that the environment names, and what it answers."""
    handler = type("Readiness", (_Readiness,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPTAIC_GATEWAY_URL", f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def serving(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Which services say that they can work; a service that is not named here does not answer."""
    said = dict.fromkeys(("instance", "run", "lineage", "status"), True)

    async def is_serving(_: Connection, service: str) -> bool:
        if service not in said:
            raise UnavailableError(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "start the stack")
        return said[service]

    monkeypatch.setattr(Connection, "is_serving", is_serving)
    return said


@pytest.fixture
def projects(addressed: FakeServices) -> FakeServices:
    """Services that list one project."""
    listed = instance_service_pb2.ListProjectsResponse(projects=[instance_pb2.Project(name="desk")])
    addressed.on("ListProjects", listed)
    return addressed


def _found(*, status: int = 0) -> dict[str, dict[str, Any]]:
    found = json.loads(invoke("doctor", "-o", "json", status=status).stdout)
    return {each["check"]: each for each in found}


@pytest.mark.usefixtures("projects", "gateway")
def test_everything_is_ok_and_each_has_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_TOKEN", "never-shown")
    result = invoke("doctor")
    lines = result.stdout.splitlines()
    checks = ["package", "stack", "identity", *_SERVICES, "access", "gateway", "clock", "data"]
    assert [line.split()[:2] for line in lines] == [["ok", check] for check in checks]
    assert "never-shown" not in result.output
    assert "OPTAIC_RUN_ADDRESS" in result.stdout


@pytest.mark.usefixtures("projects")
def test_an_unknown_gateway_is_a_warning() -> None:
    found = _found()
    assert (found["gateway"]["result"], found["data"]["result"]) == ("warn", "warn")
    assert "OPTAIC_GATEWAY_URL" in found["gateway"]["advice"]


@pytest.mark.usefixtures("projects", "gateway")
def test_services_that_cannot_work_fail(serving: dict[str, bool]) -> None:
    serving["run"] = False
    del serving["status"]
    found = _found(status=7)
    assert "is not ready" in found["run-service"]["text"]
    assert "start the stack" in found["status-service"]["advice"]
    assert [found[each]["result"] for each in _SERVICES] == ["ok", "fail", "ok", "fail"]


def test_an_unknown_address_fails() -> None:
    found = _found(status=7)
    assert "OPTAIC_RUN_ADDRESS" in found["run-service"]["text"]
    assert found["access"]["result"] == "fail"


@pytest.mark.usefixtures("gateway")
def test_a_caller_who_is_refused_fails(addressed: FakeServices) -> None:
    def deny(_: Any, context: grpc.ServicerContext) -> None:
        refuse(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "the token is not known")

    addressed.on("ListProjects", deny)
    assert "the token is not known" in _found(status=7)["access"]["advice"]


@pytest.mark.usefixtures("projects")
def test_a_gateway_without_a_service_fails(gateway: type[_Readiness]) -> None:
    gateway.reached = {"instance": True, "run": False}
    assert _found(status=7)["gateway"]["text"].endswith("does not reach: run")


@pytest.mark.usefixtures("projects")
def test_a_gateway_that_is_away_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_GATEWAY_URL", "http://127.0.0.1:9")
    assert _found(status=7)["gateway"]["result"] == "fail"


@pytest.mark.parametrize("url", ["http://host:port", "http://[::1", "https://exa mple", "localhost:8080"])
@pytest.mark.usefixtures("projects")
def test_what_is_no_address_of_a_gateway_fails(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPTAIC_GATEWAY_URL", url)
    found = _found(status=7)["gateway"]
    assert found["result"] == "fail"
    assert "set OPTAIC_GATEWAY_URL to one such as" in found["advice"]


@pytest.mark.parametrize(("ahead", "result"), [(60, "warn"), (-60, "warn"), (0, "ok")])
@pytest.mark.usefixtures("projects")
def test_clocks_that_differ_are_a_warning(gateway: type[_Readiness], ahead: int, result: str) -> None:
    gateway.seconds_ahead = ahead
    assert _found()["clock"]["result"] == result


@pytest.mark.usefixtures("projects", "gateway")
def test_certificates_that_cannot_be_read_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_TLS_CA", "/lost/ca.pem")
    assert "/lost/ca.pem" in _found(status=7)["identity"]["text"]


def test_data_is_read_from_its_folder_or_from_the_gateway(tmp_path: Path) -> None:
    def result(root: str, gateway: str) -> Finding:
        return doctor._data(root, gateway)

    assert "can be read" in result(str(tmp_path), "").text
    assert "from the gateway" in result(str(tmp_path / "lost"), "http://g").text
    assert result(str(tmp_path / "lost"), "").result == "warn"


def test_the_state_file_is_named_as_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / ".state"
    state.mkdir()
    (state / "stack.json").write_text(json.dumps({"endpoints": {"run": "127.0.0.1:1"}}))
    assert find_source("run") == str(state / "stack.json")
    assert find_source("status") == ""
    assert find_state() == state
    monkeypatch.setenv("OPTAIC_RUN_ADDRESS", "127.0.0.1:2")
    assert find_source("run") == "OPTAIC_RUN_ADDRESS"


@pytest.mark.usefixtures("projects")
def test_no_password_of_an_address_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_GATEWAY_URL", "http://ann:hunter2@127.0.0.1:9")
    assert "hunter2" not in invoke("doctor", status=7).output
