"""What every command has in common: formats, exit statuses, names, and the page that describes them."""

import contextlib
import csv
import io
import json
import uuid

import grpc
import pytest
import yaml

import optaic as package
from optaic.cli.exits import Exit
from optaic.cli.output import print_table
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.status.v1 import status_pb2, status_service_pb2
from support import command_line_page
from support.command_line import ID, invoke
from support.fake_services import FakeServices, refuse

OTHER = str(uuid.UUID(int=(1 << 127) + 2))
DESK = instance_pb2.Project(project_id=str(uuid.UUID(int=7 << 100)), name="desk")
RESEARCH = instance_pb2.Project(project_id=str(uuid.UUID(int=8 << 100)), name="research")


def _project(request: instance_service_pb2.GetProjectRequest, context: grpc.ServicerContext) -> object:
    for each in (DESK, RESEARCH):
        if request.name == each.name or request.project_id == each.project_id:
            return each
    refuse(context, grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND", "there is no such project")
    raise AssertionError("refuse has ended the call")


@pytest.fixture
def several(optaic: FakeServices) -> FakeServices:
    """Three instances, two of them in the project `desk`, and two projects."""
    instances = [
        instance_pb2.Instance(instance_id=ID, name="prices", project_id=DESK.project_id),
        instance_pb2.Instance(instance_id=OTHER, name="prices-daily", project_id=RESEARCH.project_id),
        instance_pb2.Instance(instance_id=DESK.project_id, name="momentum", project_id=DESK.project_id),
    ]

    def found(request: instance_service_pb2.ListInstancesRequest, _: grpc.ServicerContext) -> object:
        return instance_service_pb2.ListInstancesResponse(
            instances=[
                each
                for each in instances
                if request.name in {"", each.name} and request.project_id in {"", each.project_id}
            ]
        )

    def statuses(request: status_service_pb2.ListInstanceStatusesRequest, _: grpc.ServicerContext) -> object:
        return status_service_pb2.ListInstanceStatusesResponse(
            instance_statuses=[
                status_pb2.InstanceStatus(
                    instance_id=each.instance_id, instance_name=each.name, project_id=each.project_id
                )
                for each in instances
                if each.name.startswith(request.name_prefix) and request.project_id in {"", each.project_id}
            ]
        )

    def one(request: instance_service_pb2.GetInstanceRequest, _: grpc.ServicerContext) -> object:
        return next(each for each in instances if each.instance_id == request.instance_id)

    optaic.on("GetInstance", one)
    optaic.on("ListInstanceStatuses", statuses)
    optaic.on("ListInstances", found)
    optaic.on("ListProjects", instance_service_pb2.ListProjectsResponse(projects=[DESK, RESEARCH]))
    optaic.on("GetProject", _project)
    return optaic


@pytest.mark.usefixtures("optaic")
def test_a_list_has_six_formats() -> None:
    rows = list(csv.DictReader(io.StringIO(invoke("instance", "list", "-o", "csv").stdout)))
    assert [(row["name"], row["state"], row["id"]) for row in rows] == [("prices", "ACTIVE", ID)]
    assert {"owner", "definition", "updated"} <= set(rows[0])
    as_yaml = yaml.safe_load(invoke("instance", "list", "-o", "yaml").stdout)
    assert as_yaml == json.loads(invoke("instance", "list", "-o", "json").stdout)
    assert "OWNER" in invoke("instance", "list", "-o", "wide").stdout
    assert "OWNER" not in invoke("instance", "list", "-o", "table").stdout


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize("command", [("instance", "list"), ("status", "list")])
def test_names_are_those_that_other_commands_take(command: tuple[str, ...]) -> None:
    names = invoke(*command, "-o", "name").stdout.splitlines()
    assert names == ["desk/prices", "research/prices-daily", "desk/momentum"]
    assert "desk/" not in invoke(*command).stdout


def test_names_of_runs_are_their_ids(optaic: FakeServices) -> None:
    optaic.on("ListRuns", run_service_pb2.ListRunsResponse(runs=[run_pb2.Run(run_id="r1", actor="ada")]))
    assert invoke("run", "list", "-o", "name").stdout == "r1\n"
    (row,) = csv.DictReader(io.StringIO(invoke("run", "list", "-o", "csv").stdout))
    assert (row["run"], row["actor"]) == ("r1", "ada")


@pytest.mark.usefixtures("optaic")
def test_a_single_thing_is_no_list() -> None:
    assert yaml.safe_load(invoke("instance", "get", "prices", "-o", "yaml").stdout)["instance_id"] == ID
    for output in ("csv", "name", "wide"):
        invoke("instance", "get", "prices", "-o", output, status=Exit.USAGE)


def test_what_goes_on_prints_one_document_for_each_message(optaic: FakeServices) -> None:
    ended = run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED)
    optaic.on("GetRun", run_pb2.Run(run_id="r"))
    optaic.on("WatchRun", lambda _, __: iter([run_pb2.Run(run_id="r", progress_pct=5), ended]))
    documents = list(yaml.safe_load_all(invoke("run", "watch", "r", "-o", "yaml").stdout))
    assert [each.get("status") for each in documents] == [None, "RUN_STATUS_COMPLETED"]


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND", Exit.NOT_FOUND),
        (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN", Exit.CONFLICT),
        (grpc.StatusCode.ABORTED, "ETAG_MISMATCH", Exit.CONFLICT),
        (grpc.StatusCode.PERMISSION_DENIED, "DENIED", Exit.DENIED),
        (grpc.StatusCode.UNAUTHENTICATED, "BAD_TOKEN", Exit.DENIED),
        (grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_NOT_READY", Exit.UPSTREAM_NOT_READY),
        (grpc.StatusCode.FAILED_PRECONDITION, "MISSING_INPUT", Exit.UPSTREAM_NOT_READY),
        (grpc.StatusCode.FAILED_PRECONDITION, "RUN_ENDED", Exit.ERROR),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID", Exit.ERROR),
    ],
)
def test_each_refusal_has_its_exit_status(
    optaic: FakeServices, code: grpc.StatusCode, reason: str, status: Exit
) -> None:
    optaic.on("RetryRun", lambda _, context: refuse(context, code, reason, "no"))
    assert reason in invoke("run", "retry", "r", status=status).stderr


