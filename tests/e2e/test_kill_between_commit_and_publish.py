"""kill -9 of each service after it has committed and before it has published: nothing is lost, nothing doubled."""

import asyncio
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager

import nats
import psycopg
import pytest
from nats.aio.msg import Msg

from optaic.client import AsyncClient
from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from support.broker import listen
from support.polling import PATIENCE, eventually
from support.stack import RunningStack

RELAY = "hashtextextended('servicekit.relay', 0)"


@contextmanager
def silenced_relay(stack: RunningStack, service: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Take the relay's election away from the service: it goes on committing and publishes nothing."""
    url = stack.endpoints.postgres_admin.rsplit("/", 1)[0] + f"/optaic_{service}"
    with psycopg.connect(url, autocommit=True) as connection, psycopg.connect(url, autocommit=True) as other:
        other.execute(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted "  # noqa: S608 - a constant of ours
            "and database = (select oid from pg_database where datname = current_database()) "
            f"and (classid::bigint << 32 | objid::bigint) = {RELAY}"
        )
        connection.execute(f"select pg_advisory_lock({RELAY})")
        yield connection


def list_outbox(connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, str]:
    """Event types by event id."""
    rows = connection.execute("select event_id, type from outbox").fetchall()
    return {str(event_id): str(event_type) for event_id, event_type in rows}


async def wait_for_outbox(
    connection: psycopg.Connection[tuple[object, ...]], event_type: str, before: Collection[str]
) -> set[str]:
    """Return the ids of the events added since `before`, one of the given type among them."""

    def list_added() -> dict[str, str]:
        added = {key: found for key, found in list_outbox(connection).items() if key not in before}
        return added if event_type in added.values() else {}

    return set(await eventually(list_added, 20, f"no {event_type} in the outbox"))


@asynccontextmanager
async def counting(url: str) -> AsyncIterator[Counter[tuple[str, str]]]:
    """Count the events on the broker by type and id."""
    seen: Counter[tuple[str, str]] = Counter()

    async def count(message: Msg) -> None:
        assert message.headers is not None
        seen[message.headers["ce-type"], message.headers["ce-id"]] += 1

    broker = await nats.connect(url)
    try:
        await listen(broker, "optaic.>", cb=count)
        yield seen
    finally:
        await broker.close()


UNPUBLISHED = {
    "instance": "optaic.instance.v1.InstanceUpdated",
    "run": "optaic.run.v1.RunSubmitted",
    "lineage": "optaic.lineage.v1.FlowStatusesChanged",
    "status": "optaic.status.v1.InstanceStatusesChanged",
}


@pytest.mark.faults
@pytest.mark.parametrize("service", list(UNPUBLISHED))
async def test_committed_events_are_published_after_a_kill(stack: RunningStack, service: str) -> None:
    endpoints = stack.endpoints
    async with (
        AsyncClient.connect(
            instance_address=endpoints.instance,
            run_address=endpoints.run,
            lineage_address=endpoints.lineage,
            status_address=endpoints.status,
            token="development",
        ) as client,
        counting(endpoints.nats_subscriber) as seen,
    ):
        project = await client.projects.create(f"kill-{service}-{uuid.uuid4().hex[:6]}")
        prices = await client.instances.create(
            project=project.project_id,
            name="prices",
            dataset={"pipeline": {"definition_name": "sp500_prices", "config": {"symbols": ["AAPL"]}}},
        )
        first = await (await client.runs.submit(prices)).wait(timeout=PATIENCE)
        assert first.status == run_pb2.RUN_STATUS_COMPLETED
        with silenced_relay(stack, service) as connection:
            # The relay may have published these and lost its connection before it could delete them.
            before = list_outbox(connection)
            await client.instances.update(
                prices, {"dataset": {"pipeline": {"config": {"symbols": ["AAPL", "MSFT"]}}}}
            )
            handle = await client.runs.submit(prices)
            kept = await wait_for_outbox(connection, UNPUBLISHED[service], before)
            assert not kept & {event_id for _, event_id in seen}
            processes = await asyncio.to_thread(stack.processes)
            os.kill(processes[f"{service}-service"], signal.SIGKILL)
        await eventually(lambda: kept <= {event_id for _, event_id in seen}, 60, "events were lost")
        run = await handle.wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED

        async def is_ready() -> bool:
            status = await client.status.get(prices.instance_id)
            return status.status == flow_pb2.STATUS_READY and status.flows[0].version == 2

        await eventually(is_ready, 30, "the status did not follow")
