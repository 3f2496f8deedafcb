"""The event consumers: each passes a batch of one tenant's events to one use case, in the consumer's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from lineage_service import conversion
from lineage_service.domain.flows import FlowKey
from lineage_service.store.comparison import RunNumbers
from lineage_service.use_cases import comparison
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import INSTANCE_CONSUMER, RUN_CONSUMER, apply_run_facts, apply_snapshots
from optaic.instance.v1.instance_comparison_pb2 import InstancePage, InstancesWanted
from optaic.lineage.v1.lineage_comparison_pb2 import FlowEntry, FlowPage, FlowsWanted
from optaic.rules.events import INSTANCE_EVENTS, RUN_EVENTS, RUN_SUBJECTS
from optaic.run.v1.run_comparison_pb2 import RunPage, RunsWanted
from servicekit.broker import Broker
from servicekit.comparison import Comparison
from servicekit.consumer import Consumer, Received
from servicekit.database import Connection

INSTANCE_SUBJECTS = ("optaic.*.instance.v1.>",)
_PAGE = 2_000  # flows per message


def build_consumers(deps: Dependencies, broker: Broker) -> list[Consumer]:
    """Return the consumers of instance events and of run events."""

    async def apply_instance_events(
        connection: Connection, tenant_id: str, batch: Sequence[Received]
    ) -> None:
        found = [conversion.snapshot_of_event(item.message, item.event.event_id) for item in batch]
        snapshots = [snapshot for snapshot in found if snapshot is not None]
        if snapshots:
            await apply_snapshots(deps, connection, tenant_id, snapshots)

    async def apply_run_events(connection: Connection, tenant_id: str, batch: Sequence[Received]) -> None:
        found = [conversion.run_fact_of_event(item.message, item.event.event_id) for item in batch]
        facts = [fact for fact in found if fact is not None]
        if facts:
            await apply_run_facts(deps, connection, tenant_id, facts)

    return [
        Consumer(
            deps.database,
            broker,
            name=INSTANCE_CONSUMER,
            stream=INSTANCE_EVENTS,
            filter_subjects=INSTANCE_SUBJECTS,
            apply=apply_instance_events,
        ),
        Consumer(
            deps.database,
            broker,
            name=RUN_CONSUMER,
            stream=RUN_EVENTS,
            filter_subjects=RUN_SUBJECTS,
            apply=apply_run_events,
        ),
    ]


class Compared:
    """The comparison of the flows stored here with those of other services; it asks them for what is missing."""

    def __init__(self, deps: Dependencies, channel: Comparison) -> None:
        self._deps = deps
        self._channel = channel

    def listen(self) -> None:
        """Register a handler for each kind of comparison message that this service answers."""
        self._channel.on("instances.page", InstancePage, self._compare_instances)
        self._channel.on("runs.page", RunPage, self._compare_runs)
        self._channel.on("flows.wanted", FlowsWanted, self._publish_again)

    async def _compare_instances(self, tenant_id: str, page: InstancePage) -> None:
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