def test_the_version_is_that_of_the_package() -> None:
    assert invoke("--version").stdout == f"optaic {package.__version__}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("prices", ID),  # its whole name, although another one begins so
        ("prices-", OTHER),
        ("mom", DESK.project_id),
        ("desk/prices", ID),
        ("desk/p", ID),
        ("res/p", OTHER),
        (OTHER[:8], OTHER),
        (OTHER[:8].upper(), OTHER),
    ],
)
def test_an_instance_is_found_by_name_project_and_beginning(
    several: FakeServices, text: str, found: str
) -> None:
    several.on("GetInstanceStatus", status_pb2.InstanceStatus())
    invoke("status", "get", text)
    assert several.calls("GetInstanceStatus")[-1].request.instance_id == found


def test_what_the_beginning_of_a_name_means_is_said(several: FakeServices) -> None:
    several.on("GetInstanceStatus", status_pb2.InstanceStatus())
    assert f"mom is instance momentum ({DESK.project_id})" in invoke("status", "get", "mom").stderr
    assert invoke("status", "get", "momentum").stderr == ""


@pytest.mark.usefixtures("several")
def test_the_beginning_of_several_names_is_refused_with_all_of_them() -> None:
    refused = invoke("instance", "get", "pr", status=Exit.ERROR).stderr
    assert "AMBIGUOUS_NAME" in refused
    assert "prices-daily" in refused
    assert ID in refused


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize("text", ["pricez", "nobody/prices", "desk/daily", OTHER[:7], ""])
def test_a_name_that_is_none_is_not_found(text: str) -> None:
    assert "there is no" in invoke("instance", "get", text, status=Exit.NOT_FOUND).stderr


def test_a_deletion_wants_the_whole_name(several: FakeServices) -> None:
    invoke("instance", "delete", "mom", "--yes", status=Exit.NOT_FOUND)
    invoke("project", "delete", "des", "--yes", status=Exit.NOT_FOUND)
    assert not several.calls("DeleteInstance")
    assert not several.calls("DeleteProject")


@pytest.mark.parametrize(
    "command",
    [
        ("run", "submit", "mom"),
        ("instance", "pause", "mom"),
        ("instance", "update", "mom", "--set", "owner=ada"),
        ("refresh", "mom"),
        ("lineage", "invalidate", "mom", "--reason", "wrong"),
        ("project", "rename", "des", "table"),
        ("admin", "access", "grant", "bob", "maintainer", "--project", "des"),
    ],
)
def test_without_a_person_at_a_terminal_whatever_is_changed_is_named_in_whole(
    several: FakeServices, command: tuple[str, ...]
) -> None:
    invoke(*command, status=Exit.NOT_FOUND)
    assert not [each for each in several.seen if not each.method.startswith(("Get", "List"))]


def test_a_person_at_a_terminal_may_shorten_what_is_changed_but_no_right(
    several: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optaic.cli.instances.is_unattended", lambda: False)
    several.on("PauseInstance", instance_pb2.Instance(name="momentum"))
    invoke("instance", "pause", "mom")
    assert several.calls("PauseInstance")[0].request.instance_id == DESK.project_id
    invoke("admin", "access", "grant", "bob", "maintainer", "--project", "des", status=Exit.NOT_FOUND)


def test_a_misspelt_command_is_answered_with_one_like_it() -> None:
    assert "did you mean instance?" in invoke("instanc", "list", status=Exit.USAGE).stderr
    assert "No such command" in invoke("instance", "lst", status=Exit.USAGE).stderr


def test_what_a_terminal_would_obey_is_written_out(optaic: FakeServices) -> None:
    code = grpc.StatusCode.INTERNAL
    optaic.on("RetryRun", lambda _, context: refuse(context, code, "FAILED", "\x1b]0;owned\x07[/bold]"))
    said = invoke("run", "retry", "r", status=Exit.ERROR).stderr
    assert "\x1b" not in said
    assert "\\x1b]0;owned\\x07[/bold]" in said


def test_titles_of_columns_are_no_markup() -> None:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        print_table(["w[/x]", "a\x1b[2Jb"], [["1", "2"]])
    assert "w[/x]" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()


def test_the_page_has_every_command_as_it_is() -> None:
    assert command_line_page.PAGE.read_text(encoding="utf-8") == command_line_page.page(), "run make client"


def test_the_page_has_every_exit_status() -> None:
    page = command_line_page.PAGE.read_text(encoding="utf-8")
    for status in Exit:
        assert f"\n| {status.value} | " in page
