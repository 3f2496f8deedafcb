"""What a transaction appends is published: all of it, in order, by one relay at a time."""

import dataclasses
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from integration.servicekit.processes import replica, running
from integration.servicekit.sample import STREAMS, insert_note, sample_event
from integration.servicekit.streams import count, fetch_all, texts
from servicekit import context
from servicekit.broker import Broker, OrderedChannel
from servicekit.context import RequestContext
from servicekit.database import Database
from servicekit.events import event_of
from servicekit.ids import new_id
from servicekit.outbox import append, note, outbox_row
from servicekit.relay import Relay
from servicekit.schema import outbox
from servicekit.settings import ServiceSettings
from support.broker import NatsServer
from support.polling import eventually
from support.postgres import admin_url
from support.proxy import Proxy

STREAM = "SAMPLE_EVENTS"


async def append_texts(database: Database, *values: str, tenant_id: str = "acme") -> None:
    async with database.transaction(tenant_id) as connection:
        await append(connection, [sample_event(value, tenant_id) for value in values])


async def outbox_size(database: Database) -> int:
    async with database.infra() as connection:
        return int((await connection.execute(sa.select(sa.func.count()).select_from(outbox))).scalar_one())


async def test_events_are_published_in_order_with_all_their_headers(broker_settings: ServiceSettings) -> None:
    expected = [f"text {number}" for number in range(600)]  # more than two windows
    async with replica(broker_settings) as (database, broker):
        relay = Relay(database, broker)
        async with running(relay.run):
            for first in range(0, 600, 50):
                await append_texts(database, *expected[first : first + 50])
            await eventually(lambda: _is_empty(database))
    assert await texts(broker_settings.nats_url, STREAM) == expected
    message = (await fetch_all(broker_settings.nats_url, STREAM))[0]
    event = event_of(message.subject, message.headers or {}, message.data)
    assert event.subject == "optaic.acme.protobuf.created.thing"
    assert event.type == "google.protobuf.StringValue"
    assert event.source == "/optaic/sample-service"
    assert message.headers is not None
    assert message.headers["Nats-Msg-Id"] == message.headers["ce-id"] == event.event_id
    assert message.headers["ce-specversion"] == "1.0"
    assert message.headers["content-type"] == "application/protobuf"


async def _is_empty(database: Database) -> bool:
    return await outbox_size(database) == 0


async def test_a_transaction_that_fails_publishes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the failing transaction is the statement
        async with database.transaction("acme") as connection:
            await append(connection, [sample_event("lost")])
            raise ZeroDivisionError
    assert await outbox_size(database) == 0


async def test_a_commit_wakes_the_relay_and_gives_the_caller_its_tokens(database: Database) -> None:
    woken: list[str] = []
    database.on_appended(lambda: woken.append("appended"))
    request = RequestContext("acme", "someone", "1", context.new_traceparent())
    events = [sample_event("a"), sample_event("b")]
    with context.bind(request):
        async with database.transaction("acme") as connection:
            await append(connection, events[:1])
            await connection.execute(sa.insert(outbox), outbox_row(events[1]))
            note(events[1:])
            assert request.write_tokens == []  # nothing is promised before the commit
        async with database.transaction("acme") as connection:
            await insert_note(connection, "acme", "1")
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the failing transaction is the statement
            async with database.transaction("acme") as connection:
                await append(connection, [sample_event("lost")])
                raise ZeroDivisionError
    assert woken == ["appended"]
    assert request.write_tokens == [f"protobuf/{event.event_id}" for event in events]


