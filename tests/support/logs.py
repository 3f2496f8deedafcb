"""What a service logs, as a text."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from servicekit import logging as service_logging


@contextmanager
def logged_by(service: str, level: str = "info") -> Iterator[io.StringIO]:
    """Log as this service does, into what is yielded; afterwards everything logs as the tests do."""
    root, config = logging.getLogger(), structlog.get_config()
    handlers, root_level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        with contextlib.redirect_stdout(stream):
            service_logging.configure(level, service)
            # Or what logs here for the first time would go on to log as this service does.
            structlog.configure(cache_logger_on_first_use=False)
            yield stream
    finally:
        root.handlers, root.level = handlers, root_level
        structlog.configure(**config)
