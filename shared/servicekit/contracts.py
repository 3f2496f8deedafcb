"""Parse a message, and check it against the rules that its proto declares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import protovalidate
from google.protobuf.message import DecodeError, Message

from servicekit.errors import FieldViolation, InvalidArgumentError
from servicekit.texts import NUL, find_nul

_NUL = NUL.encode()


def parse(deserialize: Callable[[bytes], Any], raw: bytes) -> Any:
    """Return the message that a caller sent.

    Raises:
        InvalidArgumentError: MALFORMED_REQUEST.
    """
    try:
        return deserialize(raw)
    except DecodeError as error:
        raise InvalidArgumentError(
            "MALFORMED_REQUEST", "the request is no valid message of this method"
        ) from error


def check_contract(message: Message, raw: bytes | None = None) -> None:
    """Refuse a message that breaks a rule; `raw` holds the bytes that it was parsed from, if there are any.

    Raises:
        InvalidArgumentError: It lists every violation with its field path.
    """
    violations = [_field_violation(violation.proto) for violation in _validator().collect_violations(message)]
    if raw is None or _NUL in raw:  # few messages contain NUL at all, and only those are searched
        violations += [
            FieldViolation(path, "must not contain NUL", "string.nul") for path in find_nul(message)
        ]
    if violations:
        raise InvalidArgumentError(
            "INVALID_ARGUMENT",
            "the request breaks rules of its contract; its field violations name each field",
            field_violations=violations,
        )


@functools.cache
def _validator() -> protovalidate.Validator:
    return protovalidate.Validator()


def _field_violation(violation: Any) -> FieldViolation:
    elements = violation.field.elements if violation.field is not None else ()
    path = ".".join(
        element.field_name
        if element.subscript is None
        else f"{element.field_name}[{element.subscript.value!r}]"
        for element in elements
    )
    return FieldViolation(path, violation.message, violation.rule_id)
