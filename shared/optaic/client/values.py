"""Convert a value for a field of a message, or explain why it does not fit; messages are not known here."""

from __future__ import annotations

import datetime as dt
import difflib
import math
import numbers
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from optaic.common.v1 import flow_pb2

_FLOW_KINDS = {"train": "TRAINING", "infer": "INFERENCE", "monitor": "MONITORING"}
_REALS = frozenset({FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE})
_RANGES: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class FieldError(ValueError):
    """A value that its field does not take; `path` is the field's, within the message."""

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(f"{path}: {text}" if path else text)
        self.text = text
        self.path = path

    def below(self, name: str) -> FieldError:
        """Return the error with the path that begins at the outer message."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        return FieldError(self.text, f"{name}{joint}{self.path}")


def flow_kind(value: Any) -> flow_pb2.FlowKind.ValueType:
    """Return the flow kind of `train`, `training`, `FLOW_KIND_TRAINING` or its number.

    Raises:
        ValueError: There is no such flow kind.
    """
    if isinstance(value, str):
        value = _FLOW_KINDS.get(value.lower(), value)
    return flow_pb2.FlowKind.ValueType(_enum(flow_pb2.FlowKind.DESCRIPTOR, value))


def scalar(field: FieldDescriptor, value: Any) -> Any:
    """Return what a field that holds no message is set to.

    Raises:
        FieldError: It does not take the value.
    """
    if field.enum_type is not None:
        return (
            flow_kind(value)
            if field.enum_type is flow_pb2.FlowKind.DESCRIPTOR
            else _enum(field.enum_type, value, is_one_of_many=field.is_repeated)
        )
    value = _unboxed(value)
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if isinstance(value, dt.date):
            return value.isoformat()
        if field.type == FieldDescriptor.TYPE_BYTES:
            if isinstance(value, bytes):
                return value
            raise wrong(value, "bytes")
        if isinstance(value, str):
            return checked_text(value)
        raise wrong(value, "text")
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if isinstance(value, bool):
            return value
        raise wrong(value, "true or false")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(value, "a number" if kind in _REALS else "a whole number")
    return _real(value) if kind in _REALS else _whole_number(kind, value)


def _real(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise FieldError("is too large for a number") from None


def _whole_number(kind: int, value: float) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise wrong(value, "a whole number")
    low, high = _RANGES[kind]
    if not low <= value <= high:
        raise FieldError(f"must be between {low} and {high}, not {str(value)[:40]}")
    return int(value)


def _enum(enum: EnumDescriptor, value: Any, *, is_one_of_many: bool = False) -> int:
    """Return an enum's number; text may leave out the prefix and be in lower case."""
    value = _unboxed(value)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    is_number = isinstance(value, int) and not isinstance(value, bool) and value in enum.values_by_number
    if is_number and (value or not is_one_of_many):  # of many, none at all is no choice
        return int(value)
    if isinstance(value, str):
        name = value.upper()
        found = enum.values_by_name.get(name) or enum.values_by_name.get(prefix + name)
        if found is not None and found.number:
            return int(found.number)
    words = [each.name.removeprefix(prefix).lower() for each in enum.values if each.number]
    near = difflib.get_close_matches(value.lower(), words, 1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]}?" if near else ""
    said = repr(value[:100]) if isinstance(value, str) else described(value)
    raise FieldError(f"must be one of {', '.join(words)}, not {said}{hint}")


def span(value: Any) -> dt.timedelta:
    """Return a duration of a number of seconds."""
    if isinstance(value, dt.timedelta):
        return value
    seconds = _unboxed(value)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise wrong(value, "a number of seconds")
    try:
        return dt.timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise FieldError(
            f"must be a number of seconds within the range of a duration, not {seconds}"
        ) from None


def plain_json(value: Any) -> Any:
    """Return JSON: dates as ISO text, tuples as lists."""
    value = _unboxed(value)
    if isinstance(value, Mapping):
        return {_key(key): _inside(f"{key}", each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_inside(f"[{index}]", each) for index, each in enumerate(value)]
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, str):
        return checked_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _json_number(value)
    raise wrong(value, "text, a number, true, false, null, a list or a mapping")


def _inside(name: str, value: Any) -> Any:
    try:
        return plain_json(value)
    except FieldError as error:
        raise error.below(name) from None


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise FieldError(f"has a key that is not text but {described(key)}; use text keys")
    return checked_text(key)


def _json_number(value: float) -> float:
    """Return a number that JSON has, and that keeps all its digits there."""
    if isinstance(value, float) and not math.isfinite(value):
        raise FieldError(f"must be a finite number, not {value}")
    if isinstance(value, int):
        try:
            is_kept = int(float(value)) == value
        except OverflowError:
            is_kept = False
        if not is_kept:
            raise FieldError(f"{str(value)[:40]} is beyond 2^53 and would lose digits; write it as text")
    return value


def checked_text(value: str) -> str:
    """Return a text that can be sent."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FieldError("contains half a character (a lone surrogate); remove it") from None
    return value


def _unboxed(value: Any) -> Any:
    """Return the plain number of a number of numpy or the like."""
    is_boxed = (
        isinstance(value, numbers.Number) and not isinstance(value, int | float) and hasattr(value, "item")
    )
    return value.item() if is_boxed or type(value).__name__ == "bool_" else value


def described(value: Any) -> str:
    """Describe the kind of a value for an error message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value[:100]!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple | set | frozenset) else "a value of another kind"


def wrong(value: Any, wanted: str) -> FieldError:
    """Return the error of a value of another kind than is wanted."""
    return FieldError(f"must be {wanted}, not {described(value)}")
