"""Logs are JSON lines that name the request they belong to."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from servicekit import context
from servicekit.context import RequestContext
from servicekit.logging import LONGEST_LINE
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


@pytest.mark.parametrize(
    "values",
    [
        {"text": "e" * 10_000_000},
        {"text": "\N{MUSICAL SYMBOL G CLEF}" * 100_000},
        {"texts": ["e" * 100] * 10_000},
        {"mapping": {str(n): "x" for n in range(10_000)}},
        {f"field_{n}": "x" * 1_000 for n in range(100)},
        {f"field_{n}" * 100: n for n in range(200)},
        {f"number_{n}": 10**4_000 for n in range(3)},
        {"other": Path("p" * 100_000)},
    ],
    ids=["text", "escaped", "list", "mapping", "many fields", "long names", "numbers", "object"],
)
def test_a_long_line_is_cut_with_a_notice(output: io.StringIO, values: dict[str, Any]) -> None:
    structlog.get_logger("sample").info("refused", **values)
    (line,) = lines(output)
    assert len(output.getvalue().encode()) <= LONGEST_LINE + 1
    assert line["event"] == "refused"
    assert line["service"] == "sample-service"
    assert "left out" in output.getvalue() or "left_out" in output.getvalue()


def test_a_long_line_of_a_library_is_cut(output: io.StringIO) -> None:
    logging.getLogger("other").warning("cannot read %s", "x" * 1_000_000)
    assert len(output.getvalue()) <= LONGEST_LINE + 1


def test_a_cut_line_keeps_both_ends_of_a_traceback(output: io.StringIO) -> None:
    structlog.get_logger("sample").error("failed", exc_info=ValueError("x" * 100_000 + " the end"))
    (line,) = lines(output)
    assert str(line["exception"]).startswith("ValueError: xxx")
    assert str(line["exception"]).endswith("the end")


def test_a_secret_is_hidden_wherever_the_line_is_cut(
    output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTAIC_SECRET_A", "k4n4rie-of-the-mine")
    for length in range(4000, 4200, 3):
        text = "x" * length + "k4n4rie-of-the-mine" + "y" * 20_000 + "k4n4rie-of-the-mine" + "x" * length
        structlog.get_logger("sample").info(text)
    assert "k4n4" not in output.getvalue()
    assert "mine" not in output.getvalue()
