"""What is destroyed is shown first, and only done when somebody says yes; where nobody can, it is refused."""

import json
import os
import pty
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2

from optaic.apply.documents import MANAGER
from optaic.definition.v1 import definition_pb2, definition_service_pb2
from optaic.instance.v1 import data_removal_service_pb2 as removal_api
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as api
from support.command_line import ID, PRICES, invoke
from support.fake_services import FakeServices, refuse

OPTAIC = Path(sys.executable).with_name("optaic")
GOING = [
    api.DeletedInstance(
        instance_id=str(uuid.UUID(int=number)),
        name=name,
        kind=kind,
        project_id=ID,
        project_name=project,
        state=instance_pb2.INSTANCE_STATE_ACTIVE,
    )
    for number, name, kind, project in [
        (3, "momentum", instance_pb2.INSTANCE_KIND_SIGNAL, "desk"),
        (1, "prices", instance_pb2.INSTANCE_KIND_DATASET, "research"),
    ]
]
PROJECT = instance_pb2.Project(
    project_id=ID, name="research", state=instance_pb2.PROJECT_STATE_ACTIVE, etag="r1", labels={"team": "a"}
)
DELETING = instance_pb2.Project(name="research", state=instance_pb2.PROJECT_STATE_DELETING)


@pytest.fixture
def deletable(optaic: FakeServices) -> FakeServices:
    """Services that know what would go, in two pages."""

    def preview(request: Any, _context: grpc.ServicerContext) -> api.PreviewDeletionResponse:
        number = int(request.page_token or 0)
        return api.PreviewDeletionResponse(
            instances=GOING[number : number + 1],
            next_page_token="1" if number == 0 else "",
            preview_etag="shown",
            total_size=2,
        )

    optaic.on("PreviewDeletion", preview)
    optaic.on(
        "DeleteInstance", instance_pb2.Instance(name="prices", state=instance_pb2.INSTANCE_STATE_DELETING)
    )
    optaic.on("GetProject", PROJECT)
    optaic.on("DeleteProject", DELETING)
    return optaic


