"""List dead letters and ask for their replay; a dead letter is an event that a consumer could not apply.

Only the consumer replays, because its service has the rights to apply the event.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from redaction import redact
from servicekit.broker import DEAD_LETTER_ROOT, DEAD_LETTERS, connected
from servicekit.errors import UnavailableError
from servicekit.tls import TlsFiles

INBOX = "_INBOX_OPERATOR"  # for answers to an operator; no other login may listen there
_REPLAY_ROOT = "optaic-replay"
_REPLAY_SECONDS = 150.0  # longer than a consumer takes for a batch and the event after it
_STREAM, _CONSUMER, _SUBJECT = "optaic-stream", "optaic-consumer", "optaic-subject"
_ERROR, _ATTEMPTS = "optaic-error", "optaic-attempts"
_LONGEST_ERROR = 1000  # characters
ReplayOutcome = Literal["applied", "applied before", "failed", "gone", "unanswered", "unknown"]


@dataclass(frozen=True)
class DeadLetter:
    """An event that a consumer could not apply; `number` is its position in the stream of dead letters."""

    number: int
    time: datetime | None
    consumer: str
    stream: str
    subject: str
    stored_subject: (
        str  # the only field that the broker checked: a login may store below its own consumers only
    )
    attempts: int  # 0 if an earlier release did not count them
    error: str
    headers: Mapping[str, str]
    payload: bytes

    @property
    def event_id(self) -> str:
        """Return the id of the event; empty if the message was no event."""
        return self.headers.get("ce-id", "")

    @property
    def type(self) -> str:
        """Return the full name of the event's message; empty if the message was no event."""
        return self.headers.get("ce-type", "")

    @property
    def tenant_id(self) -> str:
        """Return the tenant of the event; empty if the message was no event."""
        return self.headers.get("ce-tenantid", "")


@dataclass(frozen=True)
class Replay:
    """The outcome of a replay; the dead letter is kept unless its event was applied, now or before."""

    outcome: ReplayOutcome
    error: str = ""

    def encode(self) -> bytes:
        """Convert the outcome into the consumer's answer to the operator."""
        return json.dumps(asdict(self)).encode()


def describe(error: BaseException) -> str:
    """Convert an error into one line without secrets, for an operator."""
    text = f"{type(error).__name__}: {error}".replace("\r", " ").replace("\n", " ")
    return redact(text)[:_LONGEST_ERROR]


def subject_of(consumer: str, subject: str) -> str:
    """Return the subject under which a consumer keeps an event of a subject."""
    return f"{DEAD_LETTER_ROOT}.{consumer}.{subject}"


def headers_of(
    consumer: str,
    stream: str,
    sequence: int,
    subject: str,
    headers: Mapping[str, str] | None,
    error: BaseException,
    attempts: int,
) -> dict[str, str]:
    """Return the headers of a dead letter: those of the event, the consumer, and the error."""
    return {
        **(headers or {}),
        "Nats-Msg-Id": f"{consumer}/{stream}/{sequence}",
        _ERROR: describe(error),
        _ATTEMPTS: str(attempts),
        _STREAM: stream,
        _CONSUMER: consumer,
        _SUBJECT: subject,
    }


async def list_dead_letters(jetstream: JetStreamContext, consumer: str = "") -> AsyncIterator[DeadLetter]:
    """Yield the dead letters of a consumer, or all of them, the oldest first."""
    number = 1
    while True:
        letter = await _read(jetstream, number, subject_of(consumer or "*", ">"))
        if letter is None:
            return
        yield letter
        number = letter.number + 1


async def find_dead_letter(jetstream: JetStreamContext, number: int) -> DeadLetter | None:
    """Return the dead letter with a number, or None if there is none."""
    return await _read(jetstream, number)


