"""The services that run-service asks, as small servers that know what a test tells them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2, definition_service_pb2, definition_service_pb2_grpc
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2, lineage_service_pb2_grpc
from optaic.rules import refusals
from servicekit.auth import make_authenticator
from servicekit.enums import enum_number
from servicekit.errors import InvalidArgumentError, NotFoundError, UnavailableError
from servicekit.ids import new_id
from servicekit.server import Server
from servicekit.settings import ServiceSettings
from support.identities import tokens_file

SERVICE_TOKEN = "service-secret"
REFRESH = flow_pb2.FLOW_KIND_REFRESH

Answer = lineage_service_pb2.CheckUpstreamFreshnessResponse
Check = lineage_service_pb2.CheckUpstreamFreshnessRequest


class Instances(instance_service_pb2_grpc.InstanceServiceServicer):
    """Knows the instances that a test adds."""

    def __init__(self) -> None:
        self.by_id: dict[str, instance_pb2.Instance] = {}
        self.definitions = Definitions()  # type: ignore[abstract]  # only the methods that are called # at run time a missing method is unimplemented
        self.most = 64  # of one answer, as if they were large
        self.refused = 0  # how often more were asked for

    def add(
        self,
        *,
        kind: str = "DATASET",
        flow_kind: flow_pb2.FlowKind.ValueType = REFRESH,
        upstreams: Collection[instance_pb2.Instance] = (),
        state: str = "ACTIVE",
        external_url: str = "",
    ) -> instance_pb2.Instance:
        """Add an instance with one flow; with a URL, of data that another system writes there."""
        instance = instance_pb2.Instance(
            instance_id=new_id(),
            name=f"i{len(self.by_id)}",
            kind=enum_number(instance_pb2.InstanceKind, kind.lower()),
            state=enum_number(instance_pb2.InstanceState, state.lower()),
            revision=1,
        )
        flow = instance.flows.add(flow_kind=flow_kind, compute_fingerprint="f" * 64)
        if external_url:
            flow.is_external = True
            instance.dataset.store.config.update({"url": external_url})
        for upstream in upstreams:
            flow.upstreams.add(role="input").upstream.CopyFrom(flow_of(upstream))
        self.by_id[instance.instance_id] = instance
        return instance

    async def GetInstance(
        self, request: instance_service_pb2.GetInstanceRequest, _: Any
    ) -> instance_pb2.Instance:
        return self._get(request.instance_id)

    async def BatchGetInstances(
        self, request: instance_service_pb2.BatchGetInstancesRequest, _: Any
    ) -> instance_service_pb2.BatchGetInstancesResponse:
        if len(request.instance_ids) > self.most:
            self.refused += 1
            raise InvalidArgumentError("TOO_LARGE", "ask for fewer")
        if missing := [each for each in request.instance_ids if each not in self.by_id]:
            text, metadata = refusals.instance_not_found(missing)
            raise NotFoundError("INSTANCE_NOT_FOUND", text, metadata=metadata)
        return instance_service_pb2.BatchGetInstancesResponse(
            instances=[self._get(instance_id) for instance_id in request.instance_ids]
        )

    def _get(self, instance_id: str) -> instance_pb2.Instance:
        if instance_id not in self.by_id:
            raise NotFoundError("INSTANCE_NOT_FOUND", f"there is no instance {instance_id}")
        return self.by_id[instance_id]


class Definitions(definition_service_pb2_grpc.DefinitionServiceServicer):
    """Knows the definition versions that a test adds."""

    def __init__(self) -> None:
        self.by_id: dict[str, definition_pb2.DefinitionVersion] = {}

    def add(self, name: str, code_ref: str = "acme.module:Class") -> definition_pb2.DefinitionVersion:
        """Add a version."""
        version = definition_pb2.DefinitionVersion(
            definition_version_id=new_id(), definition_name=name, version="1.0.0", code_ref=code_ref
        )
        self.by_id[version.definition_version_id] = version
        return version

    async def GetDefinitionVersion(
        self, request: definition_service_pb2.GetDefinitionVersionRequest, _: Any
    ) -> definition_pb2.DefinitionVersion:
        if request.definition_version_id not in self.by_id:
            raise NotFoundError("DEFINITION_VERSION_NOT_FOUND", request.definition_version_id)
        return self.by_id[request.definition_version_id]


class Lineage(lineage_service_pb2_grpc.LineageServiceServicer):
    """Answers what a test says; everything is ready unless it says otherwise."""

    def __init__(self) -> None:
        self.requests: list[Check] = []
        self.answer: Callable[[Check], Answer] = lambda _: Answer(all_ready=True, lineage_revision=7)
        self.upstreams: list[lineage_pb2.FlowState] = []  # of every flow
        self.state = lineage_pb2.FlowState()  # of every flow
        self.moved: list[tuple[str, str]] = []  # roots of data
        self.is_away = False  # when it is told of a move

    async def CheckUpstreamFreshness(self, request: Check, _: Any) -> Answer:
        self.requests.append(request)
        return self.answer(request)

    async def MoveDataRoot(
        self, request: lineage_service_pb2.MoveDataRootRequest, _: Any
    ) -> lineage_service_pb2.MoveDataRootResponse:
        if self.is_away:
            raise UnavailableError("DATABASE_UNAVAILABLE", "retry")
        self.moved.append((request.from_root, request.to_root))
        return lineage_service_pb2.MoveDataRootResponse()

    async def GetFlowState(
        self, _request: lineage_service_pb2.GetFlowStateRequest, _: Any
    ) -> lineage_pb2.FlowState:
        return self.state

    async def ListUpstreams(
        self, _request: lineage_service_pb2.ListUpstreamsRequest, _: Any
    ) -> lineage_service_pb2.ListUpstreamsResponse:
        return lineage_service_pb2.ListUpstreamsResponse(flows=self.upstreams)

    async def BatchCheckUpstreamFreshness(
        self, request: lineage_service_pb2.BatchCheckUpstreamFreshnessRequest, _: Any
    ) -> lineage_service_pb2.BatchCheckUpstreamFreshnessResponse:
        self.requests.extend(request.requests)
        return lineage_service_pb2.BatchCheckUpstreamFreshnessResponse(
            responses=[self.answer(each) for each in request.requests]
        )


def flow_of(instance: instance_pb2.Instance) -> flow_pb2.FlowRef:
    """Return the instance's first flow."""
    return flow_pb2.FlowRef(instance_id=instance.instance_id, flow_kind=instance.flows[0].flow_kind)