def answer(*arguments: str, said: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a terminal, on which somebody says something."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{said}\n".encode())
        return subprocess.run(
            [OPTAIC, *arguments], stdin=theirs, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_dry_run_lists_all_that_would_go_and_asks_nothing(deletable: FakeServices) -> None:
    flags = ("instance", "delete", "prices", "--cascade", "--dry-run", "--etag", "e")
    tried = invoke(*flags)
    assert tried.stderr == "dry run: nothing was changed\n"
    assert [line.split()[:4] for line in tried.stdout.splitlines()] == [
        ["NAME", "KIND", "PROJECT", "STATE"],
        ["momentum", "signal", "desk", "ACTIVE"],
        ["prices", "dataset", "research", "ACTIVE"],
    ]
    listed = json.loads(invoke(*flags, "-o", "json").stdout)
    assert [each["name"] for each in listed] == ["momentum", "prices"]
    assert set(listed[0]) == {"instance_id", "name", "kind", "project_id", "project_name", "state"}
    assert deletable.calls("PreviewDeletion")[0].request.page_size == 10_000
    request = deletable.calls("PreviewDeletion")[0].request.delete_instance
    assert (request.instance_id, request.cascade, request.etag) == (ID, True, "e")
    assert not deletable.calls("DeleteInstance")


@pytest.mark.parametrize(
    "arguments",
    [
        ("instance", "delete", "prices", "--cascade"),
        ("project", "delete", "research", "--cascade"),
        ("definition", "retire", "smooth", "1.1.0"),
    ],
)
def test_without_a_terminal_and_without_yes_nothing_is_done(
    deletable: FakeServices, arguments: tuple[str, ...]
) -> None:
    know_definition(deletable)
    refused = invoke(*arguments, status=2)
    assert "CONFIRMATION_REQUIRED" in refused.stderr
    assert "--yes" in refused.stderr
    changing = ("Delete", "Retire")
    assert not [each.method for each in deletable.seen if each.method.startswith(changing)]
    if "definition" not in arguments:
        assert "momentum" in refused.stderr  # what would have gone is shown all the same
    for flag in ("--yes", "-y"):
        invoke(*arguments, flag)
    assert len([each.method for each in deletable.seen if each.method.startswith(changing)]) == 2


def test_a_closed_standard_input_does_not_count_as_a_terminal(deletable: FakeServices) -> None:
    refused = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" instance delete prices --cascade <&-', OPTAIC],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2, refused.stderr
    assert "CONFIRMATION_REQUIRED" in refused.stderr
    assert not deletable.calls("DeleteInstance")


@pytest.mark.parametrize("said", ["n", "", "what"])
def test_without_confirmation_nothing_is_deleted(deletable: FakeServices, said: str) -> None:
    # What is neither yes nor no is asked again: then the answer is no.
    found = answer("instance", "delete", "prices", "--cascade", said=f"{said}\nn" if said == "what" else said)
    assert found.returncode == 1, found.stderr
    assert "Delete 2 instances? [y/N]" in found.stderr
    assert "momentum" in found.stderr
    assert "nothing was changed" in found.stderr
    assert found.stdout.strip() == ""
    assert not deletable.calls("DeleteInstance")


def test_a_confirmed_deletion_deletes_exactly_the_shown_resources(deletable: FakeServices) -> None:
    found = answer("instance", "delete", "prices", "--cascade", "-o", "json", said="y")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["name"] == "prices"
    request = deletable.calls("DeleteInstance")[0].request
    assert (request.cascade, request.preview_etag) == (True, "shown")
    found = answer("project", "delete", "research", "--cascade", "--reason", "over", said="y")
    assert found.returncode == 0, found.stderr
    assert "Delete project research with 2 instances? [y/N]" in found.stderr
    assert "research  DELETING" in found.stdout
    wanted = deletable.calls("DeleteProject")[0].request
    assert (wanted.project_id, wanted.cascade, wanted.reason, wanted.preview_etag) == (
        ID, True, "over", "shown"
    )  # fmt: skip


def test_a_refused_deletion_fails_before_the_confirmation(deletable: FakeServices) -> None:
    deletable.on(
        "PreviewDeletion",
        lambda _, context: refuse(
            context, grpc.StatusCode.FAILED_PRECONDITION, "PROJECT_NOT_EMPTY", "project research holds prices"
        ),
    )
    refused = invoke("project", "delete", "research", status=1).stderr
    assert "PROJECT_NOT_EMPTY" in refused
    assert "holds prices" in refused


def know_definition(services: FakeServices) -> None:
    """Have the services know version 1.1.0 of `smooth`."""
    smooth = definition_pb2.Definition(
        definition_id=ID, name="smooth", kind=definition_pb2.DEFINITION_KIND_PIPELINE
    )
    version = definition_pb2.DefinitionVersion(
        definition_version_id=ID,
        definition_name="smooth",
        version="1.1.0",
        state=definition_pb2.DEFINITION_STATE_DEPRECATED,
    )
    services.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse(definitions=[smooth]))
    services.on(
        "ListDefinitionVersions",
        definition_service_pb2.ListDefinitionVersionsResponse(definition_versions=[version]),
    )
    services.on("RetireDefinitionVersion", version)


@pytest.fixture
def pruned(deletable: FakeServices, tmp_path: Path) -> Path:
    """A file that no longer has `prices`, which its manager made."""
    managed = instance_pb2.Instance()
    managed.CopyFrom(PRICES)
    managed.project_id, managed.labels[MANAGER] = ID, "desk"
    managed.dataset.SetInParent()
    deletable.on("ListProjects", api.ListProjectsResponse(projects=[PROJECT]))
    deletable.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse())
    deletable.on("ListInstances", api.ListInstancesResponse(instances=[managed]))
    deletable.on("RehearseChanges", api.RehearseChangesResponse(verdicts=[api.ChangeVerdict()]))
    file = tmp_path / "desk.yaml"
    file.write_text("project: research\nmanager: desk\ninstances: []\n")
    return file


