"""Define the errors of the services as typed exceptions; no call is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class Violation:
    """One field that breaks a rule; `field` is its path inside the request."""

    field: str
    description: str
    reason: str = ""


@dataclass(frozen=True)
class Blocking:
    """One fact that must change first: `type` is its status or reason, `subject` names it."""

    type: str
    subject: str
    description: str


class OptaicError(Exception):
    """A refused call: canonical `code`, the service's `reason`, and all details that it sent.

    `retry_seconds` is how long the service asks to wait before the same call is made again; None if it does not say.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        blocking: Sequence[Blocking] = (),
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.blocking = tuple(blocking)
        self.retry_seconds = retry_seconds

    def __str__(self) -> str:
        details = [f"{each.field}: {each.description}" for each in self.violations]
        details += [f"{each.subject}: {each.description}" for each in self.blocking]
        return "\n  ".join([f"{self.message} ({self.reason})", *details])


class NotFoundError(OptaicError):
    """It does not exist for this tenant."""


class InvalidArgumentError(OptaicError):
    """The request is wrong; see `violations`."""


class InvalidConfigError(InvalidArgumentError):
    """The config does not satisfy the definition's schema; `violations` has every path."""


class InvalidExpressionError(InvalidArgumentError):
    """The expression does not parse or names something unknown."""


class AlreadyExistsError(OptaicError):
    """The name, the request id or the flow's one active run is taken."""


class FailedPreconditionError(OptaicError):
    """Something must change first; see `blocking`."""


class UpstreamNotReadyError(FailedPreconditionError):
    """Upstream flows are not READY: `blocking` names each of them and the reason."""


class MissingInputError(FailedPreconditionError):
    """An input has no version to read; `force` does not help."""


class ConflictError(OptaicError):
    """Somebody else was faster, for example a stale etag: read again, then retry."""


class UnauthenticatedError(OptaicError):
    """The token is not valid."""


class PermissionDeniedError(OptaicError):
    """The caller may not do this."""


class UnavailableError(OptaicError):
    """The service does not answer just now; the same call may be repeated."""


class DeadlineExceededError(OptaicError):
    """It took longer than the caller would wait."""


class OutOfRangeError(OptaicError):
    """The position is no longer kept or not reached yet, for example a compacted revision."""


class ResourceExhaustedError(OptaicError):
    """A limit is reached."""


class ArtifactCorruptError(OptaicError):
    """A file has another size or content than the run wrote."""


_BY_CODE: dict[grpc.StatusCode, type[OptaicError]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
}
_BY_REASON: dict[str, type[OptaicError]] = {
    "INVALID_CONFIG": InvalidConfigError,
    "INVALID_EXPRESSION": InvalidExpressionError,
    "UPSTREAM_NOT_READY": UpstreamNotReadyError,
    "MISSING_INPUT": MissingInputError,
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> OptaicError:
    """Return the typed error of a failed call, with all details that the service sent."""
    code = error.code()
    reason, metadata = code.name, {}
    violations: list[Violation] = []
    blocking: list[Blocking] = []
    retry_seconds = None
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            request = error_details_pb2.BadRequest.FromString(detail.value)
            violations += [
                Violation(each.field, each.description, each.reason) for each in request.field_violations
            ]
        elif detail.Is(error_details_pb2.PreconditionFailure.DESCRIPTOR):
            failure = error_details_pb2.PreconditionFailure.FromString(detail.value)
            blocking += [Blocking(each.type, each.subject, each.description) for each in failure.violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo.FromString(detail.value)
            retry_seconds = retry.retry_delay.ToNanoseconds() / 1e9
    refused = _typed(code, reason, error.details() or code.name, violations, metadata, blocking)
    refused.retry_seconds = retry_seconds
    return refused


def make_error(
    code: int, reason: str, message: str, violations: Sequence[Violation], blocking: Sequence[Blocking]
) -> OptaicError:
    """Return the typed error for a refused call, by its canonical code (google.rpc.Code)."""
    status = next((each for each in grpc.StatusCode if each.value[0] == code), grpc.StatusCode.UNKNOWN)
    return _typed(status, reason, message, violations, {}, blocking)


def _typed(
    code: grpc.StatusCode,
    reason: str,
    message: str,
    violations: Sequence[Violation],
    metadata: Mapping[str, str],
    blocking: Sequence[Blocking],
) -> OptaicError:
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, OptaicError)
    return kind(code, reason, message, violations, metadata, blocking)


def _details(error: grpc.aio.AioRpcError) -> list[status_pb2.Status]:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                break
    return []
