"""`optaic admin access`: roles are granted, revoked and listed, with a project by its id or name."""

import json

import grpc
import pytest

from optaic.common.v1 import access_pb2
from optaic.instance.v1 import access_pb2 as binding
from optaic.instance.v1 import access_service_pb2 as api
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as instance_api
from support.command_line import ID, invoke
from support.fake_services import FakeServices, refuse

PROJECT = instance_pb2.Project(project_id=ID, name="research")
GRANTED = binding.RoleBinding(
    actor="ada", role=access_pb2.ROLE_RESEARCHER, project_id=ID, updated_by="boss", revision=1
)


@pytest.mark.parametrize("project", ["research", ID])
def test_a_role_is_granted_in_a_project_by_id_or_name(optaic: FakeServices, project: str) -> None:
    optaic.on("GetProject", PROJECT)
    optaic.on("GrantRole", GRANTED)
    told = invoke("admin", "access", "grant", "ada", "researcher", "--project", project).stdout
    assert told == f"ada is researcher in project {project}\n"
    (call,) = optaic.calls("GrantRole")
    assert (call.request.actor, call.request.role, call.request.project_id) == (
        "ada",
        access_pb2.ROLE_RESEARCHER,
        ID,
    )
    assert call.request.request_id


def test_without_a_project_a_role_is_granted_and_revoked_in_the_whole_tenant(optaic: FakeServices) -> None:
    optaic.on("GrantRole", binding.RoleBinding(actor="ada", role=access_pb2.ROLE_VIEWER))
    optaic.on("RevokeRole", binding.RoleBinding(actor="ada", revision=2))
    assert "is viewer in the whole tenant" in invoke("admin", "access", "grant", "ada", "viewer").stdout
    assert "has no role any more in the whole tenant" in invoke("admin", "access", "revoke", "ada").stdout
    assert optaic.calls("GrantRole")[0].request.project_id == ""
    assert json.loads(invoke("admin", "access", "revoke", "ada", "-o", "json").stdout)["revision"] == "2"


@pytest.mark.parametrize("role", ["admin", "executor", "service", "owner"])
def test_a_role_that_bindings_do_not_give_is_refused_with_advice(optaic: FakeServices, role: str) -> None:
    refused = invoke("admin", "access", "grant", "ada", role, status=2)
    assert "role: must be one of viewer, researcher, maintainer" in refused.stderr
    assert "optaic admin token create" in refused.stderr
    assert not optaic.calls("GrantRole")


def test_a_name_that_no_project_has_is_refused_before_anything_is_changed(optaic: FakeServices) -> None:
    code = grpc.StatusCode.NOT_FOUND
    optaic.on("GetProject", lambda _, context: refuse(context, code, "PROJECT_NOT_FOUND", "no such project"))
    optaic.on("ListProjects", instance_api.ListProjectsResponse(projects=[PROJECT]))
    refused = invoke("admin", "access", "revoke", "ada", "--project", "reserch", status=3)
    assert "research" in refused.stderr
    assert not optaic.calls("RevokeRole")


def test_the_list_names_projects_and_is_filtered_by_the_service(optaic: FakeServices) -> None:
    optaic.on("GetProject", PROJECT)
    optaic.on("ListProjects", instance_api.ListProjectsResponse(projects=[PROJECT]))
    wide = binding.RoleBinding(actor="ben", role=access_pb2.ROLE_VIEWER, updated_by="boss")
    optaic.on("ListRoleBindings", api.ListRoleBindingsResponse(role_bindings=[GRANTED, wide]))
    lines = invoke("admin", "access", "list", "--actor", "ada", "--project", "research").stdout.splitlines()
    assert lines[0].split()[:3] == ["ACTOR", "ROLE", "PROJECT"]
    assert lines[1].split()[:3] == ["ada", "researcher", "research"]
    assert "(the whole tenant)" in lines[2]
    (call,) = optaic.calls("ListRoleBindings")
    assert (call.request.actor, call.request.project_id) == ("ada", ID)
    listed = json.loads(invoke("admin", "access", "list", "-o", "json").stdout)
    assert [each["actor"] for each in listed] == ["ada", "ben"]
