"""Read and watch the status of instances."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any

from optaic.client import messages
from optaic.client.connection import Connection
from optaic.client.definitions import all_pages, each_page
from optaic.client.existence import require_instances, require_project
from optaic.client.moments import MomentLike, moment
from optaic.client.references import FlowLike, InstanceLike, flow_of, id_of
from optaic.errors import UnavailableError
from optaic.rules.pages import LARGEST_SIZE
from optaic.status.v1 import status_pb2
from optaic.status.v1 import status_service_pb2 as api
from optaic.status.v1.status_service_pb2_grpc import StatusServiceStub


class Statuses:
    """The methods for the statuses of instances and flows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _call(self, method: str, request: Any) -> Any:
        return await self._connection.call("status", StatusServiceStub, method, request)

    async def get(self, instance: InstanceLike) -> status_pb2.InstanceStatus:
        """Return an instance's status."""
        request = api.GetInstanceStatusRequest(instance_id=id_of(instance))
        answer: status_pb2.InstanceStatus = await self._call("GetInstanceStatus", request)
        return answer

    async def flow(self, flow: FlowLike, flow_kind: str | int | None = None) -> status_pb2.FlowStatus:
        """Return the status of one flow."""
        reference = await flow_of(self._connection, flow, flow_kind)
        answer: status_pb2.FlowStatus = await self._call(
            "GetFlowStatus", api.GetFlowStatusRequest(flow=reference)
        )
        return answer

    async def list(
        self,
        *,
        project: str = "",
        statuses: Sequence[str | int] = (),
        kinds: Sequence[str | int] = (),
        cause_kinds: Sequence[str | int] = (),
        flow_kinds: Sequence[str | int] = (),
        labels: Mapping[str, str] | None = None,
        owner: str = "",
        name: str = "",
        name_prefix: str = "",
        unchanged_since: datetime | None = None,
        changed_since: datetime | None = None,
        as_of: MomentLike | None = None,
        limit: int | None = None,
    ) -> list[status_pb2.InstanceStatus]:
        """Return the statuses of all instances, or of those to which every filter applies; at most `limit` of them.

        `cause_kinds` finds those of which a flow has such a cause, `unchanged_since` those that have had their status since
        then or longer, and `changed_since` those whose status has changed since then. With `as_of`, a lineage
        revision, a time or a run, the answer is what was then, without flows; of a run: what it saw.

        Raises:
            NotFoundError: There is no such project.
            OutOfRangeError: STATUS_HISTORY_NOT_KEPT; the history does not reach back to `as_of`.
        """
        request = _list_request(
            project_id=project,
            page_size=min(limit or LARGEST_SIZE, LARGEST_SIZE),
            statuses=statuses,
            kinds=kinds,
            cause_kinds=cause_kinds,
            flow_kinds=flow_kinds,
            labels=labels,
            owner=owner,
            name=name,
            name_prefix=name_prefix,
            unchanged_since_time=unchanged_since,
            changed_since_time=changed_since,
            as_of=None if as_of is None else moment(as_of),
        )

        lacks = False

        async def page(request: Any) -> Any:
            nonlocal lacks
            answer = await self._call("ListInstanceStatuses", request)
            lacks = lacks or answer.is_incomplete
            return answer

        found: list[status_pb2.InstanceStatus] = []
        async with aclosing(each_page(page, request, "instance_statuses")) as pages:
            async for each in pages:
                found.append(each)
                if limit and len(found) >= limit:
                    break
        self._tell_incomplete(is_incomplete=lacks)
        if not found:
            await require_project(self._connection, project)
        return found

    async def count(
        self,
        *,
        project: str = "",
        kinds: Sequence[str | int] = (),
        cause_kinds: Sequence[str | int] = (),
        flow_kinds: Sequence[str | int] = (),
        labels: Mapping[str, str] | None = None,
        owner: str = "",
        name: str = "",
        name_prefix: str = "",
        unchanged_since: datetime | None = None,
        changed_since: datetime | None = None,
        as_of: MomentLike | None = None,
    ) -> dict[str, int]:
        """Return how many instances have each status, most severe first; the filters are those of `list`.

        Raises:
            NotFoundError: There is no such project.
            OutOfRangeError: STATUS_HISTORY_NOT_KEPT; the history does not reach back to `as_of`.
        """
        request = _list_request(
            project_id=project,
            page_size=1,
            with_counts=True,
            kinds=kinds,
            cause_kinds=cause_kinds,
            flow_kinds=flow_kinds,
            labels=labels,
            owner=owner,
            name=name,
            name_prefix=name_prefix,
            unchanged_since_time=unchanged_since,
            changed_since_time=changed_since,
            as_of=None if as_of is None else moment(as_of),
        )
        answer = await self._call("ListInstanceStatuses", request)
        self._tell_incomplete(is_incomplete=answer.is_incomplete)
        if not answer.status_counts:
            await require_project(self._connection, project)
        return {messages.word(each, "status"): each.instance_count for each in answer.status_counts}

    def _tell_incomplete(self, *, is_incomplete: bool) -> None:
        if is_incomplete:
            self._connection.give_notice(
                "some instances may be missing here, because an earlier release stored them without what the filters ask for; "
                "they are completed within minutes, or ask an operator to run: python -m devstack republish"
            )

    async def history(
        self,
        instance: InstanceLike,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        only_status_changes: bool = False,
    ) -> Sequence[status_pb2.StatusTransition]:
        """Return the status changes of an instance, newest first, each with how long it lasted.

        `start` and `end` select what held in that time; `only_status_changes` leaves out versions that changed no status. The id of
        an instance that was deleted is accepted.

        Raises:
            NotFoundError: There is no such instance, and no history of one.
            OutOfRangeError: STATUS_HISTORY_NOT_KEPT; the history does not reach back to `start`.
        """
        request = api.GetStatusHistoryRequest(
            instance_id=id_of(instance),
            page_size=LARGEST_SIZE,
            only_status_changes=only_status_changes,
        )
        messages.fill(request, {"start_time": start, "end_time": end})

        async def page(request: Any) -> Any:
            return await self._call("GetStatusHistory", request)

        found = await all_pages(page, request, "transitions")
        if not found:
            await require_instances(self._connection, [instance])
        return found

    async def availability(
        self,
        instances: Sequence[InstanceLike] = (),
        *,
        project: str = "",
        kinds: Sequence[str | int] = (),
        windows: Sequence[tuple[datetime, datetime | None]] = (),
    ) -> Sequence[status_pb2.InstanceAvailability]:
        """Return for how much of each window instances were READY; by default of the last 24 hours, 7 and 30 days.

        A window is a start and an end; the end None means now.

        Raises:
            NotFoundError: There is no such project.
            OutOfRangeError: STATUS_HISTORY_NOT_KEPT; the history does not reach back to the start of a window.
        """
        request = api.ListInstanceAvailabilityRequest(
            instance_ids=[id_of(each) for each in instances], project_id=project, page_size=LARGEST_SIZE
        )
        messages.fill(request, {"kinds": kinds})
        for start, end in windows:
            messages.fill(request.windows.add(), {"start_time": start, "end_time": end})

        async def page(request: Any) -> Any:
            return await self._call("ListInstanceAvailability", request)

        found = await all_pages(page, request, "instance_availabilities")
        if not found:
            await require_project(self._connection, project)
        return found

    async def realtime_token(
        self,
        instances: Sequence[InstanceLike],
        *,
        runs: Sequence[str] = (),
        without_tenant: bool = False,
    ) -> api.CreateRealtimeTokenResponse:
        """Return tokens with which this caller subscribes to live messages of instances and of the ids of runs.

        Raises:
            NotFoundError: There is no such instance, or a run is not the newest of a flow of one of them.
            FailedPreconditionError: The installation gives no tokens, or its channels name tenants.
        """
        request = api.CreateRealtimeTokenRequest(
            instance_ids=[id_of(each) for each in instances],
            run_ids=runs,
            without_tenant=without_tenant,
        )
        answer: api.CreateRealtimeTokenResponse = await self._call("CreateRealtimeToken", request)
        return answer

    def realtime_url(self) -> str:
        """Return the WebSocket to which subscribers connect: OPTAIC_REALTIME_URL, or that of the stack on this machine; else empty."""
        return self._connection.find_realtime_url()

    async def watch(
        self,
        instances: Sequence[InstanceLike] = (),
        *,
        project: str = "",
        from_revision: int | None = None,
    ) -> AsyncGenerator[api.WatchInstanceStatusesResponse]:
        """Yield every change in order, without a gap, for ever.

        Without `from_revision`: first the statuses as they are, then a message with only a revision, then every
        change. After a lost connection it continues after the last revision that was yielded. What the service says
        when nothing has happened is not yielded.

        Raises:
            NotFoundError: There is no such instance or project.
            OutOfRangeError: REVISION_COMPACTED; begin again without `from_revision`.
        """
        with contextlib.suppress(UnavailableError):  # then the watch itself waits for the service
            await require_project(self._connection, project)
            await require_instances(self._connection, instances)
        position = from_revision
        ids = [id_of(each) for each in instances]

        def next_request() -> api.WatchInstanceStatusesRequest:
            return api.WatchInstanceStatusesRequest(
                instance_ids=ids, project_id=project, from_revision=position
            )

        changes = self._connection.stream("status", StatusServiceStub, "WatchInstanceStatuses", next_request)
        async with aclosing(changes):
            async for response in changes:
                if not response.is_initial:
                    if response.revision == position and not response.HasField("instance_status"):
                        continue  # a bookmark
                    position = response.revision
                yield response


def _list_request(**values: Any) -> api.ListInstanceStatusesRequest:
    request = api.ListInstanceStatusesRequest()
    messages.fill(request, values)
    return request
