"""Read and watch the status of instances. Generated from optaic.client.status by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime

from optaic.client import status as asynchronous
from optaic.client.moments import MomentLike
from optaic.client.references import FlowLike, InstanceLike
from optaic.client.synchronous.loop import Plain
from optaic.status.v1 import status_pb2
from optaic.status.v1 import status_service_pb2 as api


class Statuses(Plain[asynchronous.Statuses]):
    """The methods for the statuses of instances and flows."""

    def get(self, instance: InstanceLike) -> status_pb2.InstanceStatus:
        """Return an instance's status."""
        return self._loop.run(self._target.get(instance))

    def flow(self, flow: FlowLike, flow_kind: str | int | None = None) -> status_pb2.FlowStatus:
        """Return the status of one flow."""
        return self._loop.run(self._target.flow(flow, flow_kind))

    def list(
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
        return self._loop.run(
            self._target.list(
                project=project,
                statuses=statuses,
                kinds=kinds,
                cause_kinds=cause_kinds,
                flow_kinds=flow_kinds,
                labels=labels,
                owner=owner,
                name=name,
                name_prefix=name_prefix,
                unchanged_since=unchanged_since,
                changed_since=changed_since,
                as_of=as_of,
                limit=limit,
            )
        )

    def count(
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
        return self._loop.run(
            self._target.count(
                project=project,
                kinds=kinds,
                cause_kinds=cause_kinds,
                flow_kinds=flow_kinds,
                labels=labels,
                owner=owner,
                name=name,
                name_prefix=name_prefix,
                unchanged_since=unchanged_since,
                changed_since=changed_since,
                as_of=as_of,
            )
        )

    def history(
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
        return self._loop.run(
            self._target.history(instance, start=start, end=end, only_status_changes=only_status_changes)
        )

    def availability(
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
        return self._loop.run(
            self._target.availability(instances, project=project, kinds=kinds, windows=windows)
        )

    def realtime_token(
        self, instances: Sequence[InstanceLike], *, runs: Sequence[str] = (), without_tenant: bool = False
    ) -> api.CreateRealtimeTokenResponse:
        """Return tokens with which this caller subscribes to live messages of instances and of the ids of runs.

        Raises:
            NotFoundError: There is no such instance, or a run is not the newest of a flow of one of them.
            FailedPreconditionError: The installation gives no tokens, or its channels name tenants.
        """
        return self._loop.run(
            self._target.realtime_token(instances, runs=runs, without_tenant=without_tenant)
        )

    def realtime_url(self) -> str:
        """Return the WebSocket to which subscribers connect: OPTAIC_REALTIME_URL, or that of the stack on this machine; else empty."""
        return self._target.realtime_url()

    def watch(
        self, instances: Sequence[InstanceLike] = (), *, project: str = "", from_revision: int | None = None
    ) -> Generator[api.WatchInstanceStatusesResponse, None, None]:
        """Yield every change in order, without a gap, for ever.

        Without `from_revision`: first the statuses as they are, then a message with only a revision, then every
        change. After a lost connection it continues after the last revision that was yielded. What the service says
        when nothing has happened is not yielded.

        Raises:
            NotFoundError: There is no such instance or project.
            OutOfRangeError: REVISION_COMPACTED; begin again without `from_revision`.
        """
        return self._loop.iterate(self._target.watch(instances, project=project, from_revision=from_revision))
