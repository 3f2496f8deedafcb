"""Calls through the gateway before the four services: what they answer there, they answer here."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError

from gateway.methods import Method, find_methods
from optaic.instance.v1 import instance_service_pb2
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from support.control_plane import ControlPlane
from support.gateway import RunningGateway, details_of, envelope, envelopes, gateway_before, gateway_of
from support.identities import caller, token_of
from support.methods import CONTRACTS, PEOPLE, address, channel_to, full_answer
from support.polling import eventually
from support.run_peers import SERVICE_TOKEN

pytestmark = pytest.mark.asyncio(loop_scope="module")
METHODS = find_methods()
INSTANCES = "/optaic.instance.v1.InstanceService"
STATUSES = "/optaic.status.v1.StatusService"
RUNS = "/optaic.run.v1.RunService"
NO_ID = "00000000-0000-7000-8000-000000000001"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(plane: ControlPlane) -> AsyncIterator[RunningGateway]:
    async with gateway_before(plane, auth="tokens") as running:
        yield running


def headers_of(role: str = "admin") -> dict[str, str]:
    return dict(caller(role))


async def create_project(gateway: RunningGateway, name: str) -> httpx.Response:
    answer = await gateway.post(
        f"{INSTANCES}/CreateProject", {"project": {"name": name}}, headers=headers_of()
    )
    assert answer.status_code == 200, answer.text
    return answer


async def create_prices(gateway: RunningGateway, name: str) -> Any:
    """Create a dataset that reads nothing, in a project of its own."""
    project_id = (await create_project(gateway, name)).json()["projectId"]
    pipeline = {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}
    instance = {"projectId": project_id, "name": f"{name}_prices", "dataset": {"pipeline": pipeline}}
    answer = await gateway.post(f"{INSTANCES}/CreateInstance", {"instance": instance}, headers=headers_of())
    assert answer.status_code == 200, answer.text
    return answer.json()


async def answer_of_grpc(plane: ControlPlane, method: Method, role: str, request: bytes) -> Any:
    async with channel_to(plane, method.service) as channel:
        return await full_answer(
            channel, method.grpc_path, is_stream=method.is_stream, request=request, metadata=caller(role)
        )


def shown(method: MethodDescriptor, answer: bytes | AioRpcError) -> Any:
    """Return what an answer of gRPC is in JSON; of an error its code, reason and metadata."""
    if isinstance(answer, AioRpcError):
        found = from_rpc_error(answer)
        return answer.code().name.lower(), found.reason, found.metadata, len(found.field_violations)
    return json_format.MessageToDict(message_factory.GetMessageClass(method.output_type).FromString(answer))


async def through(gateway: RunningGateway, method: Method, role: str) -> Any:
    headers = headers_of(role)
    if not method.is_stream:
        answer = await gateway.post(method.path, headers=headers)
        body = answer.json()
        if answer.status_code == 200:
            return body
    else:
        headers["content-type"] = "application/connect+json"
        async with gateway.client.stream(
            "POST", method.path, content=envelope(b"{}"), headers=headers
        ) as answer:
            async for piece in answer.aiter_raw():
                flags, message = next(envelopes(piece))
                break
        body = json.loads(message)
        if not flags:
            return body
        body = body["error"]
    details = details_of(body)
    info = details["google.rpc.ErrorInfo"]
    fields = details.get("google.rpc.BadRequest", error_details_pb2.BadRequest()).field_violations
    return body["code"], info.reason, dict(info.metadata), len(fields)


async def test_a_token_that_nobody_has_is_refused_as_over_grpc(
    plane: ControlPlane, gateway: RunningGateway
) -> None:
    for method in list(METHODS.values())[:5]:
        directly = shown(method.descriptor, await answer_of_grpc(plane, method, "stranger", b""))
        assert await through(gateway, method, "stranger") == directly
        assert directly[:2] == ("unauthenticated", "UNAUTHENTICATED")


@pytest.mark.parametrize("role", [*PEOPLE, "executor"])
async def test_every_method_answers_each_role_as_it_does_over_grpc(
    plane: ControlPlane, gateway: RunningGateway, role: str
) -> None:
    """Without a field, a request reaches no resource; who may call what, and what is missing, it shows for all methods."""
    different = {}
    for path, method in METHODS.items():
        directly = shown(method.descriptor, await answer_of_grpc(plane, method, role, b""))
        here = await through(gateway, method, role)
        if without_revision(here) != without_revision(directly):
            different[path] = (directly, here)
    assert different == {}


def without_revision(answer: Any) -> Any:
    """Return an answer without the tenant's revision, which may be another one for each stream that begins."""
    return (
        {key: value for key, value in answer.items() if key != "revision"}
        if isinstance(answer, dict)
        else answer
    )