def test_a_file_that_prunes_is_asked_about(deletable: FakeServices, pruned: Path) -> None:
    apply = ("apply", "-f", str(pruned), "--prune")
    assert "delete" in invoke(*apply, "--dry-run").stdout
    refused = invoke(*apply, status=2).stderr
    assert "CONFIRMATION_REQUIRED" in refused
    assert "prices" in refused
    assert "[y/N]" in (found := answer(*apply, said="n")).stderr
    assert found.returncode == 1
    assert not deletable.calls("DeleteInstance")
    assert "prices" in answer(*apply, said="y").stdout
    invoke(*apply, "--yes")
    assert len(deletable.calls("DeleteInstance")) == 2


def test_a_file_that_destroys_nothing_asks_nothing(deletable: FakeServices, pruned: Path) -> None:
    assert "nothing to do" in invoke("apply", "-f", str(pruned)).stdout
    assert not deletable.calls("DeleteInstance")


def test_a_project_is_renamed_and_described(deletable: FakeServices) -> None:
    deletable.on("UpdateProject", PROJECT)
    assert "research  ACTIVE" in invoke("project", "rename", "old", "research").stdout
    flags = ("--description", "Equities", "--etag", "e", "--dry-run")
    tried = invoke("project", "update", "research", *flags)
    assert tried.stderr == "dry run: nothing was changed\n"
    invoke("project", "update", "research", "--label", "desk=b", "--remove-label", "team")
    renamed, described, labelled = (each.request for each in deletable.calls("UpdateProject"))
    assert (renamed.project.name, list(renamed.update_mask.paths)) == ("research", ["name"])
    assert list(described.update_mask.paths) == ["description"]
    assert (described.project.description, described.project.etag, described.validate_only) == (
        "Equities", "e", True
    )  # fmt: skip
    assert (dict(labelled.project.labels), labelled.project.etag) == ({"desk": "b"}, "r1")
    assert "--name" in invoke("project", "update", "research", status=2).stderr
    assert "name=value" in invoke("project", "update", "research", "--label", "x", status=2).stderr


def test_the_deletion_of_a_project_shows_its_instances(deletable: FakeServices) -> None:
    deletable.on("ListProjects", api.ListProjectsResponse(projects=[PROJECT]))
    assert ID in invoke("project", "list").stdout
    assert json.loads(invoke("project", "list", "-o", "json").stdout)[0]["name"] == "research"
    shown = invoke("project", "describe", "research").stdout
    assert all(word in shown for word in ("label team", "instances", "prices", "dataset"))
    assert "prices" not in invoke("project", "get", "research").stdout
    deletable.on("CreateProject", PROJECT)
    invoke("project", "create", "research", "--description", "x", "--label", "team=a")
    created = deletable.calls("CreateProject")[0].request.project
    assert (created.name, created.description, dict(created.labels)) == ("research", "x", {"team": "a"})


def test_deleted_instances_are_listed_while_their_data_is_there(deletable: FakeServices) -> None:
    removal = removal_api.DataRemoval(
        instance_id=ID,
        name="prices",
        kind=instance_pb2.INSTANCE_KIND_DATASET,
        remove_time=timestamp_pb2.Timestamp(seconds=1_700_000_000),
        problem="the disk is away",
    )
    answers = removal_api.ListDataRemovalsResponse(data_removals=[removal])
    deletable.on("ListDataRemovals", answers)
    shown = invoke("instance", "deleted").stdout
    assert all(word in shown for word in ("prices", "2023-11-14", "the disk is away", ID))
    assert json.loads(invoke("instance", "deleted", "-o", "json").stdout)[0]["name"] == "prices"
