"""Every method of the four services, and which process serves it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from optaic.audit.v1 import audit_service_pb2
from optaic.definition.v1 import definition_service_pb2
from optaic.instance.v1 import (
    access_service_pb2,
    data_removal_service_pb2,
    instance_service_pb2,
    probe_service_pb2,
)
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import data_move_service_pb2, run_report_service_pb2, run_service_pb2
from optaic.status.v1 import status_service_pb2

_OF_EACH: Sequence[Any] = (audit_service_pb2, health_pb2, reflection_pb2)
_MODULES: dict[str, Sequence[Any]] = {
    "instance": (
        access_service_pb2,
        data_removal_service_pb2,
        definition_service_pb2,
        instance_service_pb2,
        probe_service_pb2,
        *_OF_EACH,
    ),
    "run": (data_move_service_pb2, run_report_service_pb2, run_service_pb2, *_OF_EACH),
    "lineage": (lineage_service_pb2, *_OF_EACH),
    "status": (status_service_pb2, *_OF_EACH),
}


@dataclass(frozen=True)
class Method:
    """A method as one process serves it."""

    process: str
    path: str
    request: type[Message]
    response: type[Message]
    is_stream: bool
    takes_stream: bool

    @property
    def key(self) -> str:
        """Return what tells it from the same method of another service."""
        return f"{self.process}{self.path}"

    @property
    def name(self) -> str:
        """Return its own name."""
        return self.path.rpartition("/")[2]

    @property
    def is_ours(self) -> bool:
        """Return whether it has a contract of ours."""
        return self.path.startswith("/optaic.")


def _methods() -> Iterator[Method]:
    for process, modules in _MODULES.items():
        for module in modules:
            for service in module.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    yield Method(
                        process,
                        f"/{service.full_name}/{method.name}",
                        message_factory.GetMessageClass(method.input_type),
                        message_factory.GetMessageClass(method.output_type),
                        method.server_streaming,
                        method.client_streaming,
                    )


METHODS: dict[str, Method] = {method.key: method for method in _methods()}


def find(name: str, process: str = "") -> Method:
    """Return the method with a name; of a method that each service has, that of a process."""
    (found,) = (
        each for each in METHODS.values() if each.name == name and each.process == (process or each.process)
    )
    return found
