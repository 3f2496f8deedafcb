"""Write log lines as JSON on stdout, with the request's ids, without secrets, and never longer than 8 kB."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from redaction import redact, redact_value
from servicekit import context
from servicekit.shortening import shorten

LONGEST_LINE = 8192  # bytes
# Secrets are searched in longer texts than are shown, so that none is cut to something that looks like no secret.
_SEARCHED = 2 * LONGEST_LINE
_LENGTHS = (4096, 1024, 256, 64)  # characters of each value: the first with which the line fits is taken
_MOST_VALUES = 32
_ALWAYS = ("event", "level", "logger", "service", "timestamp", "tenant", "actor", "request_id", "trace_id")
_MOST_BITS = 1024  # of a number
_write = structlog.processors.JSONRenderer()


def configure(level: str, service: str) -> None:
    """Send the structured log and the standard library's to stdout as JSON lines."""

    def add_request(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        entry["service"] = service
        request = context.current_or_none()
        if request is not None:
            entry["tenant"] = request.tenant_id
            entry["actor"] = request.actor
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
                _render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("alembic", "nats", "asyncio", "httpx"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def hide_secrets(record: logging.LogRecord) -> bool:
    """Hide secrets in a record and shorten it; a filter for handlers of libraries, whose lines do not pass our processors."""
    text = record.getMessage()
    if (shown := _shown(text)) != text:
        record.msg, record.args = shown, None
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    if record.exc_text:
        record.exc_text = _shown(record.exc_text)
    return True


def _shown(text: str) -> str:
    return shorten(redact(shorten(text, _SEARCHED)), LONGEST_LINE // 2)


def _without_secrets(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    plain = {name: _within(value, _SEARCHED) for name, value in entry.items()}
    hidden: dict[str, Any] = redact_value(plain)
    return hidden


def _render(logger: Any, method: str, entry: MutableMapping[str, Any]) -> str | bytes:
    """Return the entry as one line of at most LONGEST_LINE bytes; a shortened value says how much is missing."""
    line = _write(logger, method, entry)
    lengths = iter(_LENGTHS)
    while len(line) > LONGEST_LINE and (longest := next(lengths, 0)):  # ASCII, so characters are bytes
        line = _write(logger, method, {name: _within(value, longest) for name, value in entry.items()})
    if len(line) > LONGEST_LINE:
        names = [
            *(name for name in _ALWAYS if name in entry),
            *(name for name in entry if name not in _ALWAYS),
        ]
        kept = {
            shorten(name, _LENGTHS[-1]): _within(entry[name], _LENGTHS[-1]) for name in names[:_MOST_VALUES]
        }
        line = _write(logger, method, {**kept, "values_left_out": max(0, len(names) - _MOST_VALUES)})
    return line


def _within(value: Any, longest: int) -> Any:
    """Convert a value into what the JSON renderer would write, as text where it has more than `longest` characters."""
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return shorten(hex(value), longest)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return shorten(value, longest)
    if not isinstance(value, Mapping | list | tuple):
        return shorten(repr(value), longest)
    text = json.dumps(value, default=repr)
    return value if len(text) <= longest else shorten(text, longest)
