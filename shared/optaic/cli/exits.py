"""The exit statuses of all commands; scripts rely on them."""

from __future__ import annotations

from enum import IntEnum

from optaic import errors


class Exit(IntEnum):
    """Exit statuses of a command. `optaic diff` has its own, as `diff` has."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    DENIED = 5
    UPSTREAM_NOT_READY = 6
    UNAVAILABLE = 7
    TIMEOUT = 8
    RUN_FAILED = 9
    CANCELLED = 10
    INTERRUPTED = 130  # as a shell says it of Ctrl+C


_OF_A_FILE = "APPLY_CONFLICT"  # each entry of the file has a reason of its own
_BY_ERROR: dict[type[errors.OptaicError], Exit] = {
    errors.NotFoundError: Exit.NOT_FOUND,
    errors.AlreadyExistsError: Exit.CONFLICT,
    errors.ConflictError: Exit.CONFLICT,
    errors.PermissionDeniedError: Exit.DENIED,
    errors.UnauthenticatedError: Exit.DENIED,
    errors.UpstreamNotReadyError: Exit.UPSTREAM_NOT_READY,
    errors.MissingInputError: Exit.UPSTREAM_NOT_READY,
    errors.UnavailableError: Exit.UNAVAILABLE,
    errors.DeadlineExceededError: Exit.TIMEOUT,
}


def exit_of(error: errors.OptaicError) -> Exit:
    """Return the exit status of a command that was refused."""
    if error.reason == _OF_A_FILE:
        return Exit.ERROR
    return next((status for kind, status in _BY_ERROR.items() if isinstance(error, kind)), Exit.ERROR)
