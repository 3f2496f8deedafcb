"""A read that carries tokens waits for the writes it names, and never for longer than it may."""

import asyncio
import time

import pytest

from servicekit import tokens as tokens_module
from servicekit.consumer import insert_consumed
from servicekit.database import Database
from servicekit.errors import InvalidArgumentError, UnavailableError
from servicekit.ids import new_id
from servicekit.settings import ServiceSettings
from servicekit.tokens import ReadTokens

RULES = {"run": ("echo",), "instance": ("echo", "own")}


async def consume(database: Database, consumer: str, event_id: str, tenant: str = "acme") -> None:
    async with database.transaction(tenant) as connection:
        await insert_consumed(connection, tenant, consumer, [event_id])


async def test_a_token_is_satisfied_once_all_its_consumers_hold_the_event(database: Database) -> None:
    reading = ReadTokens(database, RULES)
    event_id = new_id()
    waiting = asyncio.create_task(reading.wait("acme", [f"instance/{event_id}"], None))
    await consume(database, "echo", event_id)
    await consume(database, "other", event_id)
    await consume(database, "own", event_id, "rival")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.3)
    await consume(database, "own", event_id)
    await asyncio.wait_for(waiting, 10)


async def test_a_commit_in_this_process_wakes_the_reader(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "_POLL", 3600)
    reading = ReadTokens(database, RULES)
    event_id = new_id()
    waiting = asyncio.create_task(reading.wait("acme", [f"run/{event_id}"], None))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.2)  # it has looked, and waits
    await consume(database, "echo", event_id)
    await asyncio.wait_for(waiting, 10)


async def test_a_commit_in_another_process_is_found_by_looking_again(
    database: Database, settings: ServiceSettings
) -> None:
    elsewhere = Database(settings)
    event_id = new_id()
    waiting = asyncio.create_task(ReadTokens(database, RULES).wait("acme", [f"run/{event_id}"], None))
    await consume(elsewhere, "echo", event_id)
    await asyncio.wait_for(waiting, 10)
    await elsewhere.close()


async def test_a_writer_does_not_wait_for_its_own_event(database: Database) -> None:
    await ReadTokens(database, RULES).wait("acme", [f"lineage/{new_id()}"], time.monotonic())


async def test_a_write_that_does_not_arrive_is_unavailable_at_the_deadline(database: Database) -> None:
    with pytest.raises(UnavailableError) as failure:
        await ReadTokens(database, RULES).wait("acme", [f"run/{new_id()}"], time.monotonic() + 0.1)
    assert failure.value.reason == "READ_TOKENS_PENDING"


_ID = "01a1fde5-f4c5-77d1-bba6-a4da71fd9dc7"


@pytest.mark.parametrize("token", ["run", "run/", "run/1", f"/{_ID}", f"run/{_ID.upper()}", "x" * 9999])
async def test_an_invalid_read_token_is_refused(database: Database, token: str) -> None:
    with pytest.raises(InvalidArgumentError) as failure:
        await ReadTokens(database, RULES).wait("acme", [token], None)
    assert failure.value.reason == "INVALID_READ_TOKENS"


async def test_too_many_tokens_are_refused(database: Database) -> None:
    with pytest.raises(InvalidArgumentError, match="64"):
        await ReadTokens(database, RULES).wait("acme", [f"run/{new_id()}"] * 65, None)
