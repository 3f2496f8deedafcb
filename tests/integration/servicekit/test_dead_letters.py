"""What a consumer could not apply is applied once, when an operator has it replayed after the repair."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import nats
import pytest
import sqlalchemy as sa
from google.protobuf.wrappers_pb2 import StringValue
from nats.aio.client import Client
from sqlalchemy.ext.asyncio import AsyncConnection

from integration.servicekit.processes import replica, running
from integration.servicekit.sample import sample_event
from integration.servicekit.streams import count
from integration.servicekit.test_consumer import Applied, applied, notes, publish, sample_consumer
from servicekit import dead_letters
from servicekit.broker import Broker
from servicekit.consumer import Consumer, Received
from servicekit.database import Database
from servicekit.dead_letters import DeadLetter, Replay
from servicekit.events import Event
from servicekit.settings import ServiceSettings
from support.polling import eventually

__all__ = ["applied"]


@dataclasses.dataclass(frozen=True)
class World:
    """A running consumer, its database, and an operator's connection."""

    url: str
    database: Database
    consumer: Consumer
    applied: Applied
    operator: Client

    async def letters(self) -> list[DeadLetter]:
        return [letter async for letter in dead_letters.list_dead_letters(self.operator.jetstream())]

    async def replay(self) -> list[Replay]:
        return [await dead_letters.request_replay(self.operator, each, 20) for each in await self.letters()]

    async def notes(self) -> list[str]:
        return await notes(self.database)

    async def dead_letter(self, *events: Event) -> None:
        await publish(self.url, *events)
        await eventually(lambda: self._has(len(events)))

    async def _has(self, letters: int) -> bool:
        return await count(self.url, "DEAD_LETTERS") == letters

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """Run the operator's command as a process; return its exit code and what it writes."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "devstack.dead_letters", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "OPTAIC_NATS_URL": self.url},
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def running_world(settings: ServiceSettings, applied: Applied) -> AsyncIterator[World]:
    async with replica(settings) as process:
        await process[1].ready()
        consumer, operator = (
            sample_consumer(process, applied),
            await nats.connect(settings.nats_url, inbox_prefix=dead_letters.INBOX),
        )
        async with running(consumer.run):
            yield World(settings.nats_url, process[0], consumer, applied, operator)
            await operator.close()


@pytest.fixture
async def world(broker_settings: ServiceSettings, applied: Applied) -> AsyncIterator[World]:
    async with running_world(broker_settings, applied) as world:
        yield world


async def test_a_dead_letter_is_applied_once_after_the_repair(world: World) -> None:
    events = [sample_event("poison1"), sample_event("poison2")]
    await world.dead_letter(*events)
    kept = await world.letters()
    assert [(letter.event_id, letter.consumer, letter.stream, letter.tenant_id) for letter in kept] == [
        (event.event_id, "sample-notes", "SAMPLE_EVENTS", "acme") for event in events
    ]
    assert [letter.attempts for letter in kept] == [5, 5]
    assert [replay.outcome for replay in await world.replay()] == ["failed", "failed"]
    assert await world.letters() == kept
    assert await world.notes() == []
    world.applied.is_healed = True
    assert await world.replay() == [Replay("applied"), Replay("applied")]
    assert await world.letters() == []
    assert await world.notes() == ["poison1", "poison2"]


async def test_two_operators_at_once_apply_a_dead_letter_once(world: World) -> None:
    await world.dead_letter(*(sample_event(f"poison{number}") for number in range(5)))
    world.applied.is_healed = True
    outcomes = [
        replay.outcome for part in await asyncio.gather(world.replay(), world.replay()) for replay in part
    ]
    assert outcomes.count("applied") == 5
    assert set(outcomes) <= {"applied", "applied before", "gone"}
    assert await world.notes() == [f"poison{number}" for number in range(5)]
    assert await world.letters() == []


async def test_a_replay_that_dies_between_commit_and_removal_loses_and_doubles_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: object) -> None:
        raise ConnectionError("the process dies here")

    await world.dead_letter(sample_event("poison"))
    world.applied.is_healed = True
    with monkeypatch.context() as patched:
        patched.setattr(dead_letters, "remove_dead_letter", die)
        (replay,) = await world.replay()
        assert replay.outcome == "failed"
    assert len(await world.letters()) == 1
    assert await world.replay() == [Replay("applied before")]
    assert await world.letters() == []
    assert await world.notes() == ["poison"]


async def test_two_replicas_answer_a_replay_once(broker_settings: ServiceSettings, applied: Applied) -> None:
    async with (
        running_world(broker_settings, applied) as one,
        running_world(broker_settings, applied) as other,
    ):
        await one.dead_letter(sample_event("poison"))
        applied.is_healed = True
        assert await other.replay() == [Replay("applied")]
        assert await one.replay() == []
        assert await one.notes() == ["poison"]


async def test_a_dead_letter_without_an_answering_service_is_kept(
    broker_settings: ServiceSettings, applied: Applied
) -> None:
    async with running_world(broker_settings, applied) as world:
        await world.dead_letter(sample_event("poison"))
    operator = await nats.connect(broker_settings.nats_url, inbox_prefix=dead_letters.INBOX)
    (letter,) = [each async for each in dead_letters.list_dead_letters(operator.jetstream())]
    replay = await dead_letters.request_replay(operator, letter, 5)
    assert replay.outcome == "unanswered"
    assert "sample-notes" in replay.error
    await operator.close()
    assert await count(broker_settings.nats_url, "DEAD_LETTERS") == 1


@pytest.mark.parametrize("beyond", [1, 999], ids=["another's", "none"])
async def test_a_replay_of_a_missing_or_foreign_dead_letter_answers_gone(world: World, beyond: int) -> None:
    await world.dead_letter(sample_event("poison"))
    (letter,) = await world.letters()
    other = {
        "optaic-consumer": "another",
        "optaic-subject": letter.subject,
        "optaic-stream": "SAMPLE_EVENTS",
    }
    await world.operator.jetstream().publish("optaic-dead.another.x", b"", headers=other)
    asked = dataclasses.replace(letter, number=letter.number + beyond)
    assert await dead_letters.request_replay(world.operator, asked, 5) == Replay("gone")
    assert await count(world.url, "DEAD_LETTERS") == 2


async def test_a_dead_letter_of_an_unknown_type_is_kept(world: World) -> None:
    await world.dead_letter(sample_event("poison"))
    (letter,) = await world.letters()
    newer = {**letter.headers, "ce-type": "optaic.future.v9.Thing", "Nats-Msg-Id": "newer"}
    await world.operator.jetstream().publish(letter.stored_subject, letter.payload, headers=newer)
    world.applied.is_healed = True
    outcomes = await world.replay()
    assert [replay.outcome for replay in outcomes] == ["applied", "failed"]
    assert "optaic.future.v9.Thing" in outcomes[1].error
    assert await count(world.url, "DEAD_LETTERS") == 1


async def test_a_dead_letter_that_another_consumer_stored_is_not_applied(world: World) -> None:
    await world.dead_letter(sample_event("poison"))
    (letter,) = await world.letters()
    forged = {**letter.headers, "Nats-Msg-Id": "forged"}
    await world.operator.jetstream().publish("optaic-dead.another.x", letter.payload, headers=forged)
    world.applied.is_healed = True
    assert [replay.outcome for replay in await world.replay()] == ["applied", "failed"]
    assert await world.notes() == ["poison"]
    assert await count(world.url, "DEAD_LETTERS") == 1


async def test_a_replay_request_with_a_foreign_reply_subject_is_ignored(world: World) -> None:
    await world.dead_letter(sample_event("poison"))
    world.applied.is_healed = True
    (letter,) = await world.letters()
    elsewhere = await world.operator.subscribe("optaic.acme.sample.v1.>")
    request = dead_letters.replay_subject("sample-notes"), str(letter.number).encode()
    await world.operator.publish(*request, reply="optaic.acme.sample.v1.forged.1")
    await world.operator.publish(*request)
    assert await world.replay() == [Replay("applied")], "neither request before it replayed"
    assert elsewhere.pending_msgs == 0


async def test_a_replay_and_a_batch_are_applied_one_after_the_other(database: Database) -> None:
    steps: list[str] = []

    async def apply(connection: AsyncConnection, tenant_id: str, _: Sequence[Received]) -> None:
        steps.append(f"begin {tenant_id}")
        await connection.execute(sa.text("select pg_sleep(0.05)"))
        steps.append(f"end {tenant_id}")

    consumer = Consumer(
        database,
        Broker(ServiceSettings.model_construct(), {}),
        name="sample-notes",
        stream="SAMPLE_EVENTS",
        filter_subjects=[],
        apply=apply,
        committed=lambda: steps.append("committed"),
    )
    batch = [Received(sample_event("one"), StringValue())]
    replayed = [Received(sample_event("two"), StringValue())]
    await asyncio.gather(
        consumer._apply_in_transaction("acme", batch), consumer._apply_in_transaction("other", replayed)
    )
    assert steps == ["begin acme", "end acme", "committed", "begin other", "end other", "committed"]


async def test_a_list_that_is_read_only_in_part_ends_without_an_error(world: World) -> None:
    await world.dead_letter(sample_event("poison"))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "devstack.dead_letters", "list"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "OPTAIC_NATS_URL": world.url},
        )
    finally:
        os.close(writing)
    _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")


async def test_the_command_lists_shows_and_replays(world: World) -> None:
    event = sample_event("poison of postgresql://ada:k4n4rie@db.example/x")
    await world.dead_letter(event)
    code, out, err = await world.command("list")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "1 dead letter"
    for part in ("sample-notes", "SAMPLE_EVENTS", "acme", "google.protobuf.StringValue", event.event_id):
        assert part in out
    number = str((await world.letters())[0].number)
    code, shown, err = await world.command("show", number)
    assert (code, err) == (0, "")
    assert json.loads(shown)["attempts"] == 5
    assert "cannot digest poison" in json.loads(shown)["error"]
    code, lines, err = await world.command("list", "--json", "--consumer", "sample-notes")
    assert [json.loads(line)["event_id"] for line in lines.splitlines()] == [event.event_id]
    assert "k4n4rie" not in out + shown + lines
    assert (await world.command("list", "--json", "--consumer", "another"))[:2] == (0, "")

    assert (await world.command("replay", number))[0] == 1, "nobody said yes"
    code, out, err = await world.command("replay", number, "--yes")
    assert (code, out) == (
        1,
        "applied 0, applied before 0, gone 0, failed 1, unanswered 0, unknown 0; kept 1\n",
    )
    assert "cannot digest" in err
    world.applied.is_healed = True
    code, out, err = await world.command("replay", "--consumer", "sample-notes", "--yes")
    assert (code, out, err) == (
        0,
        "applied 1, applied before 0, gone 0, failed 0, unanswered 0, unknown 0; kept 0\n",
        "",
    )
    assert (await world.command("replay", "--all", "--yes"))[0] == 0
    assert (await world.command("replay", number, "--yes"))[0] == 1
    assert (await world.command("show", number))[0] == 1
    assert len(await world.notes()) == 1
