"""Compare with the other services, so that an event that the broker lost is noticed and published again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from instance_service.use_cases import comparison
from instance_service.use_cases.dependencies import Dependencies
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, FlowRef
from optaic.instance.v1.access_pb2 import RoleBindingsWanted
from optaic.instance.v1.instance_comparison_pb2 import InstancesWanted
from optaic.run.v1.run_comparison_pb2 import RunPage, RunsWanted
from servicekit.comparison import Comparison

_PAUSE = 0.02  # seconds between pages, so that the other services keep up


class Comparing:
    """The comparison of all instances with other services; only the replica that publishes events makes it."""

    def __init__(
        self,
        deps: Dependencies,
        channel: Comparison,
        tenants: Sequence[str],
        is_leader: Callable[[], bool],
    ) -> None:
        self._deps = deps
        self._channel = channel
        self._tenants = tenants
        self._is_leader = is_leader
        self._requests: set[bytes] = set()

    def listen(self, wake: Callable[[], None]) -> None:
        """Start to listen to missing resources, existing runs, and an operator's requests for a comparison."""

        def begin(request_id: bytes) -> None:
            self._requests.add(request_id)
            wake()

        self._channel.on("instances.wanted", InstancesWanted, self._publish_again)
        self._channel.on("role_bindings.wanted", RoleBindingsWanted, self._publish_bindings_again)
        self._channel.on("runs.page", RunPage, self._compare_runs)
        self._channel.on_request(begin)

    async def step(self) -> bool:
        """Announce every instance and every binding of a role once; return False, because nothing is left until the next interval."""
        requests, self._requests = self._requests, set()
        if not self._is_leader():
            return False
        for tenant_id in await comparison.list_tenants(self._deps, self._tenants):
            async for page in comparison.pages(self._deps, tenant_id):
                page.at_once = bool(requests)
                await self._channel.send(tenant_id, "instances.page", page)
                await asyncio.sleep(_PAUSE)
            async for bindings in comparison.binding_pages(self._deps, tenant_id):
                bindings.at_once = bool(requests)
                await self._channel.send(tenant_id, "role_bindings.page", bindings)
                await asyncio.sleep(_PAUSE)
        for request_id in requests:
            await self._channel.end(request_id)
        return False

    async def _publish_again(self, tenant_id: str, wanted: InstancesWanted) -> None:
        await comparison.publish_again(self._deps, tenant_id, wanted.instance_ids)

    async def _publish_bindings_again(self, tenant_id: str, wanted: RoleBindingsWanted) -> None:
        await comparison.publish_bindings_again(self._deps, tenant_id, wanted.binding_ids)

    async def _compare_runs(self, tenant_id: str, page: RunPage) -> None:
        wanted = await comparison.list_old_outputs(self._deps, tenant_id, page.flows)
        await self._channel.ask(tenant_id, "runs.wanted", wanted, _runs_wanted, at_once=page.at_once)


def _runs_wanted(instance_ids: Sequence[str]) -> RunsWanted:
    flows = [FlowRef(instance_id=each, flow_kind=FLOW_KIND_REFRESH) for each in instance_ids]
    return RunsWanted(flows=flows)
