"""The refusals of the gateway itself, and how a refusal stands in JSON: as Connect writes it, with its details readable."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2  # noqa: F401 - its messages must be known, so that details can be read

from servicekit.errors import (
    DeadlineExceededError,
    DomainError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from servicekit.status import to_status

DOMAIN = "gateway.optaic"
_STATUSES = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "DEADLINE_EXCEEDED": HTTPStatus.GATEWAY_TIMEOUT,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ALREADY_EXISTS": HTTPStatus.CONFLICT,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "FAILED_PRECONDITION": HTTPStatus.BAD_REQUEST,
    "ABORTED": HTTPStatus.CONFLICT,
    "OUT_OF_RANGE": HTTPStatus.BAD_REQUEST,
    "UNIMPLEMENTED": HTTPStatus.NOT_IMPLEMENTED,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
}
# Where the reason says more than the code.
_STATUSES_OF_REASONS = {
    "HOST_NOT_SERVED": HTTPStatus.MISDIRECTED_REQUEST,
    "METHOD_NOT_ALLOWED": HTTPStatus.METHOD_NOT_ALLOWED,
    "UNSUPPORTED_MEDIA_TYPE": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "REQUEST_TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "HEADERS_TOO_LARGE": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "RANGE_NOT_SATISFIABLE": HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    "BODY_TIMEOUT": HTTPStatus.REQUEST_TIMEOUT,
    "NOT_ACCEPTABLE": HTTPStatus.NOT_ACCEPTABLE,
}


def http_status_of(error: DomainError) -> int:
    """Return the HTTP status of a refusal."""
    found = _STATUSES_OF_REASONS.get(error.reason) or _STATUSES.get(error.code)
    return int(found or HTTPStatus.INTERNAL_SERVER_ERROR)


def to_json(error: DomainError, domain: str = DOMAIN) -> bytes:
    """Return the body of a refusal."""
    status = to_status(error, domain)
    code = "canceled" if error.code == "CANCELLED" else error.code.lower()
    details = [
        {
            "type": detail.type_url.rpartition("/")[2],
            "value": b64encode(detail.value).decode().rstrip("="),
            "debug": readable(detail),
        }
        for detail in status.details
    ]
    return json.dumps({"code": code, "message": status.message, "details": details}).encode()


def readable(detail: AnyMessage) -> Mapping[str, Any]:
    """Return a detail as JSON, without its type; empty if its type is not known."""
    try:
        found = json_format.MessageToDict(detail)
    except TypeError:
        return {}
    found.pop("@type", None)
    return found


def host_not_served(host: str) -> DomainError:
    """Return the refusal of a Host that is not ours: a page elsewhere may have given its own name our address."""
    return PermissionDeniedError(
        "HOST_NOT_SERVED",
        f"the header Host names {host[:100]!r}, which this gateway does not serve; add the name to OPTAIC_HOSTS, "
        "or call the gateway by a name that is listed there",
    )


def origin_not_served() -> DomainError:
    """Return the refusal of a page of another origin."""
    return PermissionDeniedError(
        "ORIGIN_NOT_SERVED",
        "a page of another origin may not call this gateway; if the page is the gateway's own, and a proxy ends TLS or changes the name "
        "or the port, add the page's origin to OPTAIC_ORIGINS",
    )


def method_not_allowed(allowed: str) -> DomainError:
    """Return the refusal of an HTTP method."""
    return InvalidArgumentError("METHOD_NOT_ALLOWED", f"this path answers to {allowed} only")


def unsupported_media_type(allowed: str) -> DomainError:
    """Return the refusal of a content type."""
    return InvalidArgumentError(
        "UNSUPPORTED_MEDIA_TYPE", f"send the request with the header Content-Type: one of {allowed}"
    )


def no_such_path() -> DomainError:
    """Return the refusal of a path that leads nowhere."""
    return NotFoundError("PATH_NOT_FOUND", "nothing is served at this path; /openapi.json lists the paths")


def header_twice(name: str) -> DomainError:
    """Return the refusal of a header that may stand once."""
    return InvalidArgumentError("MALFORMED_REQUEST", f"the header {name} must stand once in the request")


def header_not_printable(name: str) -> DomainError:
    """Return the refusal of a header that gRPC does not take."""
    return InvalidArgumentError(
        "MALFORMED_REQUEST", f"the header {name[:100]!r} may have printable ASCII characters only"
    )


def no_token() -> DomainError:
    """Return the refusal of a call that names nobody."""
    return UnauthenticatedError(
        "UNAUTHENTICATED", "no token was sent; send the header `Authorization: Bearer <token>`"
    )


def too_large(limit: int) -> DomainError:
    """Return the refusal of a body that is too long."""
    return ResourceExhaustedError(
        "REQUEST_TOO_LARGE",
        f"the body has more than {limit} bytes, which is the most that this path reads; send less at once",
        metadata={"limit": str(limit)},
    )


def headers_too_large(limit: int) -> DomainError:
    """Return the refusal of headers that are too long."""
    return ResourceExhaustedError(
        "HEADERS_TOO_LARGE",
        f"the headers have more than {limit} bytes; send fewer or shorter ones",
        metadata={"limit": str(limit)},
    )


def body_timeout(seconds: float) -> DomainError:
    """Return the refusal of a body that does not come."""
    return InvalidArgumentError(
        "BODY_TIMEOUT", f"the body was not complete after {seconds:g} s; send the request again"
    )


def malformed(problem: str) -> DomainError:
    """Return the refusal of a body that is no request of its method."""
    return InvalidArgumentError(
        "MALFORMED_REQUEST", f"the body is no valid message of this method: {problem[:300]}"
    )


def too_many(what: str, limit: int, *, is_own: bool) -> DomainError:
    """Return the refusal of a call for which there is no place; `what` is calls, streams, reads, pages or bytes."""
    whose = "of yours are" if is_own else "are"
    return ResourceExhaustedError(
        f"TOO_MANY_{what.upper()}",
        f"{limit} {what} {whose} under way, and there may be no more; retry later",
        metadata={"limit": str(limit)},
        retry_seconds=1.0,
    )


def stream_too_old(seconds: float) -> DomainError:
    """Return the end of a stream that is as old as one may be."""
    return UnavailableError(
        "STREAM_TOO_OLD",
        f"a stream through the gateway lasts {seconds:g} s at most; open it again, from where this one ended",
    )


def no_data_root() -> DomainError:
    """Return the refusal of a file where the gateway does not know where data lies."""
    return FailedPreconditionError(
        "NO_DATA_ROOT",
        "this gateway serves no files; its operator sets OPTAIC_DATA_ROOT as run-service and the workers have it",
    )


def data_root_not_served(name: str) -> DomainError:
    """Return the refusal of a file below a folder of all data that this gateway does not serve."""
    return FailedPreconditionError(
        "DATA_ROOT_NOT_SERVED",
        f"the file {name!r} lies where the data of its tenant was moved to, and this gateway does not serve that; its operator adds "
        "the root to OPTAIC_FURTHER_DATA_ROOTS",
    )


def url_not_valid() -> DomainError:
    """Return the refusal of a signed URL; it does not say what is wrong with it."""
    return PermissionDeniedError(
        "URL_NOT_VALID", "this URL is not valid any more, or never was; ask for a new one (SignArtifactUrl)"
    )


def artifact_not_found(run_id: str, name: str) -> DomainError:
    """Return the refusal of a file that the run has not written into its own folder."""
    return NotFoundError(
        "ARTIFACT_NOT_FOUND",
        f"run {run_id} has no file {name!r}; take a name of its `artifact_manifest`",
    )


def artifact_not_readable(name: str) -> DomainError:
    """Return the refusal of a file that cannot be read now."""
    return UnavailableError(
        "ARTIFACT_NOT_READABLE",
        f"the file {name!r} cannot be read: it is not there any more, or its storage does not answer; retry later",
    )


def artifact_corrupt(name: str) -> DomainError:
    """Return the refusal of a file that is not the one that the run wrote."""
    return InternalError(
        "ARTIFACT_CORRUPT",
        f"the file {name!r} is not the one that the run wrote; run the flow again, or restore the file",
    )


def parameter(name: str, problem: str) -> DomainError:
    """Return the refusal of a parameter of a read."""
    return InvalidArgumentError(
        "INVALID_ARGUMENT",
        f"{name} {problem}",
        field_violations=[FieldViolation(name, problem, "INVALID_ARGUMENT")],
    )


def page_token() -> DomainError:
    """Return the refusal of a page token of another table, or with other parameters."""
    problem = "is no token of this table with these parameters; begin without a token"
    return InvalidArgumentError(
        "INVALID_PAGE_TOKEN",
        f"page_token {problem}",
        field_violations=[FieldViolation("page_token", problem, "INVALID_PAGE_TOKEN")],
    )


def not_acceptable(served: str) -> DomainError:
    """Return the refusal of formats that rows do not have."""
    return InvalidArgumentError(
        "NOT_ACCEPTABLE", f"rows are served as {served}; name one of them in the header Accept"
    )


def no_version(run_id: str) -> DomainError:
    """Return the refusal of data that a run has not written."""
    return NotFoundError(
        "VERSION_NOT_FOUND",
        f"run {run_id} has written no table in its flow's folder; take a completed run of a dataset, a signal, a prediction, an optimization "
        "or a preview, or one of its files (`/runs/<run id>/artifacts/<name>/rows`)",
    )


def store_not_read_here() -> DomainError:
    """Return the refusal of data that code of others keeps, which never runs in this process."""
    return FailedPreconditionError(
        "STORE_NOT_READ_HERE",
        "the store of this data is none of the built-in ones, and its code does not run in the gateway; read the data with the Python "
        "client on a machine that can reach it",
    )


def read_timeout(seconds: float) -> DomainError:
    """Return the end of a read that takes too long."""
    return DeadlineExceededError(
        "READ_TIMEOUT",
        f"the read was not done after {seconds:g} s; name fewer columns, or a shorter range of dates",
    )


def read_too_large() -> DomainError:
    """Return the end of a read that needs too much memory."""
    return FailedPreconditionError(
        "READ_TOO_LARGE", "the read needs more memory than one may have here; name fewer columns in `columns`"
    )


# The reasons of the process that reads a table.
_TABLE_ERRORS: Mapping[str, type[DomainError]] = {
    "ARTIFACT_CORRUPT": InternalError,
    "DATA_NOT_READABLE": UnavailableError,
    "INVALID_PAGE_TOKEN": InvalidArgumentError,
    "NOT_A_TABLE": FailedPreconditionError,
    "ROW_TOO_LARGE": FailedPreconditionError,
    "SCHEMA_MISMATCH": InvalidArgumentError,
    "STORE_NOT_READ_HERE": FailedPreconditionError,
    "VERSION_NOT_FOUND": NotFoundError,
}


def table_refused(reason: str, message: str, field: str) -> DomainError:
    """Return the refusal of a table by the process that reads it."""
    if reason == "READ_TOO_LARGE":
        return read_too_large()
    kind = _TABLE_ERRORS.get(reason)
    if kind is None:
        return internal()
    return kind(reason, message, field_violations=[FieldViolation(field, message, reason)] if field else ())


def no_such_range(size: int) -> DomainError:
    """Return the refusal of bytes that a file does not have."""
    return OutOfRangeError(
        "RANGE_NOT_SATISFIABLE",
        f"the file has {size} bytes; ask for some of them",
        metadata={"size": str(size)},
    )


def stopping() -> DomainError:
    """Return the refusal of a call that comes while the gateway stops."""
    return UnavailableError("SERVER_STOPPING", "the gateway is stopping; retry the same request")


def internal() -> DomainError:
    """Return what a caller may know of a fault of our own."""
    return InternalError("INTERNAL", "internal error; search the log of the gateway for this time")


def without_details(service: str, code: str) -> DomainError:
    """Return the refusal of a call that no service of ours has answered: gRPC says why, in words that name addresses."""
    if code == "DEADLINE_EXCEEDED":
        return DeadlineExceededError(
            "DEADLINE_EXCEEDED", "the call took longer than its deadline; retry with a longer one"
        )
    if code == "UNAVAILABLE":
        return UnavailableError(
            "DEPENDENCY_UNAVAILABLE", f"{service}-service does not answer; retry the same request later"
        )
    return InternalError("INTERNAL", f"{service}-service ended the call with {code} and said no more")
