"""Domain errors survive the wire, and never outgrow it."""

import grpc
import pytest
from grpc.aio import Metadata

from servicekit.errors import (
    ERRORS_BY_CODE,
    DomainError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    PreconditionViolation,
)
from servicekit.status import from_rpc_error, to_status


def sent(error: DomainError) -> DomainError:
    """Return the error as a client reads it."""
    status = to_status(error, "optaic.sample")
    trailer = Metadata(("x-request-id", "1"), ("grpc-status-details-bin", status.SerializeToString()))
    code = grpc.StatusCode[error.code]
    return from_rpc_error(grpc.aio.AioRpcError(code, Metadata(), trailer, status.message))


@pytest.mark.parametrize("code", sorted(ERRORS_BY_CODE))
def test_every_error_survives_the_conversion_to_a_status_and_back(code: str) -> None:
    error = ERRORS_BY_CODE[code](
        "REASON",
        "a message",
        metadata={"key": "value"},
        field_violations=[FieldViolation("a.b", "is wrong", "WRONG")],
        preconditions=[PreconditionViolation("STALE", "flow", "is stale")],
    )
    arrived = sent(error)
    assert type(arrived) is type(error)
    for name in ("reason", "message", "metadata", "field_violations", "preconditions"):
        assert getattr(arrived, name) == getattr(error, name)


def test_every_grpc_code_that_means_failure_has_an_error_or_is_internal() -> None:
    for code in grpc.StatusCode:
        arrived = from_rpc_error(grpc.aio.AioRpcError(code, Metadata(), Metadata(), "text"))
        assert isinstance(arrived, ERRORS_BY_CODE.get(code.name, InternalError))
        assert arrived.reason == code.name


def test_damaged_details_leave_the_code_and_the_text() -> None:
    trailer = Metadata(("grpc-status-details-bin", b"\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, Metadata(), trailer, "gone")
    assert from_rpc_error(error).message == "gone"


def test_a_long_list_of_violations_is_cut_to_the_size_that_every_client_accepts() -> None:
    violations = [FieldViolation(f"config.field{number}", "is wrong " * 5) for number in range(1000)]
    error = InvalidArgumentError(
        "INVALID", "x" * 5000, field_violations=violations, metadata={"k": "v" * 5000}
    )
    assert to_status(error, "optaic.sample").ByteSize() <= 6000
    arrived = sent(error)
    kept = len(arrived.field_violations)
    assert kept > 10
    assert arrived.field_violations == tuple(violations[:kept])
    assert int(arrived.metadata["omitted_violations"]) == 1000 - kept


def test_a_status_holds_no_credentials_even_where_its_text_is_cut() -> None:
    url = "postgresql://reader:k4n4rie@db.example/prices"
    error = InvalidArgumentError(
        "INVALID_CONFIG",
        f"{'x' * 975}{url}",
        metadata={"url": url},
        field_violations=[FieldViolation("config.url", f"{'x' * 970} {url}", "INVALID_CONFIG")],
    )
    sent = to_status(error, "optaic.test").SerializeToString()
    assert b"k4n" not in sent
    assert b"reader:***@db.example" in sent
