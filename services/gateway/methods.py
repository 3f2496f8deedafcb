"""The methods that the gateway serves: of each service those that people may call, from the contracts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from google.protobuf.descriptor import MethodDescriptor

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
from servicekit import access, bounds

_CONTRACTS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "instance": (
            access_service_pb2,
            data_removal_service_pb2,
            definition_service_pb2,
            instance_service_pb2,
            probe_service_pb2,
        ),
        "run": (data_move_service_pb2, run_service_pb2, run_report_service_pb2),
        "lineage": (lineage_service_pb2,),
        "status": (status_service_pb2,),
    }
)
SERVICES = tuple(_CONTRACTS)
_JSON_FACTOR = 2  # JSON may have so many times the bytes of the binary request
_SLACK_BYTES = 16 * 1024


@dataclass(frozen=True)
class Method:
    """A method of a service, and the path at which the gateway serves it."""

    service: str
    path: str
    descriptor: MethodDescriptor

    @property
    def grpc_path(self) -> str:
        """Return the path by which the service knows the method."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def is_stream(self) -> bool:
        """Return whether it answers with a stream."""
        return bool(self.descriptor.server_streaming)

    @property
    def most_bytes(self) -> int:
        """Return how many bytes the body of a request may have; the service measures the request itself."""
        return _JSON_FACTOR * bounds.most_bytes(self.grpc_path) + _SLACK_BYTES


def find_methods() -> dict[str, Method]:
    """Return the methods by their paths.

    Every service has an audit trail of its own, so the paths of those methods begin with the name of the service.
    """
    return {method.path: method for method in _methods()}


def _methods() -> Iterator[Method]:
    for service, modules in _CONTRACTS.items():
        for prefix, module in [*(("", module) for module in modules), (f"/{service}", audit_service_pb2)]:
            for contract in module.DESCRIPTOR.services_by_name.values():
                for method in contract.methods:
                    path = f"/{contract.full_name}/{method.name}"
                    if access.is_for_people(access.access_of(path).permission):
                        yield Method(service, prefix + path, method)
