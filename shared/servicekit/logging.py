"""Write log lines as JSON on stdout, with the request's ids and without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from redaction import redact, redact_value
from servicekit import context


def configure(level: str, service: str) -> None:
    """Send the structured log and the standard library's to stdout as JSON lines."""

    def add_request(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        entry["service"] = service
        request = context.current_or_none()
        if request is not None:
            entry["tenant"] = request.tenant_id
            entry["request_id"] = request.request_id
            entry["trace_id"] = request.traceparent.split("-")[1]
        return entry

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        add_request,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_secrets,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("alembic", "nats", "asyncio", "httpx"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def hide_secrets(record: logging.LogRecord) -> bool:
    """Hide secrets in a record; a filter for handlers of libraries, whose lines do not pass our processors."""
    text = record.getMessage()
    if (hidden := redact(text)) != text:
        record.msg, record.args = hidden, None
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    if record.exc_text:
        record.exc_text = redact(record.exc_text)
    return True


def _without_secrets(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    hidden: dict[str, Any] = redact_value({name: _plain(value) for name, value in entry.items()})
    return hidden


def _plain(value: Any) -> Any:
    """Convert a value into what the JSON renderer would write."""
    is_known = value is None or isinstance(value, str | int | float | Mapping | list | tuple)
    return value if is_known else repr(value)