async def test_who_a_service_acts_for_cannot_be_said_from_outside(gateway: RunningGateway) -> None:
    """With the token of the services, `optaic-tenant` would name any tenant."""
    await create_project(gateway, "of_the_token")
    others = {"optaic-tenant": "other", "optaic-actor": "root"}
    listed = await gateway.post(f"{INSTANCES}/ListProjects", headers={**headers_of(), **others})
    assert "of_the_token" in {project["name"] for project in listed.json()["projects"]}
    as_service = {"authorization": f"Bearer {SERVICE_TOKEN}", **others}
    refused = await gateway.post(f"{RUNS}/ListRuns", headers=as_service)
    assert details_of(refused.json())["google.rpc.ErrorInfo"].reason == "TENANT_REQUIRED"


async def test_what_only_programs_call_is_not_served(gateway: RunningGateway) -> None:
    served = {method.grpc_path.rpartition("/")[2] for method in METHODS.values()}
    assert not served & {
        "StartRun",
        "CompleteRun",
        "Heartbeat",
        "PlanFlows",
        "ClaimProbes",
        "FinishDataRemoval",
    }
    answer = await gateway.post("/optaic.run.v1.RunReportService/StartRun", headers=headers_of("executor"))
    assert answer.status_code == 404


async def test_resources_are_shown_as_grpc_shows_them(plane: ControlPlane, gateway: RunningGateway) -> None:
    instance = await create_prices(gateway, "shown")
    requests: dict[str, Any] = {
        f"{INSTANCES}/GetInstance": {"instanceId": instance["instanceId"]},
        f"{INSTANCES}/ListInstances": {"projectId": instance["projectId"]},
        f"{INSTANCES}/GetProject": {"projectId": instance["projectId"]},
        f"{INSTANCES}/ListInstanceRevisions": {"instanceId": instance["instanceId"]},
        "/optaic.definition.v1.DefinitionService/ListDefinitions": {"pageSize": 5},
        f"{RUNS}/ListRuns": {"instanceId": instance["instanceId"]},
    }
    for path, request in requests.items():
        method = METHODS[path]
        message = json_format.ParseDict(
            request, message_factory.GetMessageClass(method.descriptor.input_type)()
        )
        directly = await answer_of_grpc(plane, method, "admin", message.SerializeToString())
        answer = await gateway.post(path, request, headers=headers_of())
        assert answer.status_code == 200, answer.text
        assert answer.json() == shown(method.descriptor, directly), path


async def test_a_read_waits_for_the_write_whose_token_it_brings(gateway: RunningGateway) -> None:
    instance = await create_prices(gateway, "tokens")
    written = await gateway.post(
        f"{INSTANCES}/PauseInstance",
        {"instanceId": instance["instanceId"], "etag": instance["etag"]},
        headers=headers_of(),
    )
    assert written.status_code == 200, written.text
    token = written.headers["trailer-optaic-write-token"]
    read = await gateway.post(
        f"{STATUSES}/GetInstanceStatus",
        {"instanceId": instance["instanceId"]},
        headers={**headers_of(), "optaic-read-tokens": token},
    )
    assert read.status_code == 200, read.text
    pending = await gateway.post(
        f"{STATUSES}/GetInstanceStatus",
        {"instanceId": instance["instanceId"]},
        headers={
            **headers_of(), "optaic-read-tokens": f"{token},run/{new_id()}", "connect-timeout-ms": "300",
        },
    )  # fmt: skip
    assert pending.json()["code"] in {"unavailable", "deadline_exceeded"}
    refused = await gateway.post(
        f"{STATUSES}/GetInstanceStatus",
        {"instanceId": instance["instanceId"]},
        headers={**headers_of(), "optaic-read-tokens": "nonsense"},
    )
    assert details_of(refused.json())["google.rpc.ErrorInfo"].reason == "INVALID_READ_TOKENS"


async def test_ids_of_a_call_pass_in_both_directions(gateway: RunningGateway) -> None:
    headers = {**headers_of(), "x-request-id": "from-a-browser-1"}
    fine = await gateway.post(f"{INSTANCES}/ListProjects", headers=headers)
    wrong = await gateway.post(f"{INSTANCES}/GetProject", headers=headers)
    assert fine.headers["trailer-x-request-id"] == wrong.headers["trailer-x-request-id"] == "from-a-browser-1"


async def test_a_deadline_is_passed_on(gateway: RunningGateway) -> None:
    answer = await gateway.post(
        f"{INSTANCES}/ListProjects", headers={**headers_of(), "connect-timeout-ms": "0"}
    )
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


