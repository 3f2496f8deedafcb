"""Consume a stream: apply each event once for its tenant, even if events are repeated or reordered (the inbox).

It does not know what an event means; the `apply` function has to ignore events that are older than what it knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import nats.errors
import sqlalchemy as sa
import structlog
from google.protobuf import symbol_database
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from sqlalchemy.ext.asyncio import AsyncConnection

from servicekit import dead_letters
from servicekit.backoff import backoff
from servicekit.broker import Broker
from servicekit.database import Database
from servicekit.database_errors import FULL
from servicekit.dead_letters import Replay
from servicekit.direct import send
from servicekit.durables import Durable
from servicekit.errors import UnavailableError
from servicekit.events import Event, MalformedEventError, event_of
from servicekit.outbox import current_notes
from servicekit.pace import Pace
from servicekit.pull import pulling
from servicekit.tasks import running

_INSERT_CONSUMED = sa.text("""
    insert into consumed_events (tenant_id, consumer, event_id)
    select :tenant_id, :consumer, unnest(cast(:event_ids as uuid[]))
    on conflict do nothing returning cast(event_id as text)
""")
_MAXIMUM_ATTEMPTS = 5
_RETRY_DELAY = 0.5
_APPLY_TIMEOUT = 60.0
_LONGEST_BACKOFF = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Received:
    """One event with its decoded message."""

    event: Event
    message: Message


@dataclass(frozen=True)
class _Delivery:
    """A received event and the broker's handle to acknowledge it."""

    received: Received
    raw: Msg


Apply = Callable[[AsyncConnection, str, Sequence[Received]], Awaitable[None]]


async def insert_consumed(
    connection: AsyncConnection, tenant_id: str, consumer: str, event_ids: Iterable[str]
) -> set[str]:
    """Record event ids as consumed; return those that are new."""
    # Sorted: two transactions with common ids must insert them in the same order, or they deadlock.
    ids = sorted(set(event_ids))
    if not ids:
        return set()
    parameters = {"tenant_id": tenant_id, "consumer": consumer, "event_ids": ids}
    inserted = set((await connection.execute(_INSERT_CONSUMED, parameters)).scalars())
    notes = current_notes.get()
    if notes is not None and inserted:
        notes.has_consumed = True
    return inserted


async def send_consumed(
    connection: AsyncConnection, tenant_id: str, consumer: str, event_ids: Iterable[str]
) -> None:
    """Record event ids as consumed before the next statement, whether or not they are new."""
    if ids := sorted(set(event_ids)):
        parameters = {"tenant_id": tenant_id, "consumer": consumer, "event_ids": ids}
        await send(connection, _INSERT_CONSUMED, parameters)
        if (notes := current_notes.get()) is not None:
            notes.has_consumed = True