async def test_a_death_between_publishing_and_deleting_loses_and_doubles_nothing(
    broker_settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replica(broker_settings) as (database, broker):
        await append_texts(database, "a", "b", "c")
        with monkeypatch.context() as patch:
            patch.setattr(OrderedChannel, "publish", _publish_then_die)
            async with running(Relay(database, broker).run):
                await eventually(lambda: _holds(broker_settings.nats_url, 3))
        assert await outbox_size(database) == 3
    async with replica(broker_settings) as (database, broker), running(Relay(database, broker).run):
        await append_texts(database, "d")
        await eventually(lambda: _is_empty(database))
    assert await texts(broker_settings.nats_url, STREAM) == ["a", "b", "c", "d"]


_publish = OrderedChannel.publish


async def _publish_then_die(channel: OrderedChannel, messages: Any) -> list[bool]:
    await _publish(channel, messages)
    raise ConnectionResetError("killed between the ack and the delete")


async def _holds(url: str, messages: int) -> bool:
    return await count(url, STREAM) == messages


async def test_without_message_ids_the_same_death_doubles_events(
    broker_settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replica(broker_settings) as (database, broker):
        monkeypatch.setattr("servicekit.relay.headers_of", lambda _event: {"ce-id": "none"})
        await append_texts(database, "a")
        with monkeypatch.context() as patch:
            patch.setattr(OrderedChannel, "publish", _publish_then_die)
            async with running(Relay(database, broker).run):
                await eventually(lambda: _holds(broker_settings.nats_url, 1))
        async with running(Relay(database, broker).run):
            await eventually(lambda: _is_empty(database))
    assert (await texts(broker_settings.nats_url, STREAM))[:2] == ["a", "a"]


async def test_events_committed_while_the_broker_was_away_are_published_later(
    broker_settings: ServiceSettings, nats: NatsServer
) -> None:
    async with replica(broker_settings) as (database, broker), running(Relay(database, broker).run):
        await append_texts(database, "before")
        await eventually(lambda: _is_empty(database))
        nats.kill()
        await append_texts(database, "during 1")
        await append_texts(database, "during 2")
        nats.start()
        await append_texts(database, "after")
        await eventually(lambda: _is_empty(database))
    assert await texts(nats.url, STREAM) == ["before", "during 1", "during 2", "after"]


async def test_a_service_starts_and_commits_without_a_broker(
    broker_settings: ServiceSettings, nats: NatsServer
) -> None:
    nats.kill()
    async with replica(broker_settings) as (database, broker), running(Relay(database, broker).run):
        await append_texts(database, "first")
        assert await outbox_size(database) == 1
        nats.start()
        await eventually(lambda: _is_empty(database))
    assert await texts(nats.url, STREAM) == ["first"]


async def test_a_connection_cut_in_the_middle_keeps_the_order(
    broker_settings: ServiceSettings, nats: NatsServer
) -> None:
    expected = [str(number) for number in range(400)]
    async with Proxy(nats.url) as proxy, replica(broker_settings) as (database, broker):
        broken = Broker(broker_settings.model_copy(update={"nats_url": proxy.url}), STREAMS)
        await broker.ready()
        async with running(Relay(database, broken, window=16).run):
            for first in range(0, 400, 40):
                await append_texts(database, *expected[first : first + 40])
                if first % 120 == 0:
                    proxy.cut()
                    proxy.heal()
            await eventually(lambda: _is_empty(database))
    assert await texts(nats.url, STREAM) == expected


async def test_a_broker_that_went_deaf_is_noticed_and_nothing_is_lost(
    broker_settings: ServiceSettings, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.broker._ACK_TIMEOUT", 0.2)
    async with Proxy(nats.url) as proxy, replica(broker_settings) as (database, broker):
        broken = Broker(broker_settings.model_copy(update={"nats_url": proxy.url}), STREAMS)
        await broker.ready()
        async with running(Relay(database, broken).run):
            await append_texts(database, "a")
            await eventually(lambda: _is_empty(database))
            proxy.deafen()
            await append_texts(database, "b")
            await eventually(lambda: _holds(nats.url, 2))
            assert await outbox_size(database) == 1  # published, and not known to be
            proxy.heal()
            await eventually(lambda: _is_empty(database))
    assert await texts(nats.url, STREAM) == ["a", "b"]


async def test_an_event_that_the_broker_refuses_does_not_delay_other_events(
    broker_settings: ServiceSettings,
) -> None:
    refused = [
        dataclasses.replace(sample_event("huge"), payload=b"x" * 2_000_000),
        dataclasses.replace(sample_event("nowhere"), subject="no.stream.takes.this"),
    ]
    async with replica(broker_settings) as (database, broker), running(Relay(database, broker).run):
        async with database.transaction("acme") as connection:
            await append(connection, [*refused, sample_event("a"), sample_event("b")])
        await append_texts(database, "c")
        await eventually(lambda: _holds(broker_settings.nats_url, 3))

        async def has_the_refused_ones() -> bool:
            return await outbox_size(database) == 2  # kept for whoever repairs it

        await eventually(has_the_refused_ones)
    assert await texts(broker_settings.nats_url, STREAM) == ["a", "b", "c"]


async def test_one_relay_works_and_another_takes_over_when_its_connection_dies(
    broker_settings: ServiceSettings, urls: dict[str, str]
) -> None:
    async with (
        Proxy(urls["database_infra_url"]) as proxy,
        replica(broker_settings.model_copy(update={"database_infra_url": proxy.url})) as first,
        replica(broker_settings) as second,
    ):
        leader, follower = Relay(*first), Relay(*second)
        async with running(leader.run):
            await eventually(lambda: leader.is_leader)
            async with running(follower.run):
                await append_texts(second[0], "a")  # the follower's own commit, published by the leader
                await eventually(lambda: _is_empty(second[0]))
                assert (leader.is_leader, follower.is_leader) == (True, False)
                proxy.cut()
                await append_texts(second[0], "b")
                await eventually(lambda: follower.is_leader)
                await eventually(lambda: _is_empty(second[0]))
    assert await texts(broker_settings.nats_url, STREAM) == ["a", "b"]


async def test_a_lower_id_that_commits_later_is_published_all_the_same(
    broker_settings: ServiceSettings,
) -> None:
    async with replica(broker_settings) as (database, broker), running(Relay(database, broker).run):
        async with database.transaction("acme") as slow:
            await append(slow, [sample_event("low id")])
            await append_texts(database, "high id")
            await eventually(lambda: _holds(broker_settings.nats_url, 1))
        await eventually(lambda: _is_empty(database))
    assert await texts(broker_settings.nats_url, STREAM) == ["high id", "low id"]


async def test_old_inbox_rows_and_replies_are_pruned_by_the_leader(
    broker_settings: ServiceSettings, urls: dict[str, str]
) -> None:
    name = urls["database_url"].rpartition("/")[2]
    async with await psycopg.AsyncConnection.connect(admin_url(name), autocommit=True) as connection:
        await connection.execute(
            "insert into consumed_events values ('acme', 'c', gen_random_uuid(), now() - interval '31 days')"
        )
        await connection.execute(
            "insert into request_replies (tenant_id, method, request_id, payload_hash, create_time) "
            "select 'acme', 'm', format('%s days', age), '', now() - make_interval(days => age) "
            "from unnest(array[6, 8]) as age"
        )
        await connection.execute("insert into consumed_events values ('acme', 'c', gen_random_uuid())")
        async with replica(broker_settings) as (database, broker), running(Relay(database, broker).run):

            async def is_pruned() -> bool:
                rows = await connection.execute("select count(*) from consumed_events")
                return await rows.fetchone() == (1,)

            await eventually(is_pruned)

            async def replies() -> list[Any]:
                found = await connection.execute("select request_id from request_replies")
                return [request_id for (request_id,) in await found.fetchall()]

            # What is kept for less than the promised week would be executed twice.
            async def is_one_left() -> bool:
                return len(await replies()) < 2

            await eventually(is_one_left)
            assert await replies() == ["6 days"]


async def test_ten_thousand_events_of_a_tenant_delay_no_event_of_another(
    broker_settings: ServiceSettings,
) -> None:
    async with replica(broker_settings) as (database, broker):
        row = outbox_row(sample_event("one of many"))
        async with database.infra() as connection:
            for first in range(0, 10_000, 1_000):
                rows = [{**row, "event_id": new_id()} for _ in range(first, first + 1_000)]
                await connection.execute(sa.insert(outbox), rows)
        await append_texts(database, "the only one", tenant_id="other")
        async with running(Relay(database, broker).run):

            async def has_come() -> bool:
                return await count(broker_settings.nats_url, STREAM) > 0

            await eventually(has_come)
            messages = await fetch_all(broker_settings.nats_url, STREAM)
    assert "optaic.other.protobuf.created.thing" in [message.subject for message in messages[:256]]
