"""List the newest runs for services that compare them, and publish again the events that they lack."""

from __future__ import annotations

from collections.abc import Collection

from run_service.events import last_event
from run_service.store import comparison as store
from run_service.store import runs as run_store
from run_service.store.comparison import RunNumbers
from run_service.use_cases.dependencies import Dependencies
from servicekit import outbox


async def list_run_numbers(deps: Dependencies, tenant_id: str, after: str, until: str) -> list[RunNumbers]:
    """Return the newest run numbers of every flow, for the instances between two ids."""
    async with deps.database.read(tenant_id) as connection:
        return await store.list_numbers_in_range(connection, tenant_id, after, until)


async def publish_again(deps: Dependencies, tenant_id: str, flows: Collection[tuple[str, str]]) -> None:
    """Publish the last events of the newest runs of flows again.

    They get new ids, because the broker drops repeated ids. A flow with an event in the outbox is left out: a service
    that lacks more than that event asks again.
    """
    async with deps.database.transaction(tenant_id) as connection:
        waiting = await outbox.list_waiting(connection, {instance_id for instance_id, _ in flows})
        flows = [flow for flow in flows if flow[0] not in waiting]
        found = await store.list_numbers_of_flows(connection, tenant_id, flows)
        run_ids = {run_id for flow in found for run_id in flow.run_ids}
        records = await run_store.list_runs_by_id(connection, tenant_id, run_ids) if run_ids else []
        records.sort(key=lambda record: (record.run.instance_id, record.run.run_number))
        await outbox.append(
            connection,
            [last_event(record.status, tenant_id, record.run, deps.ids(), deps.clock) for record in records],
        )