async def test_a_binary_request_gets_a_binary_answer(gateway: RunningGateway) -> None:
    await create_project(gateway, "binary")
    headers = {**headers_of(), "content-type": "application/proto"}
    answer = await gateway.post(f"{INSTANCES}/ListProjects", b"", headers=headers)
    listed = instance_service_pb2.ListProjectsResponse.FromString(answer.content)
    assert "binary" in {project.name for project in listed.projects}
    malformed = await gateway.post(f"{INSTANCES}/ListProjects", b"\xff\xff", headers=headers)
    assert details_of(malformed.json())["google.rpc.ErrorInfo"].reason == "MALFORMED_REQUEST"


async def test_grpc_web_answers_with_trailers_in_the_body(gateway: RunningGateway) -> None:
    headers = {**headers_of(), "content-type": "application/grpc-web+proto"}
    answer = await gateway.post(f"{INSTANCES}/ListProjects", envelope(b""), headers=headers)
    (_, message), last = envelopes(answer.content)
    assert instance_service_pb2.ListProjectsResponse.FromString(message).projects
    assert trailers_of(*last)["grpc-status"] == "0"
    wrong = instance_service_pb2.GetProjectRequest(project_id=NO_ID).SerializeToString()
    refused = await gateway.post(f"{INSTANCES}/GetProject", envelope(wrong), headers=headers)
    (last,) = envelopes(refused.content)
    trailers = trailers_of(*last)
    assert trailers["grpc-status"] == "5"
    status = status_pb2.Status.FromString(base64.b64decode(trailers["grpc-status-details-bin"] + "=="))
    assert status.code == 5
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason == "PROJECT_NOT_FOUND"


def trailers_of(flags: int, content: bytes) -> dict[str, str]:
    """Return the trailers that the last message of gRPC-Web has."""
    assert flags == 0x80
    lines = (line.partition(":") for line in content.decode().splitlines())
    return {key.lower(): value.strip() for key, _, value in lines if key}


async def test_a_watch_shows_changes_and_ends_in_the_service_when_its_reader_leaves(
    plane: ControlPlane, gateway: RunningGateway
) -> None:
    instance = await create_prices(gateway, "watched")
    await plane.rest()
    streams: Any = plane.status.app.server._interceptor.streams
    before = len(streams._admit)
    headers = {**headers_of(), "content-type": "application/connect+json"}
    async with gateway.client.stream(
        "POST",
        f"{STATUSES}/WatchInstanceStatuses",
        content=envelope(json.dumps({"instanceIds": [instance["instanceId"]]}).encode()),
        headers=headers,
    ) as answer:
        assert answer.headers["content-type"] == "application/connect+json"
        async for piece in answer.aiter_raw():
            _, message = next(envelopes(piece))
            if instance["instanceId"] in message.decode():
                break
        assert len(streams._admit) == before + 1
    await eventually(lambda: len(streams._admit) == before)


async def test_a_call_whose_caller_leaves_is_cancelled_in_the_service(
    plane: ControlPlane, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()
    admission: Any = plane.run.app.server._interceptor._admission

    async def confine(*_: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(admission, "confine", confine)
    call = asyncio.create_task(gateway.post(f"{RUNS}/ListRuns", headers=headers_of()))
    async with asyncio.timeout(20):
        await begun.wait()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        await cancelled.wait()


async def test_the_curl_of_the_documentation_works(plane: ControlPlane, gateway: RunningGateway) -> None:
    """Each command of docs/gateway.md is executed as it stands, but for the address and the token."""
    del plane
    text = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text("utf-8")
    commands = [
        block.partition("```")[0] for block in text.split("```sh\n")[1:] if block.lstrip().startswith("curl ")
    ]
    assert len(commands) >= 3
    for command in commands:
        given = command.replace("$OPTAIC_GATEWAY_URL", gateway.url).replace(
            "$OPTAIC_TOKEN", token_of("admin")
        )
        words = shlex.split(given.replace("\\\n", " "))
        process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, problem = await process.communicate()
        assert process.returncode == 0, problem.decode()
        assert b'"code"' not in output[:10], output
        assert output.strip(), command


async def test_a_service_that_does_not_answer_is_named(plane: ControlPlane) -> None:
    addresses = {service: address(plane, service) for service in CONTRACTS} | {"run": "127.0.0.1:1"}
    async with gateway_of(addresses, auth="tokens") as gateway:
        await eventually(lambda: _is_seen(gateway))
        answer = await gateway.post(f"{RUNS}/ListRuns", headers=headers_of())
        assert answer.status_code == 503
        assert details_of(answer.json())["google.rpc.ErrorInfo"].reason == "DEPENDENCY_UNAVAILABLE"
        assert "run-service" in answer.json()["message"]
        assert "127.0.0.1" not in answer.text
        assert (await gateway.post(f"{INSTANCES}/ListProjects", headers=headers_of())).status_code == 200


async def _is_seen(gateway: RunningGateway) -> bool:
    answer = await gateway.client.get("/readyz")
    expected = {service: service != "run" for service in CONTRACTS}
    return answer.status_code == 503 and answer.json() == expected
