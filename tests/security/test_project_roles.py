"""Every role, granted in one project, at every method of the four services: in this project, in another, and of what is not there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import code_pb2

from devstack.postgres import Postgres
from optaic.common.v1 import access_pb2
from optaic.instance.v1 import access_service_pb2 as access_api
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.instance.v1.access_service_pb2_grpc import AccessServiceStub
from optaic.run.v1 import run_service_pb2 as run_api
from servicekit.confinement import PROJECT_BOUND
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from support.broker import NatsAccounts
from support.control_plane import ControlPlane, control_plane
from support.identities import Metadata, Signed, caller
from support.methods import ALLOWED, CONTRACTS, METHODS, TENANT_WIDE, channel_to, full_answer
from support.polling import eventually
from support.requests import request_of

TENANT = "default"
ROLES = ("viewer", "researcher", "maintainer")
# These read what everybody may read who has a role anywhere, or leave out what is not readable.
NAMING_A_PART = {"SignArtifactUrl"}  # a file, which the run of this test does not have
FOR_ALL = {
    "GetDefinition",
    "ListDefinitions",
    "GetDefinitionVersion",
    "ListDefinitionVersions",
    "ListProjects",
    "ListInstances",
    "ListInstanceStatuses",
    "ListInstanceAvailability",
    "WatchInstanceStatuses",
    "ListRuns",
    "ListRefreshes",
    "GetStatusHistory",
}
_NEEDING_MORE = {
    "GetDefinition",
    "GetDefinitionVersion",
    "ListDefinitionVersions",
    "GetStatusHistory",
    "ListRefreshes",  # there is none here
}  # than no id at all
_DEEPEST = 5
REHEARSAL = "RehearseChanges"
BATCH = "BatchSubmitRuns"
_UPDATE = next(method for _, method in METHODS if method.name == "UpdateInstance")
# Ids of what belongs to no project, ids of outside systems, and fields that are output only or that only services send.
ELSEWHERE = {
    "request_id",
    "definition_id",
    "definition_version_id",
    "evidently_project_id",
    "mlflow_experiment_id",
    "mlflow_run_id",
    "model_run_id",
    "prefect_deployment_id",
    "orchestrator_run_id",
    "accessor_instance_id",
    "owner_instance_id",
    "pipeline_instance_id",
    "store_instance_id",
    "event_id",
    "run_ids",  # each must be the newest run of a flow of an instance that the request names
    "refresh_id",  # a confined caller finds the refreshes that are confined to its projects
    "retry_of_run_id",
    "training_run_id",
    "version_id",
}
Ids = Mapping[str, str]


def ids_of(project: str, instance: str, run: str) -> Ids:
    return {
        "project_id": project,
        "instance_id": instance,
        "instance_ids": instance,
        "resource_id": instance,
        "run_id": run,
    }


MISSING = ids_of(new_id(), new_id(), new_id())


class World:
    """Two projects of a tenant, each with an instance that ran, and an actor of each role, bound to the first project."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.mine: Ids = {}
        self.other: Ids = {}

    async def prepare(self) -> None:
        admin = caller("admin", TENANT)
        self.mine, self.other = [await self.project(name, admin) for name in ("mine", "other")]
        await self.plane.rest()
        async with channel_to(self.plane, "instance") as channel:
            access: Any = Signed(AccessServiceStub(channel), admin)
            for role in ROLES:
                await access.GrantRole(
                    access_api.GrantRoleRequest(
                        actor=role,
                        role=access_pb2.Role.Value(f"ROLE_{role.upper()}"),
                        project_id=self.mine["project_id"],
                    )
                )
        await self.plane.rest()

        async def is_bound() -> bool:
            wanted = run_api.GetRunRequest(run_id=self.mine["run_id"])
            try:
                for role in ROLES:
                    await self.plane.run.runs.GetRun(wanted, metadata=caller(role, TENANT))
            except grpc.aio.AioRpcError:
                return False
            return True

        await eventually(is_bound, 20)

    async def project(self, name: str, admin: Metadata) -> Ids:
        instances, runs = self.plane.instance.instances, self.plane.run.runs
        project = await instances.CreateProject(
            instance_api.CreateProjectRequest(project=instance_pb2.Project(name=name)), metadata=admin
        )
        pipeline = {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}
        given = {"projectId": project.project_id, "name": "prices", "dataset": {"pipeline": pipeline}}
        instance = await instances.CreateInstance(
            instance_api.CreateInstanceRequest(
                instance=json_format.ParseDict(given, instance_pb2.Instance())
            ),
            metadata=admin,
        )
        run = await runs.SubmitRun(run_api.SubmitRunRequest(instance_id=instance.instance_id), metadata=admin)
        return ids_of(project.project_id, instance.instance_id, run.run_id)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[World]:
    del postgres_server
    settings = {service: {"auth": "tokens"} for service in CONTRACTS}
    async with control_plane(nats_accounts.take(), settings) as plane:
        found = World(plane)
        await found.prepare()
        yield found


