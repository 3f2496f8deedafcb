"""Convert a message into a CloudEvent (binary mode) on a subject, and back.

It neither publishes nor stores nor interprets an event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import Message

from redaction.messages import without_credentials
from servicekit import context
from servicekit.clock import Clock
from servicekit.errors import FieldViolation, InvalidArgumentError
from servicekit.ids import IdSource, is_id

BATCH = "batch"
MAXIMUM_PAYLOAD = 900_000  # brokers take a megabyte by default, headers included
MAXIMUM_RESOURCE = 512_000  # services add fields to a resource, and its deletion is an event too
_TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]+")


class MalformedEventError(ValueError):
    """A message on one of our subjects is not a valid event."""


@dataclass(frozen=True)
class Event:
    """An event, as the outbox stores it and the broker sends it."""

    event_id: str
    tenant_id: str
    subject: str
    type: str
    source: str
    resource_id: str
    time: datetime
    payload: bytes
    traceparent: str

    @property
    def token(self) -> str:
        """Return the read-your-writes token, `<package>/<event id>`; the package tells which services consume it."""
        return f"{self.subject.split('.')[2]}/{self.event_id}"


def make_event(
    service: str,
    tenant_id: str,
    message: Message,
    participle: str,
    resource_id: str,
    clock: Clock,
    ids: IdSource,
) -> Event:
    """Wrap a message of package `<root>.<package>.v<n>`; `service` is the short name of the publisher.

    An event that is made while a request is served continues the trace of the request.

    Raises:
        ValueError: The tenant, participle or resource id cannot be part of a subject.
        InvalidArgumentError: The message is larger than what the broker takes.
    """
    request = context.current_or_none()
    _, _, package = message.DESCRIPTOR.file.package.partition(".")
    for token in (tenant_id, participle, resource_id):
        if not _TOKEN_PATTERN.fullmatch(token):
            raise ValueError(f"{token!r} cannot be part of a subject")
    # URLs in its texts lose their credentials.
    payload = without_credentials(message).SerializeToString()
    if len(payload) > MAXIMUM_PAYLOAD:
        # The relay could never publish it.
        raise InvalidArgumentError(
            "TOO_LARGE", f"the resource is larger than the {MAXIMUM_PAYLOAD} bytes that an event may have"
        )
    return Event(
        event_id=ids(),
        tenant_id=tenant_id,
        subject=f"optaic.{tenant_id}.{package}.{participle}.{resource_id}",
        type=message.DESCRIPTOR.full_name,
        source=f"/optaic/{service}-service",
        resource_id=resource_id,
        time=clock.now(),
        payload=payload,
        traceparent=request.traceparent if request else context.new_traceparent(),
    )


def check_size(resource: Message, path: str) -> None:
    """Refuse a resource so large that a later event with it could exceed the broker's limit.

    Raises:
        InvalidArgumentError: It is too large.
    """
    size = resource.ByteSize()
    if size > MAXIMUM_RESOURCE:
        text = f"has {size} bytes; at most {MAXIMUM_RESOURCE} are allowed"
        violation = FieldViolation(path, text, "TOO_LARGE")
        raise InvalidArgumentError("TOO_LARGE", f"{path}: {text}", field_violations=[violation])


def headers_of(event: Event) -> dict[str, str]:
    """Return the CloudEvents headers of an event, with the id by which the broker deduplicates."""
    return {
        "ce-id": event.event_id,
        "ce-specversion": "1.0",
        "ce-type": event.type,
        "ce-source": event.source,
        "ce-time": event.time.isoformat(),
        "ce-subject": event.resource_id,
        "ce-tenantid": event.tenant_id,
        "traceparent": event.traceparent,
        "content-type": "application/protobuf",
        "Nats-Msg-Id": event.event_id,
    }


def event_of(subject: str, headers: Mapping[str, str], payload: bytes) -> Event:
    """Convert a broker's message back into an event.

    Raises:
        MalformedEventError: A header is missing or wrong, or the tenant is not the subject's.
    """
    try:
        event = Event(
            event_id=headers["ce-id"],
            tenant_id=headers["ce-tenantid"],
            subject=subject,
            type=headers["ce-type"],
            source=headers["ce-source"],
            resource_id=headers["ce-subject"],
            time=datetime.fromisoformat(headers["ce-time"]),
            payload=payload,
            traceparent=headers.get("traceparent", ""),
        )
    except (KeyError, ValueError) as error:
        raise MalformedEventError(f"header {error} of the event is missing or wrong") from error
    if not is_id(event.event_id):
        raise MalformedEventError(f"event id {event.event_id!r} is not a UUID")
    parts = subject.split(".")
    if len(parts) < 2 or parts[1] != event.tenant_id or not context.is_tenant_id(event.tenant_id):  # noqa: PLR2004 - the root and the tenant
        raise MalformedEventError(f"tenant {event.tenant_id!r} is not the one of subject {subject!r}")
    return event
