"""Compare with the other services, so that an event that the broker lost is noticed and published again."""

from __future__ import annotations

from collections.abc import Sequence

from lineage_service import conversion
from lineage_service.domain.keys import FlowKey
from lineage_service.store.comparison import RunNumbers
from lineage_service.use_cases import comparison
from lineage_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.access_pb2 import RoleBindingPage, RoleBindingsWanted
from optaic.instance.v1.instance_comparison_pb2 import InstancePage, InstancesWanted
from optaic.lineage.v1.lineage_comparison_pb2 import FlowEntry, FlowPage, FlowsWanted
from optaic.run.v1.run_comparison_pb2 import RunPage, RunsWanted
from servicekit.bindings import compare_bindings
from servicekit.comparison import Comparison
from servicekit.locations import add_missing

_PAGE = 2_000  # flows per message


class Comparing:
    """The comparison of the flows stored here with those of other services; it asks them for what is missing."""

    def __init__(self, deps: Dependencies, channel: Comparison) -> None:
        self._deps = deps
        self._channel = channel

    def listen(self) -> None:
        """Register a handler for each kind of comparison message that this service answers."""
        compare_bindings(self._channel, self._deps.database, RoleBindingPage, RoleBindingsWanted)
        self._channel.on("instances.page", InstancePage, self._compare_instances)
        self._channel.on("runs.page", RunPage, self._compare_runs)
        self._channel.on("flows.wanted", FlowsWanted, self._publish_again)

    async def _compare_instances(self, tenant_id: str, page: InstancePage) -> None:
        projects = {entry.instance_id: entry.project_id for entry in page.instances}
        await add_missing(self._deps.database, tenant_id, projects)
        after, until = page.after_instance_id, page.until_instance_id
        listed = {
            entry.instance_id: comparison.Listed(entry.revision, entry.is_deleting)
            for entry in page.instances
        }
        wanted = await comparison.list_wanted_instances(self._deps, tenant_id, after, until, listed)
        await self._channel.ask(
            tenant_id, "instances.wanted", wanted, _instances_wanted, at_once=page.at_once
        )
        entries = [
            FlowEntry(flow=conversion.flow_ref(*key), revision=revision)
            for key, revision in await comparison.list_flows(self._deps, tenant_id, after, until)
        ]
        for start in range(0, len(entries), _PAGE):
            page_of_flows = FlowPage(flows=entries[start : start + _PAGE], at_once=page.at_once)
            await self._channel.send(tenant_id, "flows.page", page_of_flows)

    async def _compare_runs(self, tenant_id: str, page: RunPage) -> None:
        listed = {
            conversion.flow_key(entry.flow): RunNumbers(
                entry.run_number,
                entry.ended_run_number,
                entry.outcome_run_number,
                entry.completed_run_number,
                entry.full_run_number,
            )
            for entry in page.flows
        }
        wanted = await comparison.list_wanted_runs(self._deps, tenant_id, listed)
        await self._channel.ask(tenant_id, "runs.wanted", wanted, _runs_wanted, at_once=page.at_once)

    async def _publish_again(self, tenant_id: str, wanted: FlowsWanted) -> None:
        keys = sorted({conversion.flow_key(flow) for flow in wanted.flows})
        await comparison.publish_again(self._deps, tenant_id, keys)


def _instances_wanted(instance_ids: Sequence[str]) -> InstancesWanted:
    return InstancesWanted(instance_ids=instance_ids)


def _runs_wanted(keys: Sequence[FlowKey]) -> RunsWanted:
    return RunsWanted(flows=[conversion.flow_ref(*key) for key in keys])