def unavailable(_: Check) -> Answer:
    """Lineage-service has a bad day."""
    raise UnavailableError("DATABASE_UNAVAILABLE", "retry")


@contextlib.asynccontextmanager
async def running_peers(urls: dict[str, str]) -> AsyncIterator[tuple[Instances, Lineage, dict[str, str]]]:
    """Serve both; also yield their addresses as run-service's settings."""
    # The generated classes are abstract to the type checker; at run time a missing method is unimplemented.
    instances, lineage = Instances(), Lineage()  # type: ignore[abstract]  # only the methods that are called
    settings = ServiceSettings.model_validate(
        {**urls, "service_token": SERVICE_TOKEN, "tokens_file": tokens_file(), "shutdown_grace_seconds": 0.1}
    )
    add_instances = instance_service_pb2_grpc.add_InstanceServiceServicer_to_server
    add_definitions = definition_service_pb2_grpc.add_DefinitionServiceServicer_to_server
    add_lineage = lineage_service_pb2_grpc.add_LineageServiceServicer_to_server
    servers = {
        "instance_address": _server(
            settings,
            "instance",
            (add_instances, instances, "optaic.instance.v1.InstanceService"),
            (add_definitions, instances.definitions, "optaic.definition.v1.DefinitionService"),
        ),
        "lineage_address": _server(
            settings, "lineage", (add_lineage, lineage, "optaic.lineage.v1.LineageService")
        ),
    }
    async with contextlib.AsyncExitStack() as stack:
        for server in servers.values():
            await server.start()
            stack.push_async_callback(server.stop)
        yield instances, lineage, {name: server.address for name, server in servers.items()}


def _server(settings: ServiceSettings, word: str, *servicers: tuple[Any, object, str]) -> Server:
    domain = f"{word}.optaic"
    return Server(settings, domain, domain, list(servicers), make_authenticator(settings))
