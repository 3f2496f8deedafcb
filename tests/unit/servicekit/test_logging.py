"""Logs are JSON lines that name the request they belong to."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from servicekit import context
from servicekit.context import RequestContext
from support.logs import logged_by


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    with logged_by("sample-service") as text:
        yield text


def lines(output: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_names_service_request_trace_and_tenant(output: io.StringIO) -> None:
    request = RequestContext("acme", "ada", "request-1", context.new_traceparent())
    with context.bind(request):
        structlog.get_logger("sample").info("done", count=3)
    structlog.get_logger("sample").debug("not shown")
    logging.getLogger("other").warning("from %s", "elsewhere")
    first, second = lines(output)
    assert first["event"] == "done"
    assert first["service"] == "sample-service"
    assert (first["tenant"], first["request_id"], first["count"]) == ("acme", "request-1", 3)
    assert first["trace_id"] == request.traceparent.split("-")[1]
    assert (second["event"], second["level"], second["service"]) == (
        "from elsewhere",
        "warning",
        "sample-service",
    )
    assert "tenant" not in second


def test_a_traceback_is_one_line(output: io.StringIO) -> None:
    structlog.get_logger("sample").error("failed", exc_info=ZeroDivisionError("by zero"))
    (line,) = lines(output)
    assert "ZeroDivisionError" in str(line["exception"])


def test_a_line_holds_no_secret(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_SECRET_A", "k4n4rie")
    url = "postgresql://reader:k4n4rie-2@db.example/prices"
    log = structlog.get_logger("sample")
    log.info(url, given={"a": [url]}, password="k4n4rie", path=Path("/k4n4rie"), other="a k4n4rie")
    log.error("failed", exc_info=ValueError(url))
    logging.getLogger("other").warning("cannot read %s", url)
    assert len(lines(output)) == 3
    assert output.getvalue().count("reader:***@db.example") == 4
    assert "k4n4rie" not in output.getvalue()
