"""Have what the child's code logs keep its level and its logger: each record is printed as one, for the guardian."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from typing import Any

import structlog

from worker.run_lines import Line, pack

_STANDARD_OUTPUT = 1
_CHATTY = ("alembic", "nats", "asyncio", "httpx")


class _Printer(logging.Handler):
    """A handler that prints records where user code does not reach it, even if it puts another stream at its place."""

    def __init__(self) -> None:
        super().__init__()
        self._descriptor = os.dup(_STANDARD_OUTPUT)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = pack(Line(record.levelno, record.name, self.format(record)))
            while line:
                line = line[os.write(self._descriptor, line) :]
        except Exception:  # noqa: BLE001 - as every handler
            self.handleError(record)


def configure(level: str) -> None:
    """Print the records of the standard library and of structlog, and warnings as records."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _render,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_Printer()]
    root.setLevel(level.upper())
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)


def _render(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> str:
    """Return an entry of structlog as a text for readers."""
    event, exception = entry.pop("event", ""), entry.pop("exception", "")
    values = " ".join(f"{name}={value}" for name, value in entry.items())
    return "\n".join(part for part in (f"{event} {values}".rstrip(), exception) if part)
