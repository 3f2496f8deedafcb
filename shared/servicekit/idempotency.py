"""Give a repeated request its first answer; failures are never stored."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from servicekit import context
from servicekit.database import Database
from servicekit.errors import AlreadyExistsError
from servicekit.outbox import current_notes
from servicekit.schema import TENANT_SETTING

_CLAIM = sa.text(f"""
    insert into request_replies (tenant_id, method, request_id, payload_hash)
    values (current_setting('{TENANT_SETTING}'), :method, :request_id, :payload_hash)
    on conflict do nothing returning 1
""")  # noqa: S608 - a constant of ours
_GET = sa.text(f"""
    select payload_hash, response, write_tokens from request_replies
    where tenant_id = current_setting('{TENANT_SETTING}') and method = :method and request_id = :request_id
""")  # noqa: S608 - a constant of ours
_STORE = sa.text(f"""
    update request_replies set response = :response, write_tokens = :write_tokens
    where tenant_id = current_setting('{TENANT_SETTING}') and method = :method and request_id = :request_id
""")  # noqa: S608 - a constant of ours


class _NothingStoredError(Exception):
    """Nothing was stored for a request id, so the claim on it is rolled back."""


def payload_hash(request: Message) -> bytes:
    """Return a digest of a request, by which its repetition is recognised among requests with the same id."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


async def replay_or_none(
    connection: AsyncConnection, method: str, request_id: str, payload_hash: bytes
) -> bytes | None:
    """Return the stored answer, or claim the request id for this transaction and return None.

    A concurrent repetition waits here until the first one has ended. Without a request id: None.

    Raises:
        AlreadyExistsError: The id came with another request before.
    """
    if not request_id:
        return None
    key = {"method": method, "request_id": request_id}
    if (await connection.execute(_CLAIM, {**key, "payload_hash": payload_hash})).first():
        return None
    found_hash, response, write_tokens = (await connection.execute(_GET, key)).one()
    if bytes(found_hash) != payload_hash or response is None:
        raise AlreadyExistsError(
            "REQUEST_ID_REUSED",
            f"request_id {request_id} was used for another request; give this one a new request_id",
            metadata={"method": method},
        )
    request = context.current_or_none()
    if request is not None:
        request.write_tokens.extend(write_tokens)
    return bytes(response)


async def first_answer(
    database: Database, tenant_id: str, method: str, request_id: str, payload_hash: bytes
) -> bytes | None:
    """Return the stored answer to a request, or None; a request id without an answer stays free.

    It opens its own transaction. A repeated request thereby gets its first answer even if the method would refuse it now.

    Raises:
        AlreadyExistsError: The id came with another request before.
    """
    if not request_id:
        return None
    try:
        async with database.transaction(tenant_id) as connection:
            stored = await replay_or_none(connection, method, request_id, payload_hash)
            if stored is None:
                raise _NothingStoredError  # noqa: TRY301 - rolls the claim on the id back
    except _NothingStoredError:
        return None
    return stored


async def store(connection: AsyncConnection, method: str, request_id: str, response: bytes) -> None:
    """Store the answer in the transaction of the request's effects; call it after the events were appended."""
    if not request_id:
        return
    notes = current_notes.get()
    tokens = [event.token for event in notes.events] if notes else []
    await connection.execute(
        _STORE, {"method": method, "request_id": request_id, "response": response, "write_tokens": tokens}
    )
