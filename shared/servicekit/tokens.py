"""Let callers read their own writes: wait until this service's inbox holds the events of their tokens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from servicekit.database import Database
from servicekit.errors import FieldViolation, InvalidArgumentError, UnavailableError
from servicekit.ids import is_id

MAXIMUM_TOKENS = 64
LONGEST_WAIT = 10.0
_POLL = 0.1  # events applied by another replica are not announced here
_GET_CONSUMED = sa.text("""
    select consumer, cast(event_id as text) from consumed_events
    where tenant_id = :tenant_id and consumer = any(:consumers) and event_id = any(cast(:event_ids as uuid[]))
""")


def writes_pending(count: int) -> UnavailableError:
    """Return READ_TOKENS_PENDING: the service that has to answer lacks events that the caller has written."""
    return UnavailableError(
        "READ_TOKENS_PENDING",
        f"this service has not received the writes of {count} read tokens yet; retry",
        metadata={"pending": str(count)},
    )


class ReadTokens:
    """The wait for read tokens. `rules` maps a package to the consumers that must hold its events."""

    def __init__(self, database: Database, rules: Mapping[str, tuple[str, ...]]) -> None:
        self._database = database
        self._rules = dict(rules)
        self._consumed = asyncio.Event()
        database.on_consumed(self._notify)

    def _notify(self) -> None:
        # Present callers wait for the old event; later callers wait for the new one.
        self._consumed.set()
        self._consumed = asyncio.Event()

    async def wait(self, tenant_id: str, tokens: Sequence[str], deadline: float | None) -> None:
        """Wait until the inbox holds the events of all tokens; `deadline` is on the monotonic clock.

        Raises:
            InvalidArgumentError: A text is no read token.
            UnavailableError: The events did not arrive in time; a retry waits again.
        """
        missing = self._required(tokens)
        limit = time.monotonic() + LONGEST_WAIT
        if deadline is not None:
            limit = min(limit, deadline)
        while missing:
            consumed = self._consumed
            missing -= await self._held(tenant_id, missing)
            if not missing:
                return
            remaining = limit - time.monotonic()
            if remaining <= 0:
                raise writes_pending(len(missing))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_POLL, remaining)):
                    await consumed.wait()

    def _required(self, tokens: Sequence[str]) -> set[tuple[str, str]]:
        if len(tokens) > MAXIMUM_TOKENS:
            raise _invalid(f"{len(tokens)} read tokens are too many; at most {MAXIMUM_TOKENS} are allowed")
        required: set[tuple[str, str]] = set()
        for token in tokens:
            package, _, event_id = token.partition("/")
            if not package or not is_id(event_id):
                raise _invalid(f"{token[:100]!r} is no read token; send the write tokens as they came")
            required.update((consumer, event_id) for consumer in self._rules.get(package, ()))
        return required

    async def _held(self, tenant_id: str, missing: set[tuple[str, str]]) -> set[tuple[str, str]]:
        parameters = {
            "tenant_id": tenant_id,
            "consumers": sorted({consumer for consumer, _ in missing}),
            "event_ids": sorted({event_id for _, event_id in missing}),
        }
        async with self._database.read(tenant_id) as connection:
            return {(row[0], row[1]) for row in await connection.execute(_GET_CONSUMED, parameters)}


def _invalid(description: str) -> InvalidArgumentError:
    violation = FieldViolation("optaic-read-tokens", description, "INVALID_READ_TOKENS")
    return InvalidArgumentError("INVALID_READ_TOKENS", description, field_violations=[violation])
