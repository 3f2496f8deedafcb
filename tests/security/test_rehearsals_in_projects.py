"""Rehearsals, and so `optaic apply` and `diff`, by whoever has a role in some projects only: what each method permits, and no more."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.rpc import code_pb2

from devstack.postgres import Postgres
from optaic.apply.documents import read_documents
from optaic.apply.execution import execute, read_existing
from optaic.apply.plan import make_plan
from optaic.client import AsyncClient
from optaic.common.v1 import access_pb2
from optaic.errors import PermissionDeniedError
from optaic.instance.v1 import access_service_pb2 as access_api
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.instance.v1.access_service_pb2_grpc import AccessServiceStub
from servicekit import access
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from support.broker import NatsAccounts
from support.identities import caller, token_of
from support.instance_service import RunningInstanceService, derived, instance_service
from support.methods import ALLOWED, TENANT_WIDE
from support.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
PRICES = {"pipeline": {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}}
ROLES = ("viewer", "researcher", "maintainer")
# Each role in the project `mine`; the maintainer also reads the project `read`. Nobody of them reads `other`.
SECRET = "secret_reader"
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
KINDS = [field.name for field in instance_api.Change.DESCRIPTOR.oneofs_by_name["change"].fields]
MACRO = {
    "name": "REHEARSED",
    "kind": "DEFINITION_KIND_OP_MACRO",
    "definitionVersion": {"version": "1.0.0", "opMacro": {"parameters": ["x"], "expression": "x / 2"}},
}


class World:
    """Three projects: `secret_reader`, in one that the actors may not read, depends on `prices` in theirs."""

    def __init__(self, service: RunningInstanceService) -> None:
        self.service = service
        self.projects: dict[str, str] = {}
        self.instances: dict[str, str] = {}

    async def prepare(self) -> None:
        for name in ("mine", "read", "other"):
            self.projects[name] = (await self.service.project(name)).project_id
            found = await self.service.prices(self.projects[name], f"prices_of_{name}")
            self.instances[name] = found.instance_id
        await self.service.derived(self.projects["other"], SECRET, self.instances["mine"])
        async with grpc.aio.insecure_channel(self.service.app.server.address) as channel:
            stub: Any = AccessServiceStub(channel)
            given = [(role, role, "mine") for role in ROLES]
            for actor, role, project in [*given, ("maintainer", "viewer", "read")]:
                number = access_pb2.Role.Value(f"ROLE_{role.upper()}")
                request = access_api.GrantRoleRequest(
                    actor=actor, role=number, project_id=self.projects[project]
                )
                await stub.GrantRole(request)

        async def is_confined() -> bool:
            listing = instance_api.ListProjectsRequest()
            seen = [
                len((await self.service.instances.ListProjects(listing, metadata=caller(role))).projects)
                for role in ROLES
            ]
            return seen == [1, 1, 2]

        await eventually(is_confined, 20)

    async def rehearse(self, role: str, changes: Sequence[Any]) -> Any:
        """Return the verdicts, or the error."""
        request = json_format.ParseDict({"changes": changes}, instance_api.RehearseChangesRequest())
        try:
            answer = await self.service.instances.RehearseChanges(request, metadata=caller(role))
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)
        return list(answer.verdicts)

    def change(self, kind: str, project: str) -> dict[str, Any]:
        """Return a change of this kind in a project, as JSON."""
        instance_id, project_id = self.instances.get(project, new_id()), self.projects.get(project, new_id())
        version = {"definitionVersionId": new_id(), "reason": "because"}
        requests: dict[str, Any] = {
            "create_project": {"project": {"name": "another"}},
            "publish_definition": MACRO,
            "create_instance": {"instance": {"projectId": project_id, "name": "new", "dataset": PRICES}},
            "update_instance": {
                "instance": {"instanceId": instance_id, "owner": "alice"},
                "updateMask": "owner",
            },
            "delete_instance": {"instanceId": instance_id, "reason": "because"},
        }
        return {json_name(kind): requests.get(kind, version)}


def json_name(kind: str) -> str:
    return str(instance_api.Change.DESCRIPTOR.fields_by_name[kind].json_name)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[World]:
    del postgres_server
    async with instance_service(nats_accounts.take()) as service:
        found = World(service)
        await found.prepare()
        yield found


def method_of(kind: str) -> str:
    field = instance_api.Change.DESCRIPTOR.fields_by_name[kind]
    return access.access_of_request(field.message_type).name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
async def test_a_change_is_rehearsed_where_the_role_permits_its_method(
    world: World, role: str, kind: str
) -> None:
    may = role in ALLOWED[method_of(kind)] and method_of(kind) not in TENANT_WIDE
    own = await world.rehearse(role, [world.change(kind, "mine")])
    hidden = await world.rehearse(role, [world.change(kind, "other")])
    missing = await world.rehearse(role, [world.change(kind, "nowhere")])
    read = await world.rehearse(role, [world.change(kind, "read")])
    if not may:
        for answer in (own, hidden, missing, read):
            assert answer.code == "PERMISSION_DENIED", (role, kind, answer)
            assert answer.metadata["change"] == f"changes[0].{kind}"
            assert answer.metadata["role"] == access.least_role(answer.metadata["permission"].upper())
            assert ("whole tenant" in answer.message) is (method_of(kind) in TENANT_WIDE)
        return
    (verdict,) = own
    if kind == "delete_instance":
        assert verdict.reason == "HAS_DEPENDANTS"
        assert "hidden" in str(verdict)
        assert SECRET not in str(verdict)
    else:
        assert verdict.code == code_pb2.OK, verdict
    for answer in (hidden, missing):
        assert code_pb2.Code.Name(answer[0].code) == "NOT_FOUND", answer
    assert without_ids(hidden[0]) == without_ids(missing[0])
    given = world.change(kind, "other")
    assert any(each in str(given) for each in _ID.findall(str(hidden[0]))), "it names what the caller gave"
    if role == "maintainer":
        assert read.code == "PERMISSION_DENIED"
        assert read.metadata["project_id"] == world.projects["read"]
        assert world.projects["read"] in read.message
    else:
        assert read[0].code == code_pb2.NOT_FOUND


def without_ids(verdict: Any) -> str:
    """Return what a verdict says, with the same word for each id."""
    return _ID.sub("ID", str(verdict))


async def test_the_first_change_outside_is_named_and_nothing_is_rehearsed(world: World) -> None:
    tables = ("instances", "projects", "instance_revisions")
    before = await world.service.row_counts(*tables)
    changes = [world.change("create_instance", "mine"), world.change("update_instance", "read")]
    answer = await world.rehearse("maintainer", [*changes, world.change("create_project", "")])
    assert answer.code == "PERMISSION_DENIED"
    assert answer.metadata["change"] == "changes[1].update_instance"
    assert answer.metadata["project_id"] == world.projects["read"]
    assert await world.service.row_counts(*tables) == before


async def test_what_a_change_creates_counts_as_part_of_its_project(world: World) -> None:
    first, second = new_id(), new_id()
    project = world.projects["mine"]
    changes = [
        {
            "createInstance": {"instance": {"projectId": project, "name": "a", "dataset": PRICES}},
            "assumedId": first.upper(),
        },
        {"createInstance": {"instance": derived(project, "b", first)}, "assumedId": second},
        {
            "updateInstance": {
                "instance": {"instanceId": second, "owner": "alice"},
                "updateMask": "owner",
            }
        },
        {"deleteInstance": {"instanceId": first}},
        {"deleteInstance": {"instanceId": second}},
    ]
    verdicts = await world.rehearse("researcher", changes)
    assert [each.reason for each in verdicts] == ["", "", "", "HAS_DEPENDANTS", ""], verdicts
    assert [each.subject for each in verdicts[3].blocking] == ["b"]


async def test_an_id_of_another_project_is_as_free_as_any(world: World) -> None:
    """Attack: give to what is created an id that something hidden has, and look whether it is taken."""
    project, answers = world.projects["mine"], []
    for assumed in (world.instances["other"], world.instances["other"].upper(), new_id(), new_id().upper()):
        changes = [
            {
                "createInstance": {"instance": {"projectId": project, "name": "a", "dataset": PRICES}},
                "assumedId": assumed,
            },
            {"createInstance": {"instance": derived(project, "b", assumed)}},
        ]
        verdicts = await world.rehearse("researcher", changes)
        for condition in [condition for each in verdicts for condition in each.conditions]:
            condition.ClearField("since_time")
        answers.append(verdicts)
    assert answers[1:] == answers[:1] * 3
    assert [each.code for each in answers[0]] == [code_pb2.OK] * 2


async def test_an_upstream_in_another_project_is_as_unknown_as_one_that_does_not_exist(world: World) -> None:
    project, texts = world.projects["mine"], []
    for upstream in (world.instances["other"], new_id()):
        change = {"createInstance": {"instance": derived(project, "b", upstream)}}
        (verdict,) = await world.rehearse("researcher", [change])
        assert verdict.code != code_pb2.OK
        texts.append(str(verdict).replace(upstream, "ID"))
    assert texts[0] == texts[1]
    readable = {"createInstance": {"instance": derived(project, "b", world.instances["read"])}}
    (verdict,) = await world.rehearse("maintainer", [readable])
    assert verdict.code == code_pb2.OK, verdict


async def test_whoever_reads_the_whole_tenant_rehearses_everything(world: World) -> None:
    """Nothing comes of it; `optaic diff` shows a viewer what others could do."""
    kinds = ["create_project", "publish_definition", "create_instance", "update_instance"]
    service = world.service
    request = json_format.ParseDict(
        {"changes": [world.change(kind, "other") for kind in kinds]}, instance_api.RehearseChangesRequest()
    )
    answer = await service.instances.RehearseChanges(request, metadata=caller("admin"))
    assert [each.code for each in answer.verdicts] == [code_pb2.OK] * len(kinds)


def file(project: str, *instances: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"project": project, "manager": "m", "instances": list(instances), **more}


async def apply(client: AsyncClient, given: dict[str, Any], *, prune: bool = False) -> list[str]:
    documents = read_documents([given])
    existing = await read_existing(client, {given["project"]})
    actions = make_plan(documents, existing, prune=prune)
    dry = [str(each.action.verb) async for each in execute(client, actions, existing, dry_run=True)]
    done = [str(each.action.verb) async for each in execute(client, actions, existing)]
    assert dry == done
    return done


async def test_a_researcher_applies_files_in_its_own_project(world: World) -> None:
    dataset = {"pipeline": {"definition_name": "sp500_prices", "config": {"as_of": "2021-12-31"}}}
    expression = {"pipeline": {"definition_name": "expression", "config": {"expression": "close"}}}
    raw, half = (
        {"name": "raw", "dataset": dataset},
        {"name": "half", "dataset": expression, "upstreams": {"input": "raw"}},
    )
    address = world.service.app.server.address
    async with AsyncClient.connect(instance_address=address, token=token_of("researcher")) as client:
        assert await apply(client, file("mine", raw, half)) == ["create", "create"]
        assert await apply(client, file("mine", raw, half)) == []
        assert await apply(client, file("mine", {**raw, "owner": "alice"}, half)) == ["change"]
        assert await apply(client, file("mine", {**raw, "owner": "alice"}), prune=True) == ["delete"]
        macro = {"version": "1.0.0", "op_macro": {"parameters": ["x"], "expression": "x / 2"}}
        definition = {"name": "APPLIED", "kind": "op_macro", "definition_version": macro}
        for given, path, said in (
            (file("mine", definitions=[definition]), "documents[0].definitions[0]", "whole tenant"),
            (file("other", raw), "documents[0].project", "whole tenant"),
            (file("nowhere", raw), "documents[0].project", "whole tenant"),
        ):
            with pytest.raises(PermissionDeniedError) as refused:
                await apply(client, given)
            assert path in refused.value.message
            assert said in refused.value.message
    async with AsyncClient.connect(instance_address=address, token=token_of("maintainer")) as client:
        with pytest.raises(PermissionDeniedError) as refused:
            await apply(client, file("read", raw))
        assert "CreateInstance needs the role researcher in the project read" in refused.value.message
        assert "documents[0].instances[0]" in refused.value.message
    async with AsyncClient.connect(instance_address=address, token=token_of("viewer")) as client:
        with pytest.raises(PermissionDeniedError) as refused:
            await apply(client, file("mine", raw))
        assert "in the project mine" in refused.value.message
