"""Calls to instance-service and lineage-service; it translates their refusals and decides nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import grpc

from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc
from optaic.lineage.v1 import lineage_service_pb2, lineage_service_pb2_grpc
from servicekit.context import current
from servicekit.errors import DomainError, InternalError, NotFoundError, UnavailableError
from servicekit.guard import READ_TOKENS_KEY
from servicekit.joining import Joined
from servicekit.status import from_rpc_error

_LONGEST_WAIT = 1.0
_NOT_ARRIVED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_Answer = lineage_service_pb2.CheckUpstreamFreshnessResponse


class Peers:
    """The services that admission asks; the current request's tenant travels along."""

    def __init__(self, instance_channel: Any, lineage_channel: Any) -> None:
        self._instances: Any = instance_service_pb2_grpc.InstanceServiceStub(instance_channel)
        self._lineage: Any = lineage_service_pb2_grpc.LineageServiceStub(lineage_channel)
        self._joined = defaultdict[str, Joined[instance_pb2.Instance]](lambda: Joined(self._get_instances))

    async def get_instance(self, instance_id: str) -> instance_pb2.Instance:
        """Return the newest revision; those who ask at the same time share a call.

        Raises:
            NotFoundError: INSTANCE_NOT_FOUND.
            UnavailableError: instance-service does not answer as it should.
        """
        instance = await self._joined[current().tenant_id].read(instance_id)
        return instance or await self._get_instance(instance_id)

    async def _get_instances(self, instance_ids: Sequence[str]) -> dict[str, instance_pb2.Instance]:
        """Return instances by one call; none at all where one is missing: each is asked for alone then."""
        if len(instance_ids) == 1:
            return {instance_ids[0]: await self._get_instance(instance_ids[0])}
        request = instance_service_pb2.BatchGetInstancesRequest(instance_ids=instance_ids)
        try:
            answer = await self._instances.BatchGetInstances(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise _translate(error) from error
        return dict(zip(instance_ids, answer.instances, strict=True))

    async def _get_instance(self, instance_id: str) -> instance_pb2.Instance:
        request = instance_service_pb2.GetInstanceRequest(instance_id=instance_id)
        try:
            instance: instance_pb2.Instance = await self._instances.GetInstance(request)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        return instance

    async def check_upstreams(self, request: lineage_service_pb2.CheckUpstreamFreshnessRequest) -> _Answer:
        """Return what blocks a flow and what a run of it would read.

        What the caller wrote to instances a moment ago, and says so, counts. Where it does not arrive there, as
        with the broker down, admission goes on without: the end of the run is compared with everything anyway.

        Raises:
            NotFoundError: FLOW_NOT_FOUND.
            UnavailableError: lineage-service does not answer as it should.
        """
        written = [token for token in current().read_tokens if token.startswith("instance/")]
        try:
            if written:
                try:
                    metadata = ((READ_TOKENS_KEY, ",".join(written)),)
                    return await self._check(request, metadata=metadata, timeout=_LONGEST_WAIT)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in _NOT_ARRIVED:
                        raise
            return await self._check(request)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error

    async def _check(
        self, request: lineage_service_pb2.CheckUpstreamFreshnessRequest, **options: Any
    ) -> _Answer:
        answer: _Answer = await self._lineage.CheckUpstreamFreshness(request, **options)
        return answer


_REASONS = {"INSTANCE_NOT_FOUND", "FLOW_NOT_FOUND"}
_PASSING = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"}


def _translate(error: grpc.aio.AioRpcError) -> DomainError:
    meaning = from_rpc_error(error)
    if isinstance(meaning, NotFoundError) and meaning.reason in _REASONS:
        return meaning
    if meaning.code == "DEADLINE_EXCEEDED":
        return meaning
    if meaning.code in _PASSING:
        return UnavailableError(
            "DEPENDENCY_UNAVAILABLE", f"a service that admission needs says: {meaning.message}"
        )
    # Whatever else a peer says about our call is a fault of ours, not the client's.
    return InternalError("INTERNAL", f"a service that admission needs refused: {meaning.message}")
