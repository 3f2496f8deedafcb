"""The formats of texts that several programs read: names, dates, ids, references to code."""

from __future__ import annotations

import datetime as dt
import re
import uuid

CODE_REF = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")
CALLED_NAME = re.compile(r"[A-Z][A-Z0-9_]*")  # of an operator or macro that expressions call
PARAMETER_NAME = re.compile(r"[a-z][a-z0-9_]*")  # of an operator or macro


def read_date(text: str) -> dt.date:
    """Read a date that is written YYYY-MM-DD.

    Raises:
        ValueError: The text has another format, or there is no such day.
    """
    date = dt.date.fromisoformat(text)
    if date.isoformat() != text:  # Python reads other forms of ISO 8601 too
        raise ValueError(f"{text!r} is not a date of the form YYYY-MM-DD")
    return date


def is_date(text: str) -> bool:
    """Return whether a text is a date, written YYYY-MM-DD."""
    try:
        read_date(text)
    except ValueError:
        return False
    return True


def is_id(text: str) -> bool:
    """Return whether a text is an id, in any notation of a UUID; any other text is a name."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
