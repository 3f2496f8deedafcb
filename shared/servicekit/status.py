"""Convert domain errors into google.rpc.Status and back; it decides no code and no reason."""

from __future__ import annotations

import functools
from collections.abc import Callable

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from redaction import redactor
from servicekit.errors import (
    ERRORS_BY_CODE,
    DomainError,
    FieldViolation,
    InternalError,
    PreconditionViolation,
)

DETAILS_KEY = "grpc-status-details-bin"
# gRPC clients refuse more than 8 kB of trailing metadata by default, our other keys included.
_MAXIMUM_BYTES = 6000
_MAXIMUM_TEXT = 1000
_MOST = 100  # violations of an answer, of each kind
_MAXIMUM_READ = 64 * 1024  # characters of a text; what is cut off is not looked at


def to_status(error: DomainError, domain: str) -> status_pb2.Status:
    """Convert an error into the rich status; ErrorInfo `omitted_violations` counts violations that do not fit."""
    # Each costs time to look through for secrets, and no more than these fit.
    fields, preconditions = list(error.field_violations[:_MOST]), list(error.preconditions[:_MOST])
    shorten = _shortener()
    while True:
        status = _status(error, domain, fields, preconditions, shorten)
        if status.ByteSize() <= _MAXIMUM_BYTES or not (fields or preconditions):
            return status
        del fields[len(fields) * 3 // 4 :], preconditions[len(preconditions) * 3 // 4 :]


def size_of(error: DomainError) -> int:
    """Return about how many characters of an error are searched for secrets."""
    fields, preconditions = error.field_violations[:_MOST], error.preconditions[:_MOST]
    return (
        len(error.message)
        + sum(len(each.field) + len(each.description) for each in fields)
        + sum(len(each.subject) + len(each.description) for each in preconditions)
    )


def encode_status(error: DomainError, domain: str) -> tuple[str, bytes]:
    """Return the message and the encoded details of an error; refusals of floods are alike, so they are kept."""
    if error.field_violations or error.preconditions:
        return _encode(error, domain)
    metadata = tuple(error.metadata.items())
    return _encode_plain(error.code, error.reason, error.message, metadata, error.retry_seconds, domain)


@functools.lru_cache(maxsize=256)
def _encode_plain(
    code: str,
    reason: str,
    message: str,
    metadata: tuple[tuple[str, str], ...],
    retry_seconds: float | None,
    domain: str,
) -> tuple[str, bytes]:
    return _encode(
        ERRORS_BY_CODE[code](reason, message, metadata=dict(metadata), retry_seconds=retry_seconds), domain
    )


def _encode(error: DomainError, domain: str) -> tuple[str, bytes]:
    status = to_status(error, domain)
    return status.message, status.SerializeToString()


def _status(
    error: DomainError,
    domain: str,
    fields: list[FieldViolation],
    preconditions: list[PreconditionViolation],
    shorten: Callable[[str], str],
) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=domain)
    for key, value in error.metadata.items():
        info.metadata[key[:64]] = shorten(value)
    omitted = len(error.field_violations) + len(error.preconditions) - len(fields) - len(preconditions)
    if omitted:
        info.metadata["omitted_violations"] = str(omitted)
    details: list[Message] = [info]
    if fields:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=shorten(violation.field),
                        description=shorten(violation.description),
                        reason=violation.reason,
                    )
                    for violation in fields
                ]
            )
        )
    if preconditions:
        details.append(
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type=violation.type,
                        subject=shorten(violation.subject),
                        description=shorten(violation.description),
                    )
                    for violation in preconditions
                ]
            )
        )
    if error.retry_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_seconds * 1e9))
        details.append(retry)
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.code),
        message=shorten(error.message),
    )
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _shortener() -> Callable[[str], str]:
    """Return a function that redacts a text and then cuts it; it searches equal texts once.

    If it cut first, it would not find a password of which only half is left.
    """
    redact = redactor()
    return functools.cache(lambda text: redact(text[:_MAXIMUM_READ])[:_MAXIMUM_TEXT])


def from_rpc_error(error: grpc.aio.AioRpcError) -> DomainError:
    """Convert the error of a failed call into the typed one, with all details that the server sent."""
    kind = ERRORS_BY_CODE.get(error.code().name, InternalError)
    reason, metadata = error.code().name, {}
    fields: list[FieldViolation] = []
    preconditions: list[PreconditionViolation] = []
    retry_seconds = None
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            fields += [
                FieldViolation(violation.field, violation.description, violation.reason)
                for violation in error_details_pb2.BadRequest.FromString(detail.value).field_violations
            ]
        elif detail.Is(error_details_pb2.PreconditionFailure.DESCRIPTOR):
            preconditions += [
                PreconditionViolation(violation.type, violation.subject, violation.description)
                for violation in error_details_pb2.PreconditionFailure.FromString(detail.value).violations
            ]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo.FromString(detail.value)
            retry_seconds = retry.retry_delay.ToNanoseconds() / 1e9
    return kind(
        reason,
        error.details() or "",
        metadata=metadata,
        field_violations=fields,
        preconditions=preconditions,
        retry_seconds=retry_seconds,
    )


def _details(error: grpc.aio.AioRpcError) -> list[AnyMessage]:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                break
    return []
