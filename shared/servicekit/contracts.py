"""Parse a message, and check it against the rules that its proto declares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import protovalidate
from google.protobuf.message import DecodeError, Message

from servicekit import bounds
from servicekit.errors import FieldViolation, InvalidArgumentError
from servicekit.texts import NUL, find_nul

_NUL = NUL.encode()
_MOST_ITEMS = 500  # of all lists and maps, for every violation to be listed


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
    violations = [_field_violation(violation.proto) for violation in _broken_rules(_without_json(message))]
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


def _broken_rules(message: Message) -> list[Any]:
    """Return the rules that a message breaks; of a message with many items the first one only.

    Each item may break rules, the validator finds them without letting other threads run in between, and an answer has
    room for few.
    """
    first = _validator().collect_violations(message, fail_fast=True)
    if not first or _has_many_items(message):
        return first
    return _validator().collect_violations(message)


def _has_many_items(message: Message) -> bool:
    left, pending = _MOST_ITEMS, [message]
    while pending:
        for field, value in pending.pop().ListFields():
            if not field.is_repeated:
                if field.message_type is not None:
                    pending.append(value)
                continue
            left -= len(value)
            if left < 0:
                return True
            if field.message_type is not None:
                is_map = field.message_type.GetOptions().map_entry
                items = value.values() if is_map else value
                pending.extend(each for each in items if isinstance(each, Message))
    return False


def _without_json(message: Message) -> Message:
    """Return the message with empty Structs: no rule reads what is in them, and the validator walks over all of it.

    It does that without letting other threads run in between, a tenth of a second for a large configuration.
    """
    if next(bounds.json_values(message), None) is None:
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    for value in bounds.json_values(copy):
        value.Clear()
    return copy


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
