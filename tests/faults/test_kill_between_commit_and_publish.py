"""kill -9 of each service after it has committed and before it has published: nothing is lost, nothing doubled."""

import asyncio
import os
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import nats
import psycopg
import pytest
from nats.aio.msg import Msg

from optaic.client import AsyncClient
from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from support.polling import eventually
from support.stack import RunningStack, running_stack

RELAY = "hashtextextended('servicekit.relay', 0)"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


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


async def wait_for_outbox(connection: psycopg.Connection[tuple[object, ...]], event_type: str) -> None:
    await eventually(
        lambda: connection.execute("select 1 from outbox where type = %s limit 1", [event_type]).fetchone(),
        20,
        f"no {event_type} in the outbox",
    )


UNPUBLISHED = {
    "instance": "optaic.instance.v1.InstanceUpdated",
    "run": "optaic.run.v1.RunSubmitted",
    "lineage": "optaic.lineage.v1.FlowStatusesChanged",
    "status": "optaic.status.v1.InstanceStatusesChanged",
}


@pytest.mark.faults
@pytest.mark.parametrize("service", list(UNPUBLISHED))
async def test_what_was_committed_is_published_after_the_kill(stack: RunningStack, service: str) -> None:
    endpoints = stack.endpoints
    seen: Counter[tuple[str, str]] = Counter()
    broker = await nats.connect(endpoints.nats_subscriber)

    async def count(message: Msg) -> None:
        assert message.headers is not None
        seen[message.headers["ce-type"], message.headers["ce-id"]] += 1

    await broker.subscribe("optaic.>", cb=count)
    async with AsyncClient.connect(
        instance_address=endpoints.instance,
        run_address=endpoints.run,
        lineage_address=endpoints.lineage,
        status_address=endpoints.status,
        token="development",
    ) as client:
        project = await client.projects.create(f"kill-{service}-{uuid.uuid4().hex[:6]}")
        prices = await client.instances.create(
            project=project.project_id,
            name="prices",
            dataset={"pipeline": {"definition_name": "sp500_prices", "config": {"symbols": ["AAPL"]}}},
        )
        first = await (await client.runs.submit(prices)).wait(timeout=60)
        assert first.status == run_pb2.RUN_STATUS_COMPLETED
        with silenced_relay(stack, service) as connection:
            await client.instances.update(
                prices, {"dataset": {"pipeline": {"config": {"symbols": ["AAPL", "MSFT"]}}}}
            )
            handle = await client.runs.submit(prices)
            await wait_for_outbox(connection, UNPUBLISHED[service])
            kept = {
                str(event_id) for (event_id,) in connection.execute("select event_id from outbox").fetchall()
            }
            assert not kept & {event_id for _, event_id in seen}
            processes = await asyncio.to_thread(stack.processes)
            os.kill(processes[f"{service}-service"], signal.SIGKILL)
        await eventually(lambda: kept <= {event_id for _, event_id in seen}, 60, "events were lost")
        run = await handle.wait(timeout=60)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED

        async def is_ready() -> bool:
            status = await client.status.get(prices.instance_id)
            return status.status == flow_pb2.STATUS_READY and status.flows[0].version == 2

        await eventually(is_ready, 30, "the status did not follow")
    await broker.close()
