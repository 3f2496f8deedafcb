"""Sixty requests to NATS as each login: what a login may do is listed here, and everything else fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client

from devstack import nats_accounts
from devstack.nats_accounts import LOGINS, SERVICES_ACCOUNT, account_of, make_accounts
from devstack.state import State
from servicekit import broker as broker_module
from servicekit import context, dead_letters, tenant_streams
from servicekit.broker import inbox_of
from support.broker import listen
from support.nats_logins import TENANTS, Broker, create_streams, nats_with_accounts

SERVICES = set(LOGINS)
SUBSCRIBERS = {"subscriber", "subscriber-acme"}
IDENTITIES = sorted({*SERVICES, *SUBSCRIBERS, "operator"})

Payload = Mapping[str, Any] | None
STOLEN = {"stream_name": "RUN_EVENTS", "config": {"durable_name": "lineage-run-events", "ack_policy": "none"}}
MINE = {"stream_name": "RUN_EVENTS", "config": {"durable_name": "mine", "ack_policy": "explicit"}}
SPY = {
    "stream_name": "RUN_EVENTS",
    "config": {"name": "spy", "filter_subject": "optaic.acme.>", "deliver_subject": "spy"},
}
OWN = {
    "stream_name": "EVENTS",
    "config": {"name": "own", "filter_subject": "optaic.>", "ack_policy": "explicit"},
}

# subject, payload, and the logins for which the broker carries it out. A request that reaches no one is refused as well.
REQUESTS: list[tuple[str, Payload, set[str]]] = [
    # Events and their kin: the owner publishes, nobody else.
    ("optaic.acme.instance.v1.created.1", None, {"instance"}),
    ("optaic.acme.definition.v1.published.1", None, {"instance"}),
    ("optaic.acme.run.v1.completed.1", None, {"run"}),
    ("optaic.default.run.v1.completed.1", None, {"run"}),
    ("optaic.acme.lineage.v1.flow_statuses_changed.batch", None, {"lineage"}),
    ("optaic.acme.status.v1.instance_statuses_changed.batch", None, {"status"}),
    ("optaic-dead.run-instance.x", None, {"run"}),
    ("optaic-dead.lineage-run-events.x", None, {"lineage"}),
    ("optaic-dead.x", None, set()),
    # Streams.
    ("$JS.API.STREAM.CREATE.MINE", {"name": "MINE", "subjects": ["mine"]}, set()),
    ("$JS.API.STREAM.CREATE.RUN_EVENTS", {"name": "RUN_EVENTS", "subjects": ["optaic.*.run.v1.>"]}, {"run"}),
    ("$JS.API.STREAM.UPDATE.RUN_EVENTS", {"name": "RUN_EVENTS", "subjects": ["optaic.*.run.v1.>"]}, {"run"}),
    ("$JS.API.STREAM.UPDATE.INSTANCE_EVENTS", {"name": "INSTANCE_EVENTS", "max_msgs": 1}, {"instance"}),
    ("$JS.API.STREAM.UPDATE.EVENTS", {"name": "EVENTS", "max_msgs": 1}, set()),
    ("$JS.API.STREAM.DELETE.RUN_EVENTS", None, set()),
    ("$JS.API.STREAM.DELETE.EVENTS", None, set()),
    ("$JS.API.STREAM.PURGE.RUN_EVENTS", None, set()),
    ("$JS.API.STREAM.PURGE.EVENTS", None, set()),
    ("$JS.API.STREAM.PURGE.DEAD_LETTERS", None, set()),
    ("$JS.API.STREAM.SNAPSHOT.RUN_EVENTS", {"deliver_subject": "snapshot"}, set()),
    ("$JS.API.STREAM.RESTORE.RUN_EVENTS", {}, set()),
    ("$JS.API.STREAM.INFO.RUN_EVENTS", None, {"run", "instance"}),
    ("$JS.API.STREAM.INFO.STATUS_EVENTS", None, {"status", "instance"}),
    ("$JS.API.STREAM.INFO.EVENTS", None, SUBSCRIBERS),
    ("$JS.API.STREAM.PEER.REMOVE.RUN_EVENTS", {"peer": "x"}, set()),
    ("$JS.API.STREAM.LEADER.STEPDOWN.RUN_EVENTS", None, set()),
    # Single messages.
    ("$JS.API.STREAM.MSG.GET.RUN_EVENTS", {"seq": 1}, set()),
    ("$JS.API.STREAM.MSG.GET.EVENTS", {"seq": 1}, SUBSCRIBERS),
    ("$JS.API.STREAM.MSG.GET.DEAD_LETTERS", {"seq": 1}, {*SERVICES, "operator"}),
    ("$JS.API.STREAM.MSG.DELETE.RUN_EVENTS", {"seq": 1}, set()),
    ("$JS.API.STREAM.MSG.DELETE.EVENTS", {"seq": 1}, set()),
    ("$JS.API.STREAM.MSG.DELETE.DEAD_LETTERS", {"seq": 1}, {"operator"}),
    (
        "$JS.API.STREAM.UPDATE.DEAD_LETTERS",
        {"name": "DEAD_LETTERS", "subjects": ["optaic-dead.>"], "max_msgs": 1},
        {"instance"},
    ),
    ("$JS.API.DIRECT.GET.RUN_EVENTS", {"seq": 1}, set()),
    ("$JS.API.DIRECT.GET.RUN_EVENTS.optaic.acme.run.v1.completed.1", None, set()),
    # Consumers of services.
    ("$JS.API.CONSUMER.INFO.RUN_EVENTS.lineage-run-events", None, {"lineage"}),
    ("$JS.API.CONSUMER.CREATE.RUN_EVENTS", MINE, set()),
    ("$JS.API.CONSUMER.CREATE.RUN_EVENTS.lineage-run-events", STOLEN, set()),
    ("$JS.API.CONSUMER.CREATE.RUN_EVENTS.lineage-run-events.optaic.acme.x", STOLEN, set()),
    ("$JS.API.CONSUMER.CREATE.RUN_EVENTS.spy.optaic.acme.>", SPY, set()),
    ("$JS.API.CONSUMER.DURABLE.CREATE.RUN_EVENTS.mine", MINE, set()),
    ("$JS.API.CONSUMER.DURABLE.CREATE.RUN_EVENTS.instance-run-events", STOLEN, set()),
    ("$JS.API.CONSUMER.DELETE.RUN_EVENTS.lineage-run-events", None, {"lineage"}),
    ("$JS.API.CONSUMER.DELETE.INSTANCE_EVENTS.run-instance", None, {"run"}),
    ("$JS.API.CONSUMER.PAUSE.RUN_EVENTS.lineage-run-events", {"pause_until": "2099-01-01T00:00:00Z"}, set()),
    ("$JS.API.CONSUMER.RESET.RUN_EVENTS.lineage-run-events", {"seq": 1}, set()),
    ("$JS.API.CONSUMER.UNPIN.RUN_EVENTS.lineage-run-events", {"group": "x"}, set()),
    ("$JS.API.CONSUMER.LIST.RUN_EVENTS", None, set()),
    ("$JS.API.CONSUMER.NAMES.RUN_EVENTS", None, set()),
    ("$JS.API.CONSUMER.LEADER.STEPDOWN.RUN_EVENTS.lineage-run-events", None, set()),
    # Consumers of subscribers.
    ("$JS.API.CONSUMER.CREATE.EVENTS.own.optaic.>", OWN, SUBSCRIBERS),
    ("$JS.API.CONSUMER.CREATE.EVENTS.own", OWN, SUBSCRIBERS),
    # What connects the accounts.
    ("optaic-source.CONSUMER.CREATE.RUN_EVENTS.lineage-run-events.optaic.acme.x", STOLEN, set()),
    ("optaic-source.CONSUMER.CREATE.RUN_EVENTS.spy.optaic.acme.>", SPY, set()),
    ("optaic-deliver.acme.x", None, set()),
    ("optaic-tenants.acme.STREAM.UPDATE.EVENTS", {"name": "EVENTS", "max_msgs": 7}, {"instance"}),
    ("optaic-tenants.default.STREAM.DELETE.EVENTS", None, set()),
    # Everything else of the broker.
    ("$JS.API.ACCOUNT.PURGE.OPTAIC", None, set()),
    ("$JS.API.META.LEADER.STEPDOWN", None, set()),
    ("$JS.API.INFO", None, SUBSCRIBERS),
    ("$JS.API.STREAM.NAMES", None, SUBSCRIBERS),
    ("$SYS.REQ.SERVER.PING", None, set()),
    ("$SYS.REQ.ACCOUNT.OPTAIC.CONNZ", None, set()),
    ("$SYS.REQ.USER.INFO", None, set()),
    ("$KV.bucket.key", None, set()),
    ("$O.bucket.C.x", None, set()),
    ("$SRV.PING", None, set()),
]
# What nobody answers: another login hears it, or does not.
MESSAGES: list[tuple[str, set[str]]] = [
    ("optaic-live.acme.status.1", {"status"}),
    ("optaic-compare.now", {"instance"}),
    ("optaic-compare.acme.runs.page", {"run"}),
    ("optaic-replay.lineage-run-events", {"operator"}),
    ("_INBOX.x", set()),
    *((f"{inbox_of(service)}.x", set[str]()) for service in sorted(SERVICES)),
    ("$JS.ACK.RUN_EVENTS.lineage-run-events.1.1.1.1.0", {"lineage"}),
    ("$JS.ACK.RUN_EVENTS.instance-run-events.1.1.1.1.0", {"instance"}),
    ("$JS.FC.RUN_EVENTS.x.y", set()),
    ("anything", set()),
]
# Who may listen where.
LISTENING: list[tuple[str, set[str]]] = [
    (">", set()),
    ("_INBOX.>", SUBSCRIBERS),
    ("_INBOX_OPERATOR.>", {"operator"}),
    *((f"{inbox_of(service)}.>", {service}) for service in sorted(SERVICES)),
    ("optaic.acme.>", {"subscriber-acme"}),
    ("optaic.default.>", {"subscriber"}),
    ("optaic-live.acme.>", {"subscriber-acme"}),
    ("optaic-dead.>", set()),
    ("optaic-compare.>", {"instance"}),
    ("optaic-compare.*.runs.page", {"instance", "lineage"}),
    ("optaic-replay.>", set()),
    ("optaic-replay.lineage-run-events", {"lineage"}),
    ("optaic-deliver.>", set()),
    ("$JS.>", set()),
    ("$JS.API.>", set()),
    ("$SYS.>", set()),
]
_WAIT = 0.15


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    state = State(tmp_path)
    state.create()
    async with nats_with_accounts(state) as broker:
        await create_streams(broker)
        async with broker.login("admin") as admin:
            jetstream = admin.jetstream(timeout=5)
            for login in LOGINS.values():
                for consumer, stream in login.consumers.items():
                    await jetstream.add_consumer(stream, durable_name=consumer)
            for tenant in TENANTS:
                await jetstream.publish(f"optaic.{tenant}.run.v1.completed.0", b"event")
            await jetstream.publish("optaic-dead.run-instance.optaic.acme.x", b"letter")
        yield broker


async def is_carried_out(client: Client, subject: str, payload: Payload) -> bool:
    """Return whether a request had an effect: the broker answers it, and not with an error."""
    data = b"" if payload is None else json.dumps(payload).encode()
    try:
        answer = await client.request(subject, data, timeout=_WAIT)
    except (TimeoutError, nats.errors.Error):
        return False
    if (answer.headers or {}).get("Status"):
        return False
    return "error" not in json.loads(answer.data or b"{}")


def test_at_least_sixty_subjects_are_tried() -> None:
    assert len({subject for subject, *_ in REQUESTS}) >= 60


@pytest.mark.parametrize("user", IDENTITIES)
async def test_a_login_can_ask_for_what_is_its_own_and_nothing_else(broker: Broker, user: str) -> None:
    async with broker.login(user) as client:
        found = {
            subject for subject, payload, _ in REQUESTS if await is_carried_out(client, subject, payload)
        }
    assert found == {subject for subject, _, allowed in REQUESTS if user in allowed}
    async with broker.login("admin") as admin:
        assert (await admin.jetstream(timeout=5).stream_info("RUN_EVENTS")).state.messages >= len(TENANTS)


@pytest.mark.parametrize("user", IDENTITIES)
async def test_a_login_sends_its_own_messages_only(broker: Broker, user: str) -> None:
    heard: set[str] = set()
    names = ["admin", *(f"admin-{tenant}" for tenant in TENANTS)]

    async def note(message: Any) -> None:
        heard.add(message.subject)

    async with broker.login(names[0]) as one, broker.login(names[1]) as two, broker.login(names[2]) as three:
        for admin in (one, two, three):
            for subject, _ in MESSAGES:
                await listen(admin, subject, cb=note)
        async with broker.login(user) as client:
            for subject, _ in MESSAGES:
                await client.publish(subject, b"forged")
            await client.flush()
            await asyncio.sleep(_WAIT)  # the time in which a forbidden message would arrive
    assert heard == {subject for subject, allowed in MESSAGES if user in allowed}


@pytest.mark.parametrize("user", IDENTITIES)
async def test_a_login_hears_its_own_subjects_only(broker: Broker, user: str) -> None:
    heard = set()
    async with broker.login(user) as client:
        for subject, _ in LISTENING:
            broker.refusals.clear()
            await listen(client, subject)
            if not broker.refusals:
                heard.add(subject)
    # In a tenant's account, the subjects of all tenants may be named, and only those of the tenant carry anything.
    empty = {"optaic.acme.>", "optaic.default.>", "optaic-live.acme.>"} if user in SUBSCRIBERS else set()
    assert heard - empty == {subject for subject, allowed in LISTENING if user in allowed} - empty


async def test_a_subscriber_gets_the_events_of_its_tenant_only(broker: Broker) -> None:
    async with broker.login("subscriber-acme") as client, broker.login("admin") as admin:
        live = await listen(client, "optaic.>")
        jetstream = client.jetstream(timeout=5)
        stored = await jetstream.subscribe("optaic.>", stream="EVENTS", ordered_consumer=True)
        assert (await stored.next_msg(timeout=15)).subject.startswith("optaic.acme.")
        await admin.jetstream(timeout=5).publish("optaic.default.run.v1.completed.2", b"foreign")
        await admin.jetstream(timeout=5).publish("optaic.acme.run.v1.completed.2", b"own")
        assert (await stored.next_msg(timeout=15)).data == b"own"
        assert (await live.next_msg(timeout=5)).data == b"own"
        for silent in (stored, live):
            with pytest.raises((TimeoutError, nats.errors.TimeoutError)):
                await silent.next_msg(timeout=_WAIT)


@pytest.mark.parametrize(
    "reply",
    [
        "optaic.acme.run.v1.completed.9",
        "optaic-dead.run-instance.x",
        "optaic-live.acme.status.1",
        "optaic-replay.run-instance",
        "_INBOX_LINEAGE.x",
        "optaic-source.CONSUMER.CREATE.RUN_EVENTS.lineage-run-events.optaic.acme.x",
    ],
)
async def test_answers_to_a_subscriber_stay_in_its_account_wherever_it_directs_them(
    broker: Broker, reply: str
) -> None:
    requests = ("$JS.API.INFO", "$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.NAMES")
    async with broker.login("subscriber-acme") as client, broker.login("admin") as admin:
        heard = await listen(admin, ">")
        before = await _count(admin)
        for request in requests:
            await client.publish(request, b"", reply=reply)
        await client.publish("$JS.API.STREAM.MSG.GET.EVENTS", b'{"seq": 1}', reply=reply)
        push = {"name": "push", "deliver_subject": reply, "ack_policy": "none"}
        await client.publish(
            "$JS.API.CONSUMER.CREATE.EVENTS.push",
            json.dumps({"stream_name": "EVENTS", "config": push}).encode(),
        )
        await client.flush()
        await asyncio.sleep(2 * _WAIT)  # the time in which answers would arrive
        said = set()
        while heard.pending_msgs:
            said.add((await heard.next_msg(timeout=1)).subject)
        assert reply not in said
        assert await _count(admin) == before
        consumer = await admin.jetstream(timeout=5).consumer_info("RUN_EVENTS", "lineage-run-events")
        assert (consumer.config.filter_subject, consumer.config.deliver_subject) == (None, None)


async def _count(admin: Client) -> list[int]:
    jetstream = admin.jetstream(timeout=5)
    names = [*(login.stream for login in LOGINS.values()), "DEAD_LETTERS"]
    return [(await jetstream.stream_info(name)).state.messages for name in names]


def test_no_login_may_use_the_whole_of_jetstream() -> None:
    accounts = make_accounts(TENANTS, lambda _: "")
    assert set(accounts) == {SERVICES_ACCOUNT, *(account_of(tenant) for tenant in TENANTS)}
    for account in accounts.values():
        for user in account["users"]:
            allowed = user["permissions"]["publish"]["allow"]
            assert not {">", "$JS.>", "$JS.API.>", "$JS.API.CONSUMER.>", "$JS.ACK.>", "_INBOX.>"} & set(
                allowed
            )


def test_the_logins_use_the_names_of_the_services() -> None:
    for module in (broker_module, context, tenant_streams):
        shared = {name for name in vars(module) if name.isupper()} & set(vars(nats_accounts))
        assert shared
        assert {name: getattr(nats_accounts, name) for name in shared} == {
            name: getattr(module, name) for name in shared
        }
    assert nats_accounts.OPERATORS_INBOX == dead_letters.INBOX
    assert nats_accounts.replay_subject("x") == dead_letters.replay_subject("x")
    assert nats_accounts.management_subject("x", "y") == tenant_streams.management_subject("x", "y")
    assert {nats_accounts.inbox_of(service) for service in LOGINS} == {
        broker_module.inbox_of(f"{service}-service") for service in LOGINS
    }
