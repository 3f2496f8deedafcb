"""Compare with the other services, so that an event that the broker lost is noticed and published again."""

from __future__ import annotations

from optaic.common.v1.flow_pb2 import FlowKind, FlowRef
from optaic.instance.v1.access_pb2 import RoleBindingPage, RoleBindingsWanted
from optaic.instance.v1.instance_comparison_pb2 import InstancePage
from optaic.run.v1.run_comparison_pb2 import RunEntry, RunPage, RunsWanted
from run_service.use_cases import comparison
from run_service.use_cases.dependencies import Dependencies
from servicekit.bindings import compare_bindings
from servicekit.comparison import Comparison
from servicekit.enums import enum_number, enum_word
from servicekit.ids import is_id
from servicekit.locations import add_missing

_PAGE = 2_000  # flows in one message


class Comparing:
    """The answer to comparisons: it lists the newest runs, and publishes again the events that others lack."""

    def __init__(self, deps: Dependencies, channel: Comparison) -> None:
        self._deps = deps
        self._channel = channel

    def listen(self) -> None:
        """Subscribe to the comparisons that concern runs."""
        compare_bindings(self._channel, self._deps.database, RoleBindingPage, RoleBindingsWanted)
        self._channel.on("instances.page", InstancePage, self._send_runs)
        self._channel.on("runs.wanted", RunsWanted, self._publish_again)

    async def _send_runs(self, tenant_id: str, page: InstancePage) -> None:
        projects = {entry.instance_id: entry.project_id for entry in page.instances}
        await add_missing(self._deps.database, tenant_id, projects)
        newest = await comparison.list_run_numbers(
            self._deps, tenant_id, page.after_instance_id, page.until_instance_id
        )
        entries = [
            RunEntry(
                flow=FlowRef(
                    instance_id=flow.instance_id,
                    flow_kind=enum_number(FlowKind, flow.flow_kind),
                ),
                run_number=flow.run_number,
                ended_run_number=flow.ended,
                outcome_run_number=flow.outcome,
                completed_run_number=flow.completed,
                full_run_number=flow.full,
            )
            for flow in newest
        ]
        for start in range(0, len(entries), _PAGE):
            await self._channel.send(
                tenant_id, "runs.page", RunPage(flows=entries[start : start + _PAGE], at_once=page.at_once)
            )

    async def _publish_again(self, tenant_id: str, wanted: RunsWanted) -> None:
        flows = {
            (flow.instance_id, enum_word(FlowKind, flow.flow_kind))
            for flow in wanted.flows
            if is_id(flow.instance_id)
        }
        await comparison.publish_again(self._deps, tenant_id, flows)
