"""Events carry who, what and when in their headers, and lie about none of it."""

import dataclasses

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from servicekit import context
from servicekit.context import RequestContext
from servicekit.errors import InvalidArgumentError
from servicekit.events import Event, MalformedEventError, event_of, headers_of, make_event
from servicekit.ids import new_id
from support.clock import FakeClock


def event_for(tenant_id: str, resource_id: str = "r1") -> Event:
    message = StringValue(value="x")
    return make_event("sample", tenant_id, message, "created", resource_id, FakeClock(), new_id)


def test_an_event_describes_its_message_completely() -> None:
    event = event_for("acme")
    assert event.subject == "optaic.acme.protobuf.created.r1"
    assert event.type == "google.protobuf.StringValue"
    assert event.source == "/optaic/sample-service"
    assert event.time == FakeClock().now()
    assert event.token == f"protobuf/{event.event_id}"
    assert StringValue.FromString(event.payload).value == "x"


def test_an_event_made_while_serving_continues_the_trace() -> None:
    request = RequestContext("acme", "ada", "1", context.new_traceparent())
    assert event_for("acme").traceparent != request.traceparent
    with context.bind(request):
        assert event_for("acme").traceparent == request.traceparent
        assert event_for("rival").traceparent == request.traceparent
        assert event_for("rival").tenant_id == "rival"


@pytest.mark.parametrize("part", ["", "a.b", "*", ">", "a b", "ä"])
def test_a_part_that_would_change_the_subject_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        event_for("acme", part)
    with pytest.raises(ValueError, match="subject"):
        event_for(part)


def test_an_event_is_read_back_from_its_headers() -> None:
    event = event_for("acme")
    assert event_of(event.subject, headers_of(event), event.payload) == event


@pytest.mark.parametrize("header", ["ce-id", "ce-type", "ce-source", "ce-time", "ce-subject", "ce-tenantid"])
def test_an_event_without_a_header_is_malformed(header: str) -> None:
    event = event_for("acme")
    headers = headers_of(event)
    del headers[header]
    with pytest.raises(MalformedEventError, match=header):
        event_of(event.subject, headers, event.payload)


@pytest.mark.parametrize(
    "change", [{"tenant_id": "rival"}, {"subject": "optaic"}, {"subject": ""}, {"event_id": "1"}]
)
def test_an_event_that_contradicts_itself_is_malformed(change: dict[str, str]) -> None:
    event = dataclasses.replace(event_for("acme"), **change)  # type: ignore[arg-type]  # text fields only
    with pytest.raises(MalformedEventError):
        event_of(event.subject, headers_of(event), event.payload)


def test_an_event_that_no_broker_accepts_is_refused_before_it_is_written() -> None:
    with pytest.raises(InvalidArgumentError, match="larger"):
        make_event("sample", "acme", StringValue(value="x" * 1_000_000), "created", "r1", FakeClock(), new_id)
