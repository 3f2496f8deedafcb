"""Requests made from the contracts, for tests of all methods: with given ids, and with whatever else the contract demands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from buf.validate import validate_pb2

_DEEPEST = 3
_TEXT = "because"


def request_of(method: MethodDescriptor, ids: Mapping[str, str]) -> Any:
    """Return a request that names something in each field that `ids` has a name for; where it can, it changes nothing."""
    request: Any = message_factory.GetMessageClass(method.input_type)()
    _fill(request, ids, 1)
    if "validate_only" in request.DESCRIPTOR.fields_by_name:
        request.validate_only = True
    return request


def _fill(message: Any, ids: Mapping[str, str], depth: int) -> bool:
    """Fill a message, with as few messages in it as will do; return whether it names something now."""
    named = False
    fields = list(message.DESCRIPTOR.fields)
    for field in fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        if field.name in ids and field.message_type is None:
            _set(message, field, ids[field.name])
            named = True
        elif field.message_type is not None:
            if (rules.required or rules.repeated.min_items) and depth < _DEEPEST:
                named |= _descend(message, field, ids, depth)
        elif (value := _least(rules)) is not None:
            setattr(message, field.name, value)
    if not named and depth < _DEEPEST:
        within = (each for each in fields if each.message_type is not None and _names(each, ids))
        if (field := next(within, None)) is not None:
            named = _descend(message, field, ids, depth)
    return named


def _least(rules: Any) -> str | int | None:
    """Return a value that satisfies the rules of a field; None if its default does."""
    if rules.string.min_len:
        return _TEXT
    if rules.int64.gte > 0:
        return int(rules.int64.gte)
    return 1 if 0 in rules.enum.not_in else None


def _descend(message: Any, field: FieldDescriptor, ids: Mapping[str, str], depth: int) -> bool:
    target = getattr(message, field.name)
    inner = target.add() if field.is_repeated else target
    inner.SetInParent()
    return _fill(inner, ids, depth + 1)


def _set(message: Any, field: FieldDescriptor, value: str) -> None:
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _names(field: FieldDescriptor, ids: Mapping[str, str], depth: int = 1) -> bool:
    """Return whether a message of the field's type names something, itself or in its messages."""
    assert field.message_type is not None
    if field.message_type.file.package.startswith("google") or _is_map(field):
        return False
    return any(
        each.name in ids or (each.message_type is not None and depth < 2 and _names(each, ids, depth + 1))
        for each in field.message_type.fields
    )
