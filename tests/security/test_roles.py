"""Every role at every method of the four services, health and reflection included."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from devstack.postgres import Postgres
from optaic.instance.v1 import (
    instance_service_pb2,
    instance_service_pb2_grpc,
)
from optaic.instance.v1.instance_pb2 import Project
from servicekit.status import from_rpc_error
from support.broker import NatsAccounts
from support.control_plane import ControlPlane, control_plane
from support.identities import Metadata, caller
from support.methods import ALLOWED, CONTRACTS, METHODS, ROLES, channel_to, full_answer
from support.run_peers import SERVICE_TOKEN

_SECONDS = 20
_SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def plane(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[ControlPlane]:
    """Run the four services as in production: only whoever has a token is admitted."""
    del postgres_server
    settings = {service: {"auth": "tokens"} for service in CONTRACTS}
    async with control_plane(nats_accounts.take(), settings) as running:
        yield running


def identity(role: str) -> Metadata:
    if role == "service":
        return (("authorization", f"Bearer {SERVICE_TOKEN}"), ("optaic-tenant", "default"))
    return caller(role)


STRANGERS: list[Metadata] = [
    (),
    (("authorization", "Bearer development"),),
    (("authorization", "Bearer "),),
    (("authorization", "Bearer stranger"),),
    (("authorization", f"Basic {SERVICE_TOKEN}"),),
    (("authorization", "Bearer stranger"), ("optaic-tenant", "default"), ("optaic-actor", "admin")),
]


async def call(channel: Any, path: str, *, is_stream: bool, request: bytes, metadata: Metadata) -> Any:
    """Return the code, the reason and the metadata of the answer's error; OK, and nothing, of one without an error."""
    answer = await full_answer(channel, path, is_stream=is_stream, request=request, metadata=metadata)
    if isinstance(answer, bytes):
        return grpc.StatusCode.OK, "", {}
    found = from_rpc_error(answer)
    return answer.code(), found.reason, found.metadata


async def call_method(channel: Any, method: MethodDescriptor, metadata: Metadata) -> Any:
    request = message_factory.GetMessageClass(method.input_type)().SerializeToString()
    path = f"/{method.containing_service.full_name}/{method.name}"
    return await call(channel, path, is_stream=method.server_streaming, request=request, metadata=metadata)


def test_the_table_has_every_method_of_every_contract() -> None:
    assert sorted(ALLOWED) == sorted({method.name for _, method in METHODS})


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service", CONTRACTS)
async def test_each_role_may_call_exactly_its_methods(plane: ControlPlane, service: str) -> None:
    wrong = []
    methods = [method for name, method in METHODS if name == service]
    async with channel_to(plane, service) as channel:
        for role, method in itertools.product(ROLES, methods):
            code, reason, told = await call_method(channel, method, identity(role))
            is_denied = code is grpc.StatusCode.PERMISSION_DENIED
            if is_denied is (role in ALLOWED[method.name]) or code is grpc.StatusCode.UNAUTHENTICATED:
                wrong.append((role, method.name, code, reason))
            if is_denied:
                assert reason == "PERMISSION_DENIED"
                assert set(told) == {"permission", "role"}
                assert told["role"] in ALLOWED[method.name]
    assert wrong == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service", CONTRACTS)
async def test_nobody_without_a_token_may_call_anything(plane: ControlPlane, service: str) -> None:
    wrong = []
    methods = [method for name, method in METHODS if name == service]
    async with channel_to(plane, service) as channel:
        for metadata, method in itertools.product(STRANGERS, methods):
            code, _, _ = await call_method(channel, method, metadata)
            if code is not grpc.StatusCode.UNAUTHENTICATED:
                wrong.append((metadata, method.name, code))
    assert wrong == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service", CONTRACTS)
async def test_health_and_reflection_answer_every_role_and_nobody_else(
    plane: ControlPlane, service: str
) -> None:
    request = health_pb2.HealthCheckRequest().SerializeToString()
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    async with channel_to(plane, service) as channel:
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel)
        for metadata in (*STRANGERS, *map(identity, ROLES)):
            wanted = grpc.StatusCode.UNAUTHENTICATED if metadata in STRANGERS else grpc.StatusCode.OK
            for name, is_stream in (("Check", False), ("Watch", True)):
                path = f"/grpc.health.v1.Health/{name}"
                code, _, _ = await call(
                    channel, path, is_stream=is_stream, request=request, metadata=metadata
                )
                assert code is wanted
            stream = reflect.ServerReflectionInfo(metadata=metadata, timeout=_SECONDS)
            if metadata in STRANGERS:  # refused before they ask anything
                assert await stream.code() is wanted
                continue
            await stream.write(question)
            assert await stream.read() is not grpc.aio.EOF
            stream.cancel()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_token_belongs_to_one_tenant_whatever_its_caller_says(plane: ControlPlane) -> None:
    """Naming another tenant and actor in the metadata, as services do, changes nothing."""
    async with channel_to(plane, "instance") as channel:
        stub = instance_service_pb2_grpc.InstanceServiceStub(channel)
        request = instance_service_pb2.CreateProjectRequest(project=Project(name="research"))
        await stub.CreateProject(request, metadata=caller("maintainer"))
        everything = instance_service_pb2.ListProjectsRequest()
        assert len((await stub.ListProjects(everything, metadata=caller("viewer"))).projects) == 1
        foreign = (*caller("viewer", "other"), ("optaic-tenant", "default"), ("optaic-actor", "admin"))
        assert len((await stub.ListProjects(everything, metadata=foreign)).projects) == 0
