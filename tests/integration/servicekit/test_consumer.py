"""Events are applied once each, whatever is repeated, reordered or broken."""

import dataclasses
import random
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from google.protobuf.wrappers_pb2 import StringValue
from nats.js.errors import NotFoundError
from sqlalchemy.ext.asyncio import AsyncConnection

from integration.servicekit.processes import replica, running
from integration.servicekit.sample import insert_note, list_notes, sample_event
from integration.servicekit.streams import count, fetch_all, jetstream, send
from servicekit import consumer as consumer_module
from servicekit.broker import Broker
from servicekit.consumer import Consumer, Received, insert_consumed
from servicekit.database import Database
from servicekit.database_errors import domain_error_of
from servicekit.events import Event
from servicekit.ids import new_id
from servicekit.schema import consumed_events
from servicekit.settings import ServiceSettings
from support.broker import NatsServer
from support.polling import eventually
from support.proxy import Proxy

FILTER = ["optaic.*.protobuf.>"]


class Applied:
    """An apply function that writes a note for each event, and refuses those marked as poison."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[str]]] = []
        self.is_healed = False

    async def apply(self, connection: AsyncConnection, tenant_id: str, batch: Sequence[Received]) -> None:
        """Implement `servicekit.consumer.Apply`."""
        texts = []
        for received in batch:
            assert isinstance(received.message, StringValue)
            assert received.event.tenant_id == tenant_id
            text = received.message.value
            texts.append(text)
            await insert_note(connection, tenant_id, f"{text} {new_id()}", text)
            if text.startswith("poison") and not self.is_healed:
                raise ValueError(f"cannot digest {text}")
        self.batches.append((tenant_id, texts))


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> Applied:
    monkeypatch.setattr(consumer_module, "_RETRY_DELAY", 0.02)
    return Applied()


async def notes(database: Database, tenant_id: str = "acme") -> list[str]:
    async with database.read(tenant_id) as connection:
        return [name.partition(" ")[0] for name in await list_notes(connection)]


async def consumed(database: Database) -> int:
    async with database.infra() as connection:
        query = sa.select(sa.func.count()).select_from(consumed_events)
        return int((await connection.execute(query)).scalar_one())


def sample_consumer(process: tuple[Database, Broker], applied: Applied, **options: Any) -> Consumer:
    database, broker = process
    return Consumer(
        database,
        broker,
        name="sample-notes",
        stream="SAMPLE_EVENTS",
        filter_subjects=FILTER,
        **{"apply": applied.apply, **options},
    )


async def settled(url: str) -> None:
    """Wait until the consumer has nothing left to do."""

    async def is_settled() -> bool:
        async with jetstream(url) as api:
            try:
                info = await api.consumer_info("SAMPLE_EVENTS", "sample-notes")
            except NotFoundError:  # it has not made itself known yet
                return False
            return (info.num_pending, info.num_ack_pending) == (0, 0)

    await eventually(is_settled)


async def publish(url: str, *events: Event) -> None:
    """Publish each event under a broker id of its own, so that repetitions reach the inbox."""
    async with jetstream(url) as api:
        for event in events:
            await send(api, event, message_id=new_id())


async def test_events_are_applied_in_stream_order_per_tenant(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    expected = [f"n{number}" for number in range(300)]
    commits: list[int] = []
    async with replica(broker_settings) as (database, broker):
        await broker.ready()
        events = [sample_event(text, tenant) for text in expected for tenant in ("acme", "rival")]
        await publish(broker_settings.nats_url, *events)
        consumer = sample_consumer((database, broker), applied, committed=lambda: commits.append(1))
        async with running(consumer.run):
            await eventually(lambda: sum(len(texts) for _, texts in applied.batches) == 600)
            await settled(broker_settings.nats_url)
        for tenant in ("acme", "rival"):
            assert [text for name, texts in applied.batches if name == tenant for text in texts] == expected
    assert len(commits) == len(applied.batches)


async def test_repeated_and_reordered_events_are_applied_once_each(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    events = [sample_event(f"n{number:02}") for number in range(40)]
    shuffled = [*events, *events, *events]
    random.Random(7).shuffle(shuffled)
    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied, batch=7).run):
            await publish(broker_settings.nats_url, *shuffled)
            await settled(broker_settings.nats_url)
        assert await notes(process[0]) == [f"n{number:02}" for number in range(40)]


async def test_without_the_inbox_a_repeated_event_is_applied_twice(
    broker_settings: ServiceSettings, applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def everything_is_new(
        _connection: AsyncConnection, _tenant_id: str, _consumer: str, event_ids: Iterable[str]
    ) -> set[str]:
        return set(event_ids)

    monkeypatch.setattr(consumer_module, "insert_consumed", everything_is_new)
    event = sample_event("twice")
    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied).run):
            await publish(broker_settings.nats_url, event)
            await eventually(lambda: applied.batches)
            await publish(broker_settings.nats_url, event)
            await settled(broker_settings.nats_url)
        assert await notes(process[0]) == ["twice", "twice"]


async def test_an_event_that_cannot_be_applied_is_dead_lettered_while_others_are_applied(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    url = broker_settings.nats_url
    async with replica(broker_settings) as process:
        await process[1].ready()
        events = [sample_event(text) for text in ("a", "poison", "b", "c")]
        await publish(url, *events)
        consumer = sample_consumer(process, applied)
        async with running(consumer.run):
            await eventually(lambda: _has(url, "DEAD_LETTERS", 1))
            await settled(url)
        assert await notes(process[0]) == ["a", "b", "c"]
        assert await consumed(process[0]) == 3
        (letter,) = await fetch_all(url, "DEAD_LETTERS")
        assert letter.headers is not None
        assert letter.subject == f"optaic-dead.sample-notes.{events[1].subject}"
        assert letter.headers["optaic-error"] == "ValueError: cannot digest poison"
        assert letter.headers["optaic-attempts"] == "5"
        assert letter.headers["ce-id"] == events[1].event_id
        assert letter.data == events[1].payload


async def _has(url: str, stream: str, messages: int) -> bool:
    return await count(url, stream) == messages


async def test_an_event_of_another_tenant_than_its_subject_is_refused(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    url = broker_settings.nats_url
    forged = dataclasses.replace(
        sample_event("forged", "rival"), subject="optaic.acme.protobuf.created.thing"
    )
    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied).run):
            await publish(url, forged, sample_event("honest"))
            await settled(url)
        assert await notes(process[0], "acme") == ["honest"]
        assert await notes(process[0], "rival") == []
    (letter,) = await fetch_all(url, "DEAD_LETTERS")
    assert letter.headers is not None
    assert "tenant" in letter.headers["optaic-error"]


@pytest.mark.parametrize("damage", ["payload", "headers", "id"])
async def test_a_malformed_message_is_dead_lettered(
    broker_settings: ServiceSettings, applied: Applied, damage: str
) -> None:
    url = broker_settings.nats_url
    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied).run):
            event = sample_event("x")
            if damage == "payload":
                await publish(url, dataclasses.replace(event, payload=b"\xff\xff"))
            elif damage == "id":
                await publish(url, dataclasses.replace(event, event_id="1"))
            else:
                async with jetstream(url) as api:
                    await api.publish(event.subject, event.payload)
            await publish(url, sample_event("good"))
            await settled(url)
        assert await notes(process[0]) == ["good"]
    assert await count(url, "DEAD_LETTERS") == 1


async def test_an_event_of_an_unknown_type_is_passed_over(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    url = broker_settings.nats_url
    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied).run):
            await publish(url, dataclasses.replace(sample_event("x"), type="optaic.future.v9.Thing"))
            await publish(url, sample_event("known"))
            await settled(url)
        assert await notes(process[0]) == ["known"]
    assert await count(url, "DEAD_LETTERS") == 0


async def test_no_event_is_dead_lettered_while_the_database_is_away(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    url = broker_settings.nats_url
    async with Proxy(broker_settings.database_url) as proxy:
        settings = broker_settings.model_copy(update={"database_url": proxy.url})
        async with replica(settings) as process:
            await process[1].ready()
            consumer = sample_consumer(process, applied)
            async with running(consumer.run):
                await publish(url, sample_event("before"))
                await eventually(lambda: applied.batches)
                proxy.cut()
                await publish(url, sample_event("during"))

                async def is_tried_often() -> bool:
                    async with jetstream(url) as api:
                        delivered = (await api.consumer_info("SAMPLE_EVENTS", "sample-notes")).delivered
                        return delivered is not None and delivered.consumer_seq > 7

                await eventually(is_tried_often)
                proxy.heal()
                await settled(url)
            assert await notes(process[0]) == ["before", "during"]
    assert await count(url, "DEAD_LETTERS") == 0


async def test_no_event_is_dead_lettered_while_the_database_has_no_room(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    tries = 0
    has_room = False

    async def apply(connection: AsyncConnection, tenant_id: str, batch: Sequence[Received]) -> None:
        nonlocal tries
        tries += 1
        if not has_room:
            raise domain_error_of(psycopg.errors.DiskFull("no space left on device")) or AssertionError
        await applied.apply(connection, tenant_id, batch)

    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied, apply=apply).run):
            await publish(broker_settings.nats_url, sample_event("one"))
            await eventually(lambda: tries > 7)  # more often than an event may fail
            has_room = True
            await settled(broker_settings.nats_url)
        assert await notes(process[0]) == ["one"]
    assert await count(broker_settings.nats_url, "DEAD_LETTERS") == 0


async def test_a_consumer_started_before_the_stream_exists_waits_for_it(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    url = broker_settings.nats_url
    async with replica(broker_settings) as (database, broker):
        broker._streams = {}
        async with running(sample_consumer((database, broker), applied).run):
            await broker.ready()
            async with replica(broker_settings) as (_, owner):
                await owner.ready()
            await publish(url, sample_event("at last"))
            await eventually(lambda: applied.batches)


async def test_a_broker_that_restarts_holds_nothing_up(
    broker_settings: ServiceSettings, applied: Applied, nats: NatsServer
) -> None:
    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied).run):
            await publish(nats.url, sample_event("before"))
            await settled(nats.url)
            nats.kill()
            nats.start()
            await publish(nats.url, sample_event("after"))
            # Not settled: acks that the kill swallowed come back after ack_wait, and change nothing.
            await eventually(lambda: len(applied.batches) == 2)
        assert await notes(process[0]) == ["after", "before"]


async def test_a_lone_event_is_applied_at_once_not_when_a_batch_is_full(
    broker_settings: ServiceSettings, applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.pull._EXPIRES", 3600.0)
    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied).run):
            for number in range(1, 4):
                await publish(broker_settings.nats_url, sample_event("lone"))
                await eventually(lambda number=number: len(applied.batches) == number)  # type: ignore[misc]  # bound in the loop


async def test_a_consumer_that_is_deleted_is_made_again(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    url = broker_settings.nats_url
    event = sample_event("once")
    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied).run):
            await publish(url, event)
            await settled(url)
            async with jetstream(url) as api:
                await api.delete_consumer("SAMPLE_EVENTS", "sample-notes")
            await publish(url, sample_event("then"))
            await eventually(lambda: len(applied.batches) == 2)
        assert await notes(process[0]) == ["once", "then"]


async def test_requests_that_expire_are_made_again(
    broker_settings: ServiceSettings, applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.pull._EXPIRES", 0.05)
    monkeypatch.setattr("servicekit.pull._HEARTBEAT", 0.02)  # the broker wants several within one request
    async with replica(broker_settings) as process:
        await process[1].ready()
        async with running(sample_consumer(process, applied, batch=3).run):
            for first in range(0, 40, 4):
                await publish(broker_settings.nats_url, *(sample_event(f"n{first + n:02}") for n in range(4)))
            await settled(broker_settings.nats_url)
        assert await notes(process[0]) == [f"n{number:02}" for number in range(40)]


async def test_two_replicas_share_the_work_and_apply_each_event_once(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    url = broker_settings.nats_url
    events = [sample_event(f"n{number:03}") for number in range(200)]
    async with replica(broker_settings) as first, replica(broker_settings) as second:
        await first[1].ready()
        await second[1].ready()
        consumers = [sample_consumer(process, applied, batch=5) for process in (first, second)]
        async with running(*(consumer.run for consumer in consumers)):
            await publish(url, *events, *events)
            await settled(url)
        assert await notes(first[0]) == [f"n{number:03}" for number in range(200)]


async def test_recording_consumed_events_returns_the_new_ones(database: Database) -> None:
    first, second = new_id(), new_id()
    told: list[str] = []
    database.on_consumed(lambda: told.append("consumed"))
    async with database.transaction("acme") as connection:
        assert await insert_consumed(connection, "acme", "echo", [first]) == {first}
        assert await insert_consumed(connection, "acme", "echo", [first, second]) == {second}
        assert await insert_consumed(connection, "acme", "other", [first]) == {first}
        assert await insert_consumed(connection, "acme", "echo", []) == set()
    async with database.transaction("acme") as connection:
        assert await insert_consumed(connection, "acme", "echo", [second]) == set()
    assert told == ["consumed"]
