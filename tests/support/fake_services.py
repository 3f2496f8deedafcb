"""Small servicers in this process over a real channel: what the client says, and what it makes of answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from optaic.definition.v1 import definition_service_pb2_grpc
from optaic.instance.v1 import (
    access_service_pb2_grpc,
    data_removal_service_pb2_grpc,
    instance_service_pb2_grpc,
    probe_service_pb2_grpc,
)
from optaic.lineage.v1 import lineage_service_pb2_grpc
from optaic.run.v1 import data_move_service_pb2_grpc, run_service_pb2_grpc
from optaic.status.v1 import status_service_pb2_grpc

_SERVICES = {
    access_service_pb2_grpc: "AccessService",
    definition_service_pb2_grpc: "DefinitionService",
    instance_service_pb2_grpc: "InstanceService",
    data_removal_service_pb2_grpc: "DataRemovalService",
    probe_service_pb2_grpc: "ProbeService",
    lineage_service_pb2_grpc: "LineageService",
    data_move_service_pb2_grpc: "DataMoveService",
    run_service_pb2_grpc: "RunService",
    status_service_pb2_grpc: "StatusService",
}


@dataclass(frozen=True)
class Seen:
    """One call as it arrived."""

    method: str
    request: Any
    metadata: dict[str, str]


class FakeServices:
    """Answers each method with what `on` says; everything else is UNIMPLEMENTED."""

    def __init__(self) -> None:
        self.address = ""
        self.seen: list[Seen] = []
        self._handlers: dict[str, Callable[[Any, grpc.ServicerContext], Any]] = {}

    def on(self, method: str, answer: Any, *, write_token: str = "") -> None:
        """Answer a method with a message, or with what a function of (request, context) returns or yields."""

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            if write_token:
                context.set_trailing_metadata([("optaic-write-token", write_token)])
            return answer(request, context) if callable(answer) else answer

        self._handlers[method] = handle

    def calls(self, method: str) -> list[Seen]:
        """Return the calls of a method, in order."""
        return [each for each in self.seen if each.method == method]

    def answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Record a call, and answer it."""
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.seen.append(Seen(method, request, metadata))
        handler = self._handlers.get(method)
        if handler is None:
            return context.abort(grpc.StatusCode.UNIMPLEMENTED, method)
        return handler(request, context)


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    details: Sequence[Message] = (),
    **metadata: str,
) -> None:
    """End a call as the services do: with a rich status."""
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain="test.optaic", metadata=metadata)
    for detail in (info, *details):
        status.details.add().Pack(detail)
    context.abort_with_status(rpc_status.to_status(status))


def _servicer(module: Any, name: str, fake: FakeServices) -> Any:
    base = getattr(module, f"{name}Servicer")

    def method_of(method: str) -> Callable[[Any, Any, Any], Any]:
        return lambda _self, request, context: fake.answer(method, request, context)

    methods = {each: method_of(each) for each in vars(base) if each[0].isupper()}
    return type(f"Fake{name}", (base,), methods)()


@contextlib.contextmanager
def fake_services(port: int = 0) -> Iterator[FakeServices]:
    """Serve on a port, by default a free one, all services on one."""
    fake = FakeServices()
    # Threads, not an event loop: the clients under test bring loops of their own.
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    for module, name in _SERVICES.items():
        getattr(module, f"add_{name}Servicer_to_server")(_servicer(module, name, fake), server)
    fake.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(None).wait(10)
