"""Refreshes: bringing chains of flows up to date, and watching how that goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from optaic.client import messages
from optaic.client.connection import Connection
from optaic.client.definitions import all_pages
from optaic.client.references import InstanceLike, id_of
from optaic.rules.pages import LARGEST_SIZE
from optaic.run.v1 import refresh_pb2
from optaic.run.v1 import run_service_pb2 as api
from optaic.run.v1.run_service_pb2_grpc import RunServiceStub


class RefreshHandle:
    """One refresh as it was last seen. Every field of `Refresh` is an attribute."""

    def __init__(self, refreshes: Refreshes, refresh: refresh_pb2.Refresh) -> None:
        self._refreshes = refreshes
        self.refresh = refresh

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "refresh":
            raise AttributeError(name)
        return getattr(self.refresh, name)

    def __repr__(self) -> str:
        return f"RefreshHandle({self.refresh.refresh_id!r}, {messages.word(self.refresh, 'status')})"

    @property
    def is_ended(self) -> bool:
        """Return whether the refresh, as last seen, has ended."""
        return self.refresh.status != refresh_pb2.REFRESH_STATUS_RUNNING

    async def flows(self) -> Sequence[refresh_pb2.RefreshFlow]:
        """Return all flows of the refresh, level by level."""
        return await self._refreshes.flows(self.refresh.refresh_id)

    async def watch(self) -> AsyncGenerator[api.WatchRefreshResponse]:
        """Yield the refresh with all flows, then with those that changed, until it has ended; survives lost connections."""
        async with aclosing(self._refreshes.watch(self.refresh.refresh_id)) as changes:
            async for change in changes:
                self.refresh = change.refresh
                yield change

    async def wait(self, timeout: float | None = None) -> refresh_pb2.Refresh:  # noqa: ASYNC109 - the public interface
        """Wait until the refresh has ended in any way; return it.

        Raises:
            TimeoutError: It took longer than `timeout` seconds; the refresh continues.
        """
        if not self.is_ended:
            async with asyncio.timeout(timeout):
                async for _ in self.watch():
                    pass
        return self.refresh

    async def cancel(self, reason: str = "") -> refresh_pb2.Refresh:
        """Cancel the refresh and the runs that it has submitted."""
        self.refresh = (await self._refreshes.cancel(self.refresh.refresh_id, reason)).refresh
        return self.refresh

    async def resume(self) -> refresh_pb2.Refresh:
        """Continue the failed or cancelled refresh with what it has not brought up to date."""
        self.refresh = (await self._refreshes.resume(self.refresh.refresh_id)).refresh
        return self.refresh


class Refreshes:
    """The methods for refreshes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _call(self, method: str, request: Any) -> Any:
        return await self._connection.call("run", RunServiceStub, method, request)

    async def plan(
        self,
        *instances: InstanceLike,
        project: str = "",
        labels: Mapping[str, str] | None = None,
        all: bool = False,  # noqa: A002 - the word of the contract
        upstream: bool = False,
        downstream: bool = False,
        mode: str | int = 0,
    ) -> Sequence[refresh_pb2.RefreshFlow]:
        """Return the flows that `submit` would bring up to date, level by level; arguments as there."""
        request = api.PlanRefreshRequest(
            selection=_selection(instances, project, labels, all, upstream, downstream)
        )
        messages.fill(request, {"mode": mode})
        answer: api.PlanRefreshResponse = await self._call("PlanRefresh", request)
        return answer.flows

    async def submit(
        self,
        *instances: InstanceLike,
        project: str = "",
        labels: Mapping[str, str] | None = None,
        all: bool = False,  # noqa: A002 - the word of the contract
        upstream: bool = False,
        downstream: bool = False,
        mode: str | int = 0,
        on_failure: str | int = 0,
        max_parallel_runs: int = 0,
        request_id: str = "",
    ) -> RefreshHandle:
        """Bring flows up to date, in order, each at most once.

        Args:
            instances: Whose flows; or else `project`, `labels` or both; or else `all`.
            project: The id of a project: the flows of its instances.
            labels: The flows of the instances that have all of them.
            all: Every flow of the tenant.
            upstream: Also everything above.
            downstream: Also everything below.
            mode: `smart` (the default) runs what is not fresh, `force` runs everything.
            on_failure: `continue` (the default) with what does not depend on the failed flow, or `stop`.
            max_parallel_runs: So many runs at most are active at a time; 4 by default.
            request_id: Repeats with the same id get the first answer.

        Raises:
            OptaicError: The refusal of the service.
        """
        request = api.SubmitRefreshRequest(
            selection=_selection(instances, project, labels, all, upstream, downstream),
            max_parallel_runs=max_parallel_runs,
            request_id=request_id,
        )
        messages.fill(request, {"mode": mode, "on_failure": on_failure})
        return RefreshHandle(self, await self._call("SubmitRefresh", request))

    async def get(self, refresh_id: str) -> RefreshHandle:
        """Return a refresh."""
        request = api.GetRefreshRequest(refresh_id=refresh_id)
        return RefreshHandle(self, await self._call("GetRefresh", request))

    async def list(self, *, statuses: Sequence[str | int] = ()) -> list[refresh_pb2.Refresh]:
        """Return all refreshes that are kept, newest first."""
        request = api.ListRefreshesRequest(page_size=LARGEST_SIZE)
        messages.fill(request, {"statuses": statuses})

        async def page(request: Any) -> Any:
            return await self._call("ListRefreshes", request)

        return await all_pages(page, request, "refreshes")

    async def flows(self, refresh_id: str) -> Sequence[refresh_pb2.RefreshFlow]:
        """Return all flows of a refresh, level by level."""
        request = api.ListRefreshFlowsRequest(refresh_id=refresh_id, page_size=LARGEST_SIZE)

        async def page(request: Any) -> Any:
            return await self._call("ListRefreshFlows", request)

        return await all_pages(page, request, "flows")

    async def cancel(self, refresh_id: str, reason: str = "") -> RefreshHandle:
        """Cancel a refresh and the runs that it has submitted."""
        request = api.CancelRefreshRequest(refresh_id=refresh_id, reason=reason)
        return RefreshHandle(self, await self._call("CancelRefresh", request))

    async def resume(self, refresh_id: str) -> RefreshHandle:
        """Continue a failed or cancelled refresh with what it has not brought up to date."""
        request = api.ResumeRefreshRequest(refresh_id=refresh_id)
        return RefreshHandle(self, await self._call("ResumeRefresh", request))

    async def watch(self, refresh_id: str) -> AsyncGenerator[api.WatchRefreshResponse]:
        """Yield a refresh with all flows, then with those that changed, until it has ended."""
        changes = self._connection.stream(
            "run", RunServiceStub, "WatchRefresh", lambda: api.WatchRefreshRequest(refresh_id=refresh_id)
        )
        revision = None
        async with aclosing(changes):
            async for change in changes:
                if change.flows or change.refresh.revision != revision:  # else a bookmark
                    yield change
                revision = change.refresh.revision


def _selection(
    instances: Sequence[InstanceLike],
    project: str,
    labels: Mapping[str, str] | None,
    is_all: bool,
    upstream: bool,
    downstream: bool,
) -> refresh_pb2.RefreshSelection:
    return refresh_pb2.RefreshSelection(
        instance_ids=[id_of(each) for each in instances],
        project_id=project,
        labels=labels,
        all=is_all,
        include_upstream=upstream,
        include_downstream=downstream,
    )
