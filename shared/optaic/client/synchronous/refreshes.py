"""Refreshes: bringing chains of flows up to date, and watching how that goes. Generated from optaic.client.refreshes by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from optaic.client import refreshes as asynchronous
from optaic.client.references import InstanceLike
from optaic.client.synchronous.loop import Plain
from optaic.run.v1 import refresh_pb2
from optaic.run.v1 import run_service_pb2 as api


class RefreshHandle(Plain[asynchronous.RefreshHandle]):
    """One refresh as it was last seen. Every field of `Refresh` is an attribute."""

    @property
    def refresh(self) -> refresh_pb2.Refresh:
        """The refresh as it was last seen."""
        return self._target.refresh

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._target, name)

    @property
    def is_ended(self) -> bool:
        """Return whether the refresh, as last seen, has ended."""
        return self._target.is_ended

    def flows(self) -> Sequence[refresh_pb2.RefreshFlow]:
        """Return all flows of the refresh, level by level."""
        return self._loop.run(self._target.flows())

    def watch(self) -> Generator[api.WatchRefreshResponse, None, None]:
        """Yield the refresh with all flows, then with those that changed, until it has ended; survives lost connections."""
        return self._loop.iterate(self._target.watch())

    def wait(self, timeout: float | None = None) -> refresh_pb2.Refresh:
        """Wait until the refresh has ended in any way; return it.

        Raises:
            TimeoutError: It took longer than `timeout` seconds; the refresh continues.
        """
        return self._loop.run(self._target.wait(timeout))

    def cancel(self, reason: str = "") -> refresh_pb2.Refresh:
        """Cancel the refresh and the runs that it has submitted."""
        return self._loop.run(self._target.cancel(reason))

    def resume(self) -> refresh_pb2.Refresh:
        """Continue the failed or cancelled refresh with what it has not brought up to date."""
        return self._loop.run(self._target.resume())


class Refreshes(Plain[asynchronous.Refreshes]):
    """The methods for refreshes."""

    def plan(
        self,
        *instances: InstanceLike,
        project: str = "",
        labels: Mapping[str, str] | None = None,
        all: bool = False,
        upstream: bool = False,
        downstream: bool = False,
        mode: str | int = 0,
    ) -> Sequence[refresh_pb2.RefreshFlow]:
        """Return the flows that `submit` would bring up to date, level by level; arguments as there."""
        return self._loop.run(
            self._target.plan(
                *instances,
                project=project,
                labels=labels,
                all=all,
                upstream=upstream,
                downstream=downstream,
                mode=mode,
            )
        )

    def submit(
        self,
        *instances: InstanceLike,
        project: str = "",
        labels: Mapping[str, str] | None = None,
        all: bool = False,
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
        return RefreshHandle(
            self._loop,
            self._loop.run(
                self._target.submit(
                    *instances,
                    project=project,
                    labels=labels,
                    all=all,
                    upstream=upstream,
                    downstream=downstream,
                    mode=mode,
                    on_failure=on_failure,
                    max_parallel_runs=max_parallel_runs,
                    request_id=request_id,
                )
            ),
        )

    def get(self, refresh_id: str) -> RefreshHandle:
        """Return a refresh."""
        return RefreshHandle(self._loop, self._loop.run(self._target.get(refresh_id)))

    def list(self, *, statuses: Sequence[str | int] = ()) -> list[refresh_pb2.Refresh]:
        """Return all refreshes that are kept, newest first."""
        return self._loop.run(self._target.list(statuses=statuses))

    def flows(self, refresh_id: str) -> Sequence[refresh_pb2.RefreshFlow]:
        """Return all flows of a refresh, level by level."""
        return self._loop.run(self._target.flows(refresh_id))

    def cancel(self, refresh_id: str, reason: str = "") -> RefreshHandle:
        """Cancel a refresh and the runs that it has submitted."""
        return RefreshHandle(self._loop, self._loop.run(self._target.cancel(refresh_id, reason)))

    def resume(self, refresh_id: str) -> RefreshHandle:
        """Continue a failed or cancelled refresh with what it has not brought up to date."""
        return RefreshHandle(self._loop, self._loop.run(self._target.resume(refresh_id)))

    def watch(self, refresh_id: str) -> Generator[api.WatchRefreshResponse, None, None]:
        """Yield a refresh with all flows, then with those that changed, until it has ended."""
        return self._loop.iterate(self._target.watch(refresh_id))
