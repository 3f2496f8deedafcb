"""Define the typed errors that domain rules raise and every client can read.

It imports the standard library only, so that a service's domain may import it; grpc never belongs here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

# What an error says in place of the name of something that the caller may not read, and why.
HIDDEN = "hidden"
HIDDEN_BECAUSE = "it is in a project that you may not read"


@dataclass(frozen=True)
class FieldViolation:
    """A field that breaks a rule; `field` is its path inside the request."""

    field: str
    description: str
    reason: str = ""


@dataclass(frozen=True)
class PreconditionViolation:
    """A fact that must change before the call can succeed; `type` is the reason, `subject` names the resource."""

    type: str
    subject: str
    description: str


class DomainError(Exception):
    """An expected refusal: canonical `code`, a `reason` of the package's ErrorReason, and details.

    `retry_seconds` is how long the caller should wait before it asks again. An error that names instances says which it is
    `about`, and `without` returns it without the names of some of them, for a caller that may not read these.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        field_violations: Sequence[FieldViolation] = (),
        preconditions: Sequence[PreconditionViolation] = (),
        retry_seconds: float | None = None,
        about: Collection[str] = (),
        without: Callable[[Collection[str]], DomainError] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.field_violations = tuple(field_violations)
        self.preconditions = tuple(preconditions)
        self.retry_seconds = retry_seconds
        self.about = about
        self.without = without

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason!r}, {self.message!r})"


class NotFoundError(DomainError):
    """The named resource does not exist for this tenant."""

    code = "NOT_FOUND"


class InvalidArgumentError(DomainError):
    """The request is wrong in every state of the system."""

    code = "INVALID_ARGUMENT"


class AlreadyExistsError(DomainError):
    """The name or the request id is taken."""

    code = "ALREADY_EXISTS"


class FailedPreconditionError(DomainError):
    """The state of the system must change before the request can succeed."""

    code = "FAILED_PRECONDITION"


class AbortedError(DomainError):
    """A concurrent change came first (the etag is stale): read again, then retry."""

    code = "ABORTED"


class PermissionDeniedError(DomainError):
    """The caller is known and may not do this."""

    code = "PERMISSION_DENIED"


class UnauthenticatedError(DomainError):
    """The caller is not known."""

    code = "UNAUTHENTICATED"


class UnavailableError(DomainError):
    """A server that is needed does not answer just now; it is safe to retry the same request."""

    code = "UNAVAILABLE"


class OutOfRangeError(DomainError):
    """The requested position is no longer kept."""

    code = "OUT_OF_RANGE"


class ResourceExhaustedError(DomainError):
    """A limit is reached."""

    code = "RESOURCE_EXHAUSTED"


class UnimplementedError(DomainError):
    """The operation is not offered."""

    code = "UNIMPLEMENTED"


class DeadlineExceededError(DomainError):
    """The call's time is over; its effect is unknown."""

    code = "DEADLINE_EXCEEDED"


class InternalError(DomainError):
    """A fault of the service itself."""

    code = "INTERNAL"


ERRORS_BY_CODE: dict[str, type[DomainError]] = {kind.code: kind for kind in DomainError.__subclasses__()}
