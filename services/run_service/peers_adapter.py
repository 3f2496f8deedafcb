"""Call instance-service and lineage-service, and translate their errors; decide nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from typing import Any

import grpc

from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2, definition_service_pb2, definition_service_pb2_grpc
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2, lineage_service_pb2_grpc
from optaic.rules.pages import LARGEST_SIZE
from run_service.domain.errors import dependency_refused, dependency_unavailable
from servicekit.coalescing import Coalesced
from servicekit.context import current, current_or_none
from servicekit.errors import (
    DeadlineExceededError,
    DomainError,
    NotFoundError,
    UnavailableError,
)
from servicekit.interceptor import READ_TOKENS_KEY
from servicekit.status import from_rpc_error
from servicekit.tokens import writes_pending

_LONGEST_WAIT = 1.0
_LONGEST_PLAN_WAIT = 10.0  # for what the caller wrote; then the caller learns that it is not there yet
_MOST_FLOWS = 10_000  # of one page
_MOST_BYTES = 2_000_000  # of the questions of one call; lineage-service takes twice as many
_Instance = instance_pb2.Instance
_Check = lineage_service_pb2.CheckUpstreamFreshnessRequest
_Answer = lineage_service_pb2.CheckUpstreamFreshnessResponse


class Peers:
    """The services that admission asks; the current request's tenant travels along.

    A caller that asks while others of its tenant are asking shares a call with them: a call costs more than its answer.
    """

    def __init__(self, instance_channel: Any, lineage_channel: Any) -> None:
        self._instances: Any = instance_service_pb2_grpc.InstanceServiceStub(instance_channel)
        self._definitions: Any = definition_service_pb2_grpc.DefinitionServiceStub(instance_channel)
        self._lineage: Any = lineage_service_pb2_grpc.LineageServiceStub(lineage_channel)
        self._coalesced_instances = defaultdict[str, Coalesced[str, _Instance]](
            lambda: Coalesced(self._get_instances)
        )
        self._coalesced_checks = defaultdict[str, Coalesced[_Check, _Answer]](
            lambda: Coalesced(self._check_many)
        )

    async def get_instance(self, instance_id: str) -> _Instance:
        """Return the newest revision.

        Raises:
            NotFoundError: INSTANCE_NOT_FOUND.
            UnavailableError: instance-service does not answer as it should.
        """
        instance = await self._coalesced_instances[current().tenant_id].read(instance_id, instance_id)
        return instance or await self._get_instance(instance_id)

    async def _get_instances(self, instance_ids: Mapping[str, str]) -> dict[str, _Instance]:
        if len(instance_ids) == 1:
            return {instance_id: await self._get_instance(instance_id) for instance_id in instance_ids}
        request = instance_service_pb2.BatchGetInstancesRequest(instance_ids=instance_ids)
        answer = await _all_or_none(self._instances.BatchGetInstances(request))
        return dict(zip(instance_ids, answer.instances, strict=True)) if answer else {}

    async def _get_instance(self, instance_id: str) -> _Instance:
        request = instance_service_pb2.GetInstanceRequest(instance_id=instance_id)
        try:
            instance: _Instance = await self._instances.GetInstance(request)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        return instance

    async def get_instances(self, instance_ids: Collection[str]) -> dict[str, _Instance]:
        """Return the newest revisions of those of the instances that exist.

        Raises:
            UnavailableError: instance-service does not answer as it should.
        """
        wanted = set(instance_ids)
        found: dict[str, _Instance] = {}
        while wanted:
            request = instance_service_pb2.BatchGetInstancesRequest(instance_ids=sorted(wanted))
            try:
                answer = await self._instances.BatchGetInstances(request)
            except grpc.aio.AioRpcError as error:
                meaning = from_rpc_error(error)
                missing = wanted.intersection(meaning.metadata.get("instance_ids", "").split(", "))
                if meaning.reason == "INSTANCE_NOT_FOUND" and missing:
                    wanted -= missing
                    continue
                if meaning.reason != "TOO_LARGE" or len(wanted) == 1:
                    raise _translate(error) from error
                half = sorted(wanted)[: len(wanted) // 2]
                found |= await self.get_instances(half)
                wanted.difference_update(half)
            else:
                return found | {instance.instance_id: instance for instance in answer.instances}
        return found

    async def list_instance_ids(self, project_id: str, labels: Mapping[str, str], most: int) -> list[str]:
        """Return the ids of the instances of a project, with labels, or both; one more than `most` if there are more.

        Raises:
            UnavailableError: instance-service does not answer as it should.
        """
        request = instance_service_pb2.ListInstancesRequest(
            project_id=project_id, labels=labels, page_size=LARGEST_SIZE
        )
        found: list[str] = []
        while len(found) <= most:
            try:
                page = await self._instances.ListInstances(request)
            except grpc.aio.AioRpcError as error:
                raise _translate(error) from error
            found += [instance.instance_id for instance in page.instances]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        return found[: most + 1]

    async def get_definition_version(self, version_id: str) -> definition_pb2.DefinitionVersion:
        """Return a definition version.

        Raises:
            NotFoundError: DEFINITION_VERSION_NOT_FOUND.
            UnavailableError: instance-service does not answer as it should.
        """
        request = definition_service_pb2.GetDefinitionVersionRequest(definition_version_id=version_id)
        try:
            version: definition_pb2.DefinitionVersion = await self._definitions.GetDefinitionVersion(request)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        return version

    async def check_upstreams(self, request: _Check) -> _Answer:
        """Return what blocks a flow and what a run of it would read.

        What the caller wrote to instances a moment ago, and says so, counts. Where it does not arrive there, as
        with the broker down, admission continues without it: the end of the run is compared with everything anyway.

        Raises:
            NotFoundError: FLOW_NOT_FOUND.
            UnavailableError: lineage-service does not answer as it should.
        """
        context = current()
        written = [token for token in context.read_tokens if token.startswith("instance/")]
        if not written and not request.run_events:
            key = f"{request.flow.instance_id}/{request.flow.flow_kind}/{request.instance.revision}"
            answer = await self._coalesced_checks[context.tenant_id].read(key, request)
            return answer or await self._check(request)
        if written:
            try:
                metadata = ((READ_TOKENS_KEY, ",".join(written)),)
                return await self._check(request, metadata=metadata, timeout=_LONGEST_WAIT)
            except (UnavailableError, DeadlineExceededError):
                pass
        return await self._check(request)

    async def get_flow_state(self, flow: flow_pb2.FlowRef) -> lineage_pb2.FlowState:
        """Return the state of a flow.

        Raises:
            NotFoundError: FLOW_NOT_FOUND.
            UnavailableError: lineage-service does not answer as it should.
        """
        request = lineage_service_pb2.GetFlowStateRequest(flow=flow)
        try:
            state: lineage_pb2.FlowState = await self._lineage.GetFlowState(request)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        return state

    async def list_upstreams(self, flow: flow_pb2.FlowRef) -> list[lineage_pb2.FlowState]:
        """Return the states of all transitive upstreams of a flow.

        Raises:
            NotFoundError: FLOW_NOT_FOUND.
            UnavailableError: lineage-service does not answer as it should.
        """
        states: list[lineage_pb2.FlowState] = []
        request = lineage_service_pb2.ListUpstreamsRequest(flow=flow, page_size=_MOST_FLOWS)
        while True:
            try:
                page = await self._lineage.ListUpstreams(request)
            except grpc.aio.AioRpcError as error:
                raise _translate(error) from error
            states += page.flows
            request.page_token = page.next_page_token
            if not request.page_token:
                return states

    async def check_all_upstreams(self, requests: Sequence[_Check]) -> list[_Answer | DomainError]:
        """Return the answer to each request as `check_upstreams` does, or its refusal, in their order.

        Raises:
            UnavailableError: lineage-service does not answer as it should.
        """
        answers: list[_Answer | DomainError] = []
        for part in _parts(requests):
            batch = lineage_service_pb2.BatchCheckUpstreamFreshnessRequest(requests=part)
            has_waited_for = any(token.startswith("instance/") for token in current().read_tokens)
            # One by one: the first waits for what the caller has written, and then the others find it there.
            found = (
                None
                if has_waited_for
                else await _all_or_none(self._lineage.BatchCheckUpstreamFreshness(batch))
            )
            answers += found.responses if found else [await self._answer_or_refusal(each) for each in part]
        return answers

    async def _answer_or_refusal(self, request: _Check) -> _Answer | DomainError:
        try:
            return await self.check_upstreams(request)
        except NotFoundError as error:
            return error

    async def plan_flows(
        self, request: lineage_service_pb2.PlanFlowsRequest
    ) -> lineage_service_pb2.PlanFlowsResponse:
        """Return the flows that a refresh has to look at; what the caller wrote a moment ago, and says so, counts.

        Raises:
            ResourceExhaustedError: TOO_MANY_FLOWS.
            UnavailableError: READ_TOKENS_PENDING: what the caller wrote has not arrived there; or lineage-service does not answer as it
                should.
        """
        context = current_or_none()
        tokens = ",".join(context.read_tokens) if context else ""
        metadata = ((READ_TOKENS_KEY, tokens),) if tokens else ()
        try:
            answer: lineage_service_pb2.PlanFlowsResponse = await self._lineage.PlanFlows(
                request, metadata=metadata, timeout=_LONGEST_PLAN_WAIT if tokens else None
            )
        except grpc.aio.AioRpcError as error:
            if tokens and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise writes_pending(len(context.read_tokens) if context else 0) from error
            raise _translate(error) from error
        return answer

    async def move_data_root(self, from_root: str, to_root: str) -> None:
        """Tell lineage-service where the tenant's data lies now.

        Raises:
            UnavailableError: lineage-service does not answer as it should.
        """
        request = lineage_service_pb2.MoveDataRootRequest(from_root=from_root, to_root=to_root)
        try:
            await self._lineage.MoveDataRoot(request)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error

    async def _check_many(self, requests: Mapping[str, _Check]) -> dict[str, _Answer]:
        if len(requests) == 1:
            return {key: await self._check(request) for key, request in requests.items()}
        request = lineage_service_pb2.BatchCheckUpstreamFreshnessRequest(requests=requests.values())
        answer = await _all_or_none(self._lineage.BatchCheckUpstreamFreshness(request))
        return dict(zip(requests, answer.responses, strict=True)) if answer else {}

    async def _check(self, request: _Check, **options: Any) -> _Answer:
        try:
            answer: _Answer = await self._lineage.CheckUpstreamFreshness(request, **options)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        return answer


def _parts(requests: Sequence[_Check]) -> Iterator[Sequence[_Check]]:
    """Yield the requests in parts that are small enough for one call."""
    begin = size = 0
    for number, request in enumerate(requests):
        size += request.ByteSize()
        if size > _MOST_BYTES and number > begin:
            yield requests[begin:number]
            begin, size = number, request.ByteSize()
    yield requests[begin:]


async def _all_or_none(call: Awaitable[Any]) -> Any:
    """Return the answer of a call for several resources; None if each of them must be asked for alone.

    This is so if one of them is not found, or if together they are too large.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND or from_rpc_error(error).reason == "TOO_LARGE":
            return None
        raise _translate(error) from error


_REASONS = {"INSTANCE_NOT_FOUND", "FLOW_NOT_FOUND", "DEFINITION_VERSION_NOT_FOUND", "TOO_MANY_FLOWS"}
_PASSING = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"}


def _translate(error: grpc.aio.AioRpcError) -> DomainError:
    meaning = from_rpc_error(error)
    if meaning.reason in _REASONS:
        return meaning
    if meaning.code == "DEADLINE_EXCEEDED":
        return meaning
    if meaning.code in _PASSING:
        return dependency_unavailable(meaning.message)
    # Any other error means that run-service called wrongly: the client cannot help it.
    return dependency_refused(meaning)
