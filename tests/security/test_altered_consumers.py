"""Somebody with the rights of an administrator alters a service's consumer; the service notices it and puts it right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from servicekit import durables
from servicekit.durables import Durable
from servicekit.pull import pulling
from support.polling import eventually

STREAM, NAME = "RUN_EVENTS", "lineage-run-events"
SUBJECTS = ["optaic.*.run.v1.completed.*", "optaic.*.run.v1.failed.*"]
EVENT = "optaic.acme.run.v1.completed.1"
ALTERATIONS: list[tuple[str, dict[str, Any]]] = [
    ("filter_subjects", {"filter_subjects": ["optaic.acme.run.v1.never.*"]}),
    ("filter_subjects", {"filter_subjects": [SUBJECTS[0]]}),
    ("filter_subjects", {"filter_subjects": []}),
    ("deliver_policy", {"deliver_policy": "new"}),
    ("deliver_policy", {"deliver_policy": "last"}),
    ("opt_start_seq", {"deliver_policy": "by_start_sequence", "opt_start_seq": 1000}),
    ("opt_start_time", {"deliver_policy": "by_start_time", "opt_start_time": "2099-01-01T00:00:00Z"}),
    ("deliver_subject", {"deliver_subject": "elsewhere"}),
    ("ack_policy", {"ack_policy": "none"}),
    ("max_deliver", {"max_deliver": 1}),
    ("ack_wait", {"ack_wait": 1_000_000}),
    ("max_ack_pending", {"max_ack_pending": 1}),
    ("headers_only", {"headers_only": True}),
    ("pause_until", {"pause_until": "2099-01-01T00:00:00Z"}),
    ("max_waiting", {"max_waiting": 1}),
    ("max_batch", {"max_batch": 1}),
    ("inactive_threshold", {"inactive_threshold": 3_600_000_000_000}),
]


@pytest.fixture
async def admin(nats_url: str) -> AsyncIterator[Client]:
    client = await nats.connect(nats_url)
    await client.jetstream().add_stream(name=STREAM, subjects=["optaic.*.run.v1.>"])
    yield client
    await client.close()


async def alter(admin: Client, changes: dict[str, Any]) -> None:
    """Replace the consumer as an attacker does: the same name, another configuration."""
    await admin.jetstream().delete_consumer(STREAM, NAME)
    config = {
        "durable_name": NAME,
        "filter_subjects": SUBJECTS,
        "ack_policy": "explicit",
        "ack_wait": 5_000_000_000,
        "max_ack_pending": 1024,
        **changes,
    }
    payload = json.dumps({"stream_name": STREAM, "config": config}).encode()
    answer = await admin.request(f"$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.{NAME}", payload, timeout=5)
    assert "error" not in json.loads(answer.data), answer.data


@pytest.mark.parametrize(("field", "changes"), ALTERATIONS)
async def test_an_altered_configuration_is_named_counted_and_put_right(
    admin: Client, field: str, changes: dict[str, Any]
) -> None:
    durable = Durable(STREAM, NAME, SUBJECTS)
    await durable.ensure(admin)
    await alter(admin, changes)
    await admin.jetstream().publish(EVENT, b"event")
    with capture_logs() as logs:
        await durable.ensure(admin)
    (entry,) = [entry for entry in logs if "fields" in entry]
    assert field in entry["fields"]
    assert (durable.repairs, entry["repairs"]) == (1, 1)
    async with pulling(admin, STREAM, NAME, 10) as pull:
        (message,) = await pull.next_batch()
        assert (message.subject, message.data) == (EVENT, b"event")
        await message.ack()
    await durable.ensure(admin)
    assert durable.repairs == 1


async def test_a_right_configuration_is_left_alone_with_its_position(admin: Client) -> None:
    durable = Durable(STREAM, NAME, SUBJECTS)
    await durable.ensure(admin)
    await admin.jetstream().publish(EVENT, b"event")
    async with pulling(admin, STREAM, NAME, 10) as pull:
        (message,) = await pull.next_batch()
        await message.ack_sync()
    await Durable(STREAM, NAME, SUBJECTS).ensure(admin)
    assert durable.repairs == 0
    assert (await admin.jetstream().consumer_info(STREAM, NAME)).num_pending == 0


async def test_a_consumer_in_use_is_watched(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durables, "_INTERVAL", 0.05)
    durable = Durable(STREAM, NAME, SUBJECTS)
    await durable.ensure(admin)
    watching = asyncio.create_task(durable.watch(admin))
    await alter(admin, {"filter_subjects": ["optaic.acme.run.v1.never.*"]})
    await eventually(lambda: durable.repairs == 1)
    await admin.jetstream().delete_consumer(STREAM, NAME)
    await eventually(lambda: _exists(admin))
    watching.cancel()


async def _exists(admin: Client) -> bool:
    answer = await admin.request(f"$JS.API.CONSUMER.INFO.{STREAM}.{NAME}", timeout=5)
    return "error" not in json.loads(answer.data)
