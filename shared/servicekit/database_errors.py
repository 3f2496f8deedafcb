"""Convert the errors of the database into errors for callers."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from servicekit.errors import (
    AbortedError,
    DeadlineExceededError,
    DomainError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from servicekit.shares import database_busy

_CONFLICT = (AbortedError, "CONCURRENT_UPDATE", "a concurrent change got in between; retry")
_BUSY = (UnavailableError, "DATABASE_BUSY", "the database is busy; retry")
_TOO_SLOW = (DeadlineExceededError, "STATEMENT_TIMEOUT", "a database statement took too long")
_AWAY = (UnavailableError, "DATABASE_UNAVAILABLE", "the database does not answer; retry")
FULL = "DATABASE_FULL"  # the reason of the error
_FULL = (
    ResourceExhaustedError,
    FULL,
    "the database has no room on its disk; free space, then retry",
)
# With this state a trigger refuses for now: its message is for the caller, and its detail is the reason.
REFUSED_FOR_NOW = "OPT01"
_MEANINGS: dict[str, tuple[type[DomainError], str, str]] = {
    "40001": _CONFLICT,  # serialization failure
    "40P01": _CONFLICT,  # deadlock
    "55P03": _BUSY,  # lock not available
    "53000": _BUSY,  # insufficient resources
    "53100": _FULL,
    "53200": _BUSY,  # out of memory
    "53300": _BUSY,  # too many connections
    "53400": _BUSY,  # a configured limit
    "57014": _TOO_SLOW,  # cancelled by statement_timeout
    "58000": _AWAY,  # system error
    "58030": _AWAY,  # input or output error
}


def domain_error_of(error: Exception) -> DomainError | None:
    """Convert a database error into an error for the caller; return None for a fault of our own."""
    if isinstance(error, PoolTimeoutError):
        return database_busy()
    origin = error.orig if isinstance(error, DBAPIError) else error
    return _error_of(origin) if isinstance(origin, psycopg.Error) else None


def _error_of(origin: psycopg.Error) -> DomainError | None:
    if origin.sqlstate == REFUSED_FOR_NOW:
        return UnavailableError(origin.diag.message_detail or "", origin.diag.message_primary or "")
    if isinstance(origin, psycopg.DataError):
        return InvalidArgumentError(
            "INVALID_ARGUMENT",
            "a value of the request is out of range or no valid text, so it cannot be stored",
        )
    meaning = _MEANINGS.get(origin.sqlstate or "")
    if meaning is not None:
        kind, reason, message = meaning
        return kind(reason, message)
    is_lost = origin.sqlstate is None or origin.sqlstate.startswith(("08", "57P"))
    if is_lost and isinstance(origin, psycopg.OperationalError | psycopg.InterfaceError):
        kind, reason, message = _AWAY
        return kind(reason, message)
    return None