async def ask(channel: Any, method: MethodDescriptor, role: str, ids: Ids) -> tuple[str, str, bytes]:
    """Return the code, what the error says with each id as its field's name, and the answer."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = request_of(method, ids)
    if method.name == REHEARSAL:
        request = instance_api.RehearseChangesRequest(
            changes=[instance_api.Change(update_instance=request_of(_UPDATE, ids))]
        )
    answer = await full_answer(
        channel,
        path,
        is_stream=method.server_streaming,
        request=request.SerializeToString(),
        metadata=caller(role, TENANT),
    )
    verdict: Any
    if isinstance(answer, bytes):
        # Each verdict is the answer that the change, or the submission, would get by itself.
        if method.name == REHEARSAL:
            (verdict,) = instance_api.RehearseChangesResponse.FromString(answer).verdicts
        elif method.name == BATCH and (result := _result_of(answer)).HasField("refusal"):
            verdict = result.refusal
        else:
            return "OK", "", answer
        told = str(verdict)
        for name, value in ids.items():
            told = told.replace(value, name)
        return code_pb2.Code.Name(verdict.code), told, b""
    error = from_rpc_error(answer)
    told = json.dumps(
        [error.code, error.reason, error.message, error.metadata, *map(str, error.field_violations)]
    )
    for name, value in ids.items():
        told = told.replace(value, name)
    return error.code, told, b""


def _result_of(answer: bytes) -> run_api.SubmitRunResult:
    (result,) = run_api.BatchSubmitRunsResponse.FromString(answer).results
    return result


def is_confinable(method: MethodDescriptor) -> bool:
    return method.name not in TENANT_WIDE


def fields_of(descriptor: Any, depth: int = 1) -> set[str]:
    """Return the names of the fields, of a request and the messages in it, that hold an id."""
    found = set[str]()
    for field in descriptor.fields:
        if field.message_type is None and field.name.endswith(("_id", "_ids")):
            found.add(field.name)
        elif field.message_type is not None and depth < _DEEPEST:
            found |= fields_of(field.message_type, depth + 1)
    return found


def test_every_field_that_names_something_is_confined_or_names_nothing_of_a_project() -> None:
    found = set().union(*(fields_of(method.input_type) for _, method in METHODS if is_confinable(method)))
    assert found - ELSEWHERE == PROJECT_BOUND


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service", CONTRACTS)
@pytest.mark.parametrize("role", ROLES)
async def test_a_role_in_a_project_permits_its_methods_there_and_nothing_elsewhere(
    world: World, service: str, role: str
) -> None:
    wrong = []
    async with channel_to(world.plane, service) as channel:
        for method in [method for name, method in METHODS if name == service]:
            # A rehearsal is permitted to whoever may make the change.
            name = _UPDATE.name if method.name == REHEARSAL else method.name
            is_permitted = role in ALLOWED[name] and is_confinable(method)
            missing_code, missing, nothing = await ask(channel, method, role, MISSING)
            other_code, other, told = await ask(channel, method, role, world.other)
            if (other_code, other, told) != (missing_code, missing, nothing):
                wrong.append((method.name, "tells that it is there", other, missing))
            own_code, own, _ = await ask(channel, method, role, world.mine)
            if (own_code == "PERMISSION_DENIED") is is_permitted:
                wrong.append((method.name, "in the project", own, ""))
            if not is_permitted and other_code != "PERMISSION_DENIED":
                wrong.append((method.name, "elsewhere", other, ""))
            # The run is there, and the part of it that is named is not.
            is_found = own_code != "NOT_FOUND" or (method.name in NAMING_A_PART and own != missing)
            if is_permitted and method.name not in FOR_ALL and (not is_found or other_code == "OK"):
                wrong.append((method.name, "is confined", own, other))
            if any(value.encode() in told for value in world.other.values()):
                wrong.append((method.name, "tells ids", "", ""))
    assert wrong == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service", CONTRACTS)
async def test_what_names_no_project_tells_nothing_of_others(world: World, service: str) -> None:
    async with channel_to(world.plane, service) as channel:
        for method in [method for name, method in METHODS if name == service]:
            if method.name not in FOR_ALL - _NEEDING_MORE:
                continue
            code, told, answer = await ask(channel, method, "viewer", {})
            assert code == "OK", told
            assert not any(value.encode() in answer for value in world.other.values()), method.name
            response: Any = message_factory.GetMessageClass(method.output_type).FromString(answer)
            if not method.server_streaming and "efinition" not in method.name:
                assert world.mine["project_id"].encode() in answer or world.mine["run_id"].encode() in answer
                assert response.next_page_token == ""
