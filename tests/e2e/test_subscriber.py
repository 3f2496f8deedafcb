"""Another team subscribes to the events with the read-only login."""

import asyncio

import nats
import nats.errors
import pytest
from nats.aio.client import Client as Nats

from support.stack import RunningStack


async def connect(stack: RunningStack, refusals: list[str]) -> Nats:
    async def note(error: Exception) -> None:
        refusals.append(str(error))

    return await nats.connect(stack.endpoints.nats_subscriber, error_cb=note)


async def test_the_subscriber_reads_the_stream_of_its_tenant(stack: RunningStack) -> None:
    refusals: list[str] = []
    connection = await connect(stack, refusals)
    subscription = await connection.jetstream().subscribe(
        "optaic.*.definition.v1.published.>", stream="EVENTS", ordered_consumer=True
    )
    message = await subscription.next_msg(timeout=10)
    assert message.headers is not None
    assert message.headers["ce-type"] == "optaic.definition.v1.DefinitionPublished"
    assert message.headers["ce-tenantid"] == "default"
    assert (await connection.jetstream().stream_info("EVENTS")).config.name == "EVENTS"
    assert refusals == []
    await connection.close()


@pytest.mark.parametrize(
    "subject",
    [
        "optaic.default.run.v1.completed.x",
        "optaic-live.default.status.x",
        "optaic-dead.x",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.STREAM.INFO.RUN_EVENTS",
        "$JS.API.STREAM.DELETE.RUN_EVENTS",
        "$JS.API.STREAM.PURGE.RUN_EVENTS",
        "anything",
    ],
)
async def test_the_subscriber_publishes_nothing(stack: RunningStack, subject: str) -> None:
    refusals: list[str] = []
    connection = await connect(stack, refusals)
    with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
        await connection.request(subject, b"", timeout=0.5)
    await asyncio.wait_for(connection.flush(), 5)
    await connection.close()
    assert any("permissions violation for publish" in refusal.lower() for refusal in refusals)
