"""The broker and the database go away and come back: nothing is lost, nothing is doubled."""

import asyncio

import grpc
import pytest

from devstack.postgres import Postgres
from optaic.client import AsyncClient
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2
from optaic.status.v1 import status_events_pb2
from optaic.status.v1 import status_service_pb2 as api
from servicekit.enums import enum_word
from servicekit.ids import new_id
from servicekit.relay import Relay
from support.polling import eventually
from support.postgres import service_database
from support.proxy import Proxy
from support.status_service import (
    RunningStatusService,
    flow_change,
    flow_statuses,
    instance,
    running,
    status_service,
)

pytestmark = pytest.mark.faults


async def _word(service: RunningStatusService, instance_id: str) -> str:
    try:
        status = await service.stub.GetInstanceStatus(
            api.GetInstanceStatusRequest(instance_id=instance_id), timeout=2
        )
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return enum_word(flow_pb2.Status, status.status).upper()


async def _until(service: RunningStatusService, instance_id: str, word: str) -> None:
    async def is_it() -> bool:
        return await _word(service, instance_id) == word

    await eventually(is_it, 40)


@pytest.mark.parametrize("fault", ["cut", "stall", "deafen"])
async def test_the_database_goes_away_and_comes_back(
    postgres_server: Postgres, nats_url: str, fault: str
) -> None:
    del postgres_server
    instance_id = new_id()
    created = instance_events_pb2.InstanceCreated(instance=instance(instance_id))
    async with service_database("status", "status_service") as urls, Proxy(urls["database_url"]) as proxy:
        proxied = {**urls, "database_url": proxy.url}
        async with running(nats_url, proxied, pool_timeout_seconds=1, statement_timeout_seconds=2) as service:
            await service.applied(*await service.publish(created))
            client = AsyncClient.connect(status_address=service.app.server.address)
            watch = client.status.watch(from_revision=1)
            getattr(proxy, fault)()
            events = await service.publish(
                *[
                    flow_statuses(n, flow_change(instance_id, word, run_number=n))
                    for n, word in enumerate(("RUNNING", "ERROR", "RUNNING", "READY"), start=1)
                ]
            )
            await asyncio.wait({asyncio.ensure_future(_word(service, instance_id))}, timeout=3)
            if fault == "cut":
                proxy.heal()
            else:
                proxy.cut()  # what hangs is given up, as by the peer's timeout
                proxy.heal()
            await _until(service, instance_id, "READY")
            await service.resend(*events)
            # What the outage interrupted comes again later than what followed it, and is then old: fewer changes,
            # but in order, without a gap, and with the same end.
            revisions: list[int] = []
            words: list[str] = []
            async with asyncio.timeout(20):
                while words[-1:] != ["READY"]:
                    change = await anext(watch)
                    revisions.append(change.revision)
                    words.append(enum_word(flow_pb2.Status, change.instance_status.status).upper())
            assert revisions == list(range(2, 2 + len(words)))
            told = iter(["RUNNING", "ERROR", "RUNNING", "READY"])
            assert all(word in told for word in words), words
            await watch.aclose()
            await client.close()


async def test_events_committed_while_the_relay_stood_still_are_published_later(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    instance_id = new_id()
    async with status_service(nats_url) as service:
        created = instance_events_pb2.InstanceCreated(instance=instance(instance_id))
        await service.applied(*await service.publish(created))
        # The relay stands still: what is committed from here on stays in the outbox.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Relay, "_publish_window", _nothing_published)
            ready = await service.publish(flow_statuses(1, flow_change(instance_id, "READY", version=1)))
            await service.applied(*ready)
        pull = await service.nats.jetstream().pull_subscribe(
            "optaic.*.status.v1.>", durable="test", stream="STATUS_EVENTS"
        )
        messages = [(await pull.fetch(1, timeout=10))[0] for _ in range(2)]
        seen = [status_events_pb2.InstanceStatusesChanged.FromString(each.data) for each in messages]
        assert [each.revision for each in seen] == [1, 2]
        assert seen[1].caused_by_event_ids == [ready[0].event_id]


async def _nothing_published(*_: object) -> bool:
    return False
