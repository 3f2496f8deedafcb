"""Compare with the other services, so that an event that the broker lost is noticed and published again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from optaic.common.v1.flow_pb2 import FlowKind, FlowRef
from optaic.instance.v1.access_pb2 import RoleBindingPage, RoleBindingsWanted
from optaic.instance.v1.instance_comparison_pb2 import InstancePage, InstancesWanted
from optaic.instance.v1.instance_pb2 import InstanceKind
from optaic.lineage.v1.lineage_comparison_pb2 import FlowPage, FlowsWanted
from servicekit.bindings import compare_bindings
from servicekit.comparison import Comparison
from servicekit.enums import enum_number, enum_word
from status_service.domain.statuses import has_status
from status_service.use_cases import comparison
from status_service.use_cases.dependencies import Dependencies


class Comparing:
    """The comparison of what is stored here with what the owners list; it asks them for what is missing."""

    def __init__(self, deps: Dependencies, channel: Comparison) -> None:
        self._deps = deps
        self._channel = channel

    def listen(self) -> None:
        """Register a handler for each kind of comparison message that this service answers."""
        compare_bindings(self._channel, self._deps.database, RoleBindingPage, RoleBindingsWanted)
        self._channel.on("instances.page", InstancePage, self._compare_instances)
        self._channel.on("flows.page", FlowPage, self._compare_flows)

    async def _compare_instances(self, tenant_id: str, page: InstancePage) -> None:
        listed = {
            entry.instance_id: (entry.revision, entry.update_time.ToDatetime(UTC))
            for entry in page.instances
            if has_status(enum_word(InstanceKind, entry.kind))
        }
        wanted = await comparison.list_wanted_instances(
            self._deps, tenant_id, page.after_instance_id, page.until_instance_id, listed
        )
        await self._channel.ask(
            tenant_id, "instances.wanted", wanted, _instances_wanted, at_once=page.at_once
        )

    async def _compare_flows(self, tenant_id: str, page: FlowPage) -> None:
        listed = {
            (entry.flow.instance_id, enum_word(FlowKind, entry.flow.flow_kind)): entry.revision
            for entry in page.flows
        }
        wanted = await comparison.list_wanted_flows(self._deps, tenant_id, listed)
        await self._channel.ask(tenant_id, "flows.wanted", wanted, _flows_wanted, at_once=page.at_once)


def _instances_wanted(instance_ids: Sequence[str]) -> InstancesWanted:
    return InstancesWanted(instance_ids=instance_ids)


def _flows_wanted(keys: Sequence[tuple[str, str]]) -> FlowsWanted:
    return FlowsWanted(
        flows=[
            FlowRef(instance_id=instance_id, flow_kind=enum_number(FlowKind, kind))
            for instance_id, kind in keys
        ]
    )
