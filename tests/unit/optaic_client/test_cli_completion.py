"""What a shell is proposed for a name: what the services know, and nothing where they do not answer."""

import time
import uuid
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from optaic.cli import completion
from optaic.cli.app import app
from optaic.definition.v1 import definition_pb2, definition_service_pb2
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.status.v1 import status_pb2, status_service_pb2
from support.fake_services import FakeServices

_DESK = str(uuid.UUID(int=2))


@pytest.fixture
def known(optaic: FakeServices) -> FakeServices:
    """Services that know some names."""

    def statuses(request: Any, _: grpc.ServicerContext) -> Any:
        names = [name for name in ("prices", "prices_eu", "signal") if name.startswith(request.name_prefix)]
        found = [status_pb2.InstanceStatus(instance_name=name) for name in names]
        return status_service_pb2.ListInstanceStatusesResponse(instance_statuses=found)

    desk = instance_pb2.Project(project_id=_DESK, name="desk")
    smooth = definition_pb2.Definition(name="smooth")
    optaic.on("ListInstanceStatuses", statuses)
    optaic.on("GetProject", desk)
    optaic.on("ListProjects", instance_service_pb2.ListProjectsResponse(projects=[desk]))
    optaic.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse(definitions=[smooth]))
    optaic.on(
        "ListRuns", run_service_pb2.ListRunsResponse(runs=[run_pb2.Run(run_id="r1"), run_pb2.Run(run_id="q")])
    )
    return optaic


def _proposed(line: str, shell: str = "bash") -> list[str]:
    words = line.split(" ")
    environment = {
        "_OPTAIC_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    result = CliRunner().invoke(app, [], prog_name="optaic", env=environment)
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("optaic instance get pr", ["prices", "prices_eu"]),
        ("optaic instance get desk/s", ["desk/signal"]),
        ("optaic instance get --project desk s", ["signal"]),
        ("optaic status watch prices s", ["signal"]),
        ("optaic refresh prices_", ["prices_eu"]),
        ("optaic lineage order si", ["signal"]),
        ("optaic open si", ["signal"]),
        ("optaic project get d", ["desk"]),
        ("optaic instance list --project d", ["desk"]),
        ("optaic definition get s", ["smooth"]),
        ("optaic run get r", ["r1"]),
        ("optaic run artifact r", ["r1"]),
        ("optaic run list pri", ["prices", "prices_eu"]),
    ],
)
@pytest.mark.usefixtures("known")
def test_names_that_begin_so_are_proposed(line: str, names: list[str]) -> None:
    assert _proposed(line) == names


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.usefixtures("known")
def test_each_shell_gets_the_names(shell: str) -> None:
    assert "signal" in " ".join(_proposed("optaic instance get si", shell))


def test_the_project_narrows_the_proposals(known: FakeServices) -> None:
    _proposed("optaic instance get desk/s")
    request = known.calls("ListInstanceStatuses")[-1].request
    assert (request.project_id, request.name_prefix, request.page_size) == (_DESK, "s", 100)


def test_at_most_100_names_are_proposed_and_each_once(known: FakeServices) -> None:
    found = [status_pb2.InstanceStatus(instance_name=f"p{number // 2}") for number in range(300)]
    answer = status_service_pb2.ListInstanceStatusesResponse(instance_statuses=found)
    known.on("ListInstanceStatuses", answer)
    projects = [instance_pb2.Project(name=f"p{number}") for number in range(300)]
    known.on("ListProjects", instance_service_pb2.ListProjectsResponse(projects=projects))
    assert len(_proposed("optaic instance get p")) == 50
    assert len(_proposed("optaic project get p")) == 100


@pytest.mark.parametrize("line", ["optaic instance get p", "optaic run get r", "optaic project get d"])
def test_nothing_is_proposed_without_a_service(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _proposed(line) == []
    for service in ("INSTANCE", "RUN", "STATUS"):
        monkeypatch.setenv(f"OPTAIC_{service}_ADDRESS", "127.0.0.1:1")
    assert _proposed(line) == []


def test_a_service_that_does_not_answer_in_time_proposes_nothing(
    known: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "_SECONDS", 0.05)

    def wait(_: Any, context: grpc.ServicerContext) -> Any:
        while context.is_active():
            time.sleep(0.01)  # until the caller has given up
        return run_service_pb2.ListRunsResponse(runs=[run_pb2.Run(run_id="r1")])

    known.on("ListRuns", wait)
    assert _proposed("optaic run get r") == []


def test_a_refusal_proposes_nothing(optaic: FakeServices) -> None:
    del optaic  # it knows no runs: the call is refused
    assert _proposed("optaic run get r") == []
