"""The streams of an earlier release, which knew no accounts, are the services' streams after an upgrade."""

from __future__ import annotations

import json

import nats
from nats.js.api import ConsumerConfig, StreamConfig

from devstack import nats as embedded
from devstack import ports
from devstack.processes import Process, Program
from devstack.state import State, write_private
from support.nats_logins import create_streams, nats_with_accounts

_COUNT = 50


async def test_an_upgrade_keeps_events_dead_letters_and_positions_of_consumers(state: State) -> None:
    port, monitor = ports.find_free(), ports.find_free()
    program = embedded.make_program(state, port, monitor, state.secrets())
    config = state.root / "nats.conf"
    head, _, _ = config.read_text(encoding="utf-8").partition("accounts: ")
    users = [{"user": "run", "password": state.secrets()["nats_run"]}]
    write_private(config, f"{head}authorization: {json.dumps({'users': users})}")
    await _fill(state, program, port)
    assert (state.root / "nats/jetstream/$G").exists()

    async with nats_with_accounts(state) as broker:
        await create_streams(broker)
        async with broker.login("admin") as admin:
            jetstream = admin.jetstream(timeout=5)
            assert (await jetstream.stream_info("RUN_EVENTS")).state.messages == _COUNT
            assert (await jetstream.get_msg("DEAD_LETTERS", 1)).data == b"letter"
            assert (
                await jetstream.consumer_info("RUN_EVENTS", "lineage-run-events")
            ).num_pending == _COUNT - 1
        async with broker.login("subscriber") as subscriber:
            jetstream = subscriber.jetstream(timeout=5)
            events = await jetstream.subscribe("optaic.>", stream="EVENTS", ordered_consumer=True)
            assert [(await events.next_msg(timeout=15)).data for _ in range(_COUNT)] == [
                str(number).encode() for number in range(_COUNT)
            ]
    assert not (state.root / "nats/jetstream/$G").exists()


async def _fill(state: State, program: Program, port: int) -> None:
    process = Process(state, program)
    await process.start()
    await process.wait_ready(20)
    client = await nats.connect(embedded.make_url(port, "run", state.secrets()["nats_run"]))
    jetstream = client.jetstream(timeout=5)
    await jetstream.add_stream(StreamConfig(name="RUN_EVENTS", subjects=["optaic.*.run.v1.>"]))
    await jetstream.add_stream(StreamConfig(name="DEAD_LETTERS", subjects=["optaic-dead.>"]))
    await jetstream.publish("optaic-dead.run-instance.x", b"letter")
    for number in range(_COUNT):
        await jetstream.publish(f"optaic.default.run.v1.completed.{number}", str(number).encode())
    await jetstream.add_consumer("RUN_EVENTS", ConsumerConfig(durable_name="lineage-run-events"))
    subscription = await jetstream.pull_subscribe_bind(consumer="lineage-run-events", stream="RUN_EVENTS")
    (message,) = await subscription.fetch(1, timeout=5)
    await message.ack_sync(timeout=5)
    await client.close()
    await process.stop(5)