async def _read(jetstream: JetStreamContext, number: int, subject: str | None = None) -> DeadLetter | None:
    try:
        found = await jetstream.get_msg(DEAD_LETTERS, seq=number, subject=subject, next=subject is not None)
    except nats.js.errors.NotFoundError:
        return None
    assert found.seq is not None
    headers: Mapping[str, str] = found.headers or {}
    counted = headers.get(_ATTEMPTS, "")
    return DeadLetter(
        number=found.seq,
        time=found.time,
        consumer=headers.get(_CONSUMER, ""),
        stream=headers.get(_STREAM, ""),
        subject=headers.get(_SUBJECT, ""),
        stored_subject=found.subject or "",
        attempts=int(counted) if counted.isdecimal() else 0,
        error=redact(headers.get(_ERROR, "")),  # earlier releases stored it unredacted
        headers=headers,
        payload=found.data or b"",
    )


async def remove_dead_letter(jetstream: JetStreamContext, number: int) -> None:
    """Remove a dead letter, unless another process has removed it."""
    try:
        await jetstream.delete_msg(DEAD_LETTERS, number)
    except nats.js.errors.APIError:
        if await find_dead_letter(jetstream, number) is not None:
            raise


def replay_subject(consumer: str) -> str:
    """Return the subject on which a consumer takes the numbers of dead letters that it is to replay."""
    return f"{_REPLAY_ROOT}.{consumer}"


def is_operators(reply: str) -> bool:
    """Return whether an answer to this subject goes to an operator's inbox."""
    return reply.startswith(f"{INBOX}.")


async def request_replay(client: Client, letter: DeadLetter, timeout: float = _REPLAY_SECONDS) -> Replay:  # noqa: ASYNC109 - the client's own
    """Ask the consumer of a dead letter to replay it, and remove it when its event is applied; return what became of it.

    No service may remove dead letters, so that none can remove those of another.
    """
    try:
        answer = await client.request(
            replay_subject(letter.consumer), str(letter.number).encode(), timeout=timeout
        )
    except nats.errors.NoRespondersError:
        return Replay("unanswered", f"no service with the consumer {letter.consumer} is connected to NATS")
    except (TimeoutError, nats.errors.Error) as error:
        return Replay("unknown", _unknown(letter.consumer, describe(error)))
    try:
        replay = Replay(**json.loads(answer.data))
    except (ValueError, TypeError):
        return Replay("unknown", _unknown(letter.consumer, "its answer cannot be read"))
    if replay.outcome in {"applied", "applied before"}:
        try:
            await remove_dead_letter(client.jetstream(), letter.number)
        except (OSError, nats.errors.Error) as error:
            text = f"the event is applied, but the dead letter is still there; replay it again ({describe(error)})"
            return Replay("failed", text)
    return replay


def _unknown(consumer: str, why: str) -> str:
    return f"consumer {consumer} may have applied the event; list the dead letters again ({why})"


class Operator:
    """The actions of an operator on dead letters, over one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, consumer: str = "") -> AsyncIterator[DeadLetter]:
        """Yield the dead letters of a consumer, or all of them, the oldest first."""
        return list_dead_letters(self._client.jetstream(), consumer)

    async def find(self, number: int) -> DeadLetter | None:
        """Return the dead letter with a number, or None if there is none."""
        return await find_dead_letter(self._client.jetstream(), number)

    async def replay(self, letter: DeadLetter) -> Replay:
        """Ask the consumer of a dead letter to replay it; return the outcome."""
        return await request_replay(self._client, letter)


@contextlib.asynccontextmanager
async def operating(url: str, tls: TlsFiles | None = None) -> AsyncIterator[Operator]:
    """Connect with a login that reads dead letters and asks for replays.

    Raises:
        UnavailableError: NATS does not answer.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            client, _ = await stack.enter_async_context(connected(url, INBOX, tls))
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise _unavailable(error) from error
        try:
            yield Operator(client)
        except nats.errors.Error as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(
        "BROKER_UNAVAILABLE",
        f"NATS does not answer, or does not let this login read dead letters: {describe(error)}",
    )