class Consumer:
    """A durable pull consumer of one stream; its inbox records event ids under the same `name`.

    `apply(connection, tenant_id, batch)` gets the new events of one tenant in stream order, in the transaction that
    records their ids. `committed` is called after each commit.
    """

    def __init__(
        self,
        database: Database,
        broker: Broker,
        *,
        name: str,
        stream: str,
        filter_subjects: Sequence[str],
        apply: Apply,
        batch: int = 256,
        committed: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._database = database
        self._broker = broker
        self._stream = stream
        self._durable = Durable(stream, name, filter_subjects)
        self._apply = apply
        self._batch = batch
        self._committed = committed
        # A replay runs beside consumption, and what `apply` leaves for `committed` belongs to one transaction at a time.
        self._applying = asyncio.Lock()
        # Failed attempts by stream sequence, without those that failed because a server was away.
        self._attempts: dict[int, int] = {}

    async def run(self) -> None:
        """Consume for ever; after any error, wait and go on."""
        failures = 0
        while True:
            try:
                await self._broker.ready()
                client = self._broker.client
                await self._durable.ensure(client)
                async with (
                    running(self._durable.watch(client)),
                    self._answering_replays(client),
                    pulling(client, self._stream, self.name, self._batch) as pull,
                ):
                    pace = Pace()
                    while True:
                        messages = await pull.next_batch()
                        with pace.working():
                            await self._consume(messages)
                        failures = 0
                        await asyncio.sleep(pace.gathering_seconds())
            except Exception as error:  # noqa: BLE001 - nothing may end the consumer
                failures += 1
                wait = backoff(failures, first=_RETRY_DELAY, longest=_LONGEST_BACKOFF)
                _log.warning(
                    "consumer interrupted", consumer=self.name, error=repr(error), retry_seconds=wait
                )
                await asyncio.sleep(wait)

    async def _consume(self, messages: Sequence[Msg]) -> None:
        groups: dict[str, list[_Delivery]] = {}
        for raw in messages:
            try:
                received = decode(raw)
            except MalformedEventError as error:
                await self._dead_letter(raw, error, attempts=1)
                continue
            if received is None:
                await raw.ack()
                continue
            groups.setdefault(received.event.tenant_id, []).append(_Delivery(received, raw))
        late: TimeoutError | None = None
        # A tenant with few events does not wait for one with many; no event depends on another tenant's.
        for tenant_id, deliveries in sorted(groups.items(), key=lambda group: len(group[1])):
            try:
                await self._apply_group(tenant_id, deliveries)
            except TimeoutError as error:
                late = error
        if late is not None:
            raise late

    async def _apply_group(self, tenant_id: str, deliveries: Sequence[_Delivery]) -> None:
        try:
            await self._apply_in_transaction(tenant_id, [delivery.received for delivery in deliveries])
        except TimeoutError:
            if len(deliveries) == 1:
                raise
            # They may be too many for one transaction. Tried together again, they would block all tenants for ever.
            half = len(deliveries) // 2
            await self._apply_group(tenant_id, deliveries[:half])
            await self._apply_group(tenant_id, deliveries[half:])
        except Exception as error:
            if isinstance(error, UnavailableError) or getattr(error, "reason", "") == FULL:
                raise  # not the event's fault and no attempt: consuming waits until the database is back, or has room
            if len(deliveries) > 1:
                _log.warning("group failed, replayed one by one", consumer=self.name, error=repr(error))
                for delivery in deliveries:
                    await self._apply_group(tenant_id, [delivery])
                return
            await self._fail(deliveries[0], error)
        else:
            for delivery in deliveries:
                self._attempts.pop(delivery.raw.metadata.sequence.stream, None)
                await delivery.raw.ack()

    async def _apply_in_transaction(self, tenant_id: str, batch: Sequence[Received]) -> bool:
        """Apply the events that were not applied before; return whether any were."""
        async with self._applying:
            return await self._apply_alone(tenant_id, batch)

    async def _apply_alone(self, tenant_id: str, batch: Sequence[Received]) -> bool:
        async with asyncio.timeout(_APPLY_TIMEOUT), self._database.transaction(tenant_id) as connection:
            new = await insert_consumed(
                connection, tenant_id, self.name, (item.event.event_id for item in batch)
            )
            fresh: list[Received] = []
            for item in batch:
                if item.event.event_id in new:
                    new.discard(item.event.event_id)  # the same event twice in one batch
                    fresh.append(item)
            if fresh:
                await self._apply(connection, tenant_id, fresh)
        if fresh and self._committed is not None:
            self._committed()
        return bool(fresh)

    async def _fail(self, delivery: _Delivery, error: Exception) -> None:
        sequence = delivery.raw.metadata.sequence.stream
        attempts = self._attempts[sequence] = self._attempts.get(sequence, 0) + 1
        _log.warning(
            "event failed",
            consumer=self.name,
            event_id=delivery.received.event.event_id,
            type=delivery.received.event.type,
            attempts=attempts,
            exc_info=error,
        )
        if attempts < _MAXIMUM_ATTEMPTS:
            await delivery.raw.nak(delay=_RETRY_DELAY * attempts)
            return
        await self._dead_letter(delivery.raw, error, attempts)
        self._attempts.pop(sequence, None)

    async def _dead_letter(self, raw: Msg, error: Exception, attempts: int) -> None:
        """Store a message with its error as a dead letter, then tell the broker not to deliver it again."""
        sequence = raw.metadata.sequence.stream
        headers = dead_letters.headers_of(
            self.name, self._stream, sequence, raw.subject, raw.headers, error, attempts
        )
        subject = dead_letters.subject_of(self.name, raw.subject)
        await self._broker.jetstream.publish(subject, raw.data, headers=headers)
        await raw.term()
        _log.error("event dead-lettered", consumer=self.name, subject=raw.subject, error=repr(error))

    @asynccontextmanager
    async def _answering_replays(self, client: Client) -> AsyncIterator[None]:
        """Replay dead letters on request while the block runs; one replica answers each request."""
        subscription = await client.subscribe(
            dead_letters.replay_subject(self.name), queue=self.name, cb=self._answer_replay
        )
        try:
            yield
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _answer_replay(self, request: Msg) -> None:
        if not dead_letters.is_operators(request.reply):
            # An answer anywhere else would be published with this service's rights.
            _log.debug("request for a replay ignored: its answer goes to no operator", consumer=self.name)
            return
        try:
            replay = await self._replay(int(request.data))
        except Exception as error:  # noqa: BLE001 - the operator gets every error
            _log.warning("dead letter not replayed", consumer=self.name, error=repr(error))
            replay = Replay("failed", dead_letters.describe(error))
        await request.respond(replay.encode())

    async def _replay(self, number: int) -> Replay:
        """Apply a dead letter's event unless it was applied before; the operator removes the dead letter then."""
        letter = await dead_letters.find_dead_letter(self._broker.jetstream, number)
        if letter is None or letter.consumer != self.name:
            return Replay("gone")
        if letter.stored_subject != dead_letters.subject_of(self.name, letter.subject):
            raise MalformedEventError(
                f"{letter.stored_subject} is not where this consumer stores events of {letter.subject}"
            )
        received = decode_event(letter.subject, dict(letter.headers), letter.payload)
        if received is None:
            raise MalformedEventError(f"this release does not know the type {letter.type}")
        is_new = await self._apply_in_transaction(received.event.tenant_id, [received])
        _log.info("dead letter replayed", consumer=self.name, event_id=letter.event_id, is_new=is_new)
        return Replay("applied" if is_new else "applied before")


def decode(raw: Msg) -> Received | None:
    """Return the event of a broker's message; see `decode_event`."""
    return decode_event(raw.subject, raw.headers or {}, raw.data)


def decode_event(subject: str, headers: dict[str, str], payload: bytes) -> Received | None:
    """Return the event, or None for a type that only a newer release knows.

    Raises:
        MalformedEventError: The headers are not those of an event, or the payload is not of the event's type.
    """
    event = event_of(subject, headers, payload)
    try:
        kind = symbol_database.Default().GetSymbol(event.type)
    except KeyError:
        _log.debug("event of an unknown type ignored", type=event.type)
        return None
    try:
        return Received(event, kind.FromString(payload))
    except DecodeError as error:
        raise MalformedEventError(f"payload is not a {event.type}") from error
