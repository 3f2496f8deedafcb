"""A repeated request gets its first answer."""

import asyncio

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from integration.servicekit.sample import insert_note, list_notes, sample_event
from servicekit import context
from servicekit.context import RequestContext
from servicekit.database import Database
from servicekit.errors import AlreadyExistsError
from servicekit.idempotency import first_answer, payload_hash, replay_or_none, store
from servicekit.outbox import append

METHOD = "/sample.Notes/Create"
REQUEST = payload_hash(StringValue(value="a"))
OTHER_REQUEST = payload_hash(StringValue(value="b"))


async def create(
    database: Database,
    note_id: str,
    *,
    request_id: str = "r1",
    payload: bytes = REQUEST,
    tenant: str = "acme",
) -> bytes:
    """Create a note as a use case would; the answer is its id."""
    async with database.transaction(tenant) as connection:
        reply = await replay_or_none(connection, METHOD, request_id, payload)
        if reply is not None:
            return reply
        await insert_note(connection, tenant, note_id)
        await append(connection, [sample_event(note_id, tenant)])
        await store(connection, METHOD, request_id, note_id.encode())
        return note_id.encode()


async def notes(database: Database, tenant: str = "acme") -> list[str]:
    async with database.read(tenant) as connection:
        return await list_notes(connection)


async def test_the_same_request_gets_the_first_answer_and_has_one_effect(database: Database) -> None:
    assert await create(database, "1") == b"1"
    assert await create(database, "2") == b"1"
    assert await notes(database) == ["1"]


async def test_the_same_id_with_another_request_is_refused(database: Database) -> None:
    await create(database, "1")
    with pytest.raises(AlreadyExistsError) as failure:
        await create(database, "2", payload=OTHER_REQUEST)
    assert failure.value.reason == "REQUEST_ID_REUSED"
    assert await notes(database) == ["1"]


async def test_without_an_id_every_request_is_new(database: Database) -> None:
    await create(database, "1", request_id="")
    await create(database, "2", request_id="")
    assert await notes(database) == ["1", "2"]


async def test_an_id_belongs_to_its_tenant(database: Database) -> None:
    await create(database, "1")
    await create(database, "2", tenant="rival")
    assert await notes(database, "rival") == ["2"]


async def test_a_failure_is_not_remembered(database: Database) -> None:
    with pytest.raises(ValueError, match="refused"):  # noqa: PT012 - the failing transaction is the statement
        async with database.transaction("acme") as connection:
            assert await replay_or_none(connection, METHOD, "r1", REQUEST) is None
            raise ValueError("refused")
    assert await create(database, "1") == b"1"


async def test_asking_for_the_first_answer_does_not_claim_the_id(database: Database) -> None:
    assert await first_answer(database, "acme", METHOD, "", REQUEST) is None
    assert await first_answer(database, "acme", METHOD, "r1", REQUEST) is None
    assert await create(database, "1") == b"1"
    assert await first_answer(database, "acme", METHOD, "r1", REQUEST) == b"1"
    assert await first_answer(database, "rival", METHOD, "r1", REQUEST) is None
    with pytest.raises(AlreadyExistsError):
        await first_answer(database, "acme", METHOD, "r1", OTHER_REQUEST)


async def test_concurrent_repetitions_have_one_effect_and_one_answer(database: Database) -> None:
    answers = await asyncio.gather(*(create(database, str(number)) for number in range(6)))
    assert len(set(answers)) == 1
    assert await notes(database) == [answers[0].decode()]


async def test_a_repetition_gets_the_write_tokens_of_the_first(database: Database) -> None:
    tokens = []
    for _ in range(2):
        request = RequestContext("acme", "someone", "x", context.new_traceparent())
        with context.bind(request):
            await create(database, "1")
        tokens.append(request.write_tokens)
    assert len(tokens[0]) == 1
    assert tokens[0] == tokens[1]
