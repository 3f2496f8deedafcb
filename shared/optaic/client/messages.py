"""Convert Python values to protobuf messages, by field names and their other known names; checks no rule."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, cast

from google.protobuf import duration_pb2, json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from optaic.client.values import (
    FieldError,
    checked_text,
    described,
    flow_kind,
    plain_json,
    scalar,
    span,
    wrong,
)
from optaic.rules.kinds import OWN_KINDS

__all__ = ["FieldError", "fill", "flow_kind", "our_name", "paths", "word"]

# Known outside -> ours. A name that a message has itself is never renamed.
_KNOWN_AS = {
    "definition_resource_id": "definition_id",
    "parent_instance_id": "instance_id",
    "parent_id": "instance_id",
    "config_json": "config",
    "schedule_json": "schedule",
    "assets_json": "assets",
    "signals_json": "signals",
    "date_range_json": "date_range",
    "metrics_json": "metrics",
    "outputs_ref": "outputs_uri",
    "artifacts_ref": "artifacts",
    "started_at": "start_time",
    "ended_at": "end_time",
    "finished_at": "end_time",
    "submitted_at": "submit_time",
    "last_run_at": "last_run_time",
}


def our_name(name: str) -> str:
    """Return our name of a field that the outside knows under another."""
    return _KNOWN_AS.get(name, name)


def fill(message: Message, values: Mapping[str, Any]) -> None:
    """Set a message's fields from plain values.

    Raises:
        ValueError: A field does not exist, or a value does not fit it.
    """
    for given, value in values.items():
        field = _field(message.DESCRIPTOR, given)
        if value is None:
            continue
        try:
            _fill_field(message, field, value)
        except FieldError as error:
            raise error.below(given) from None


def _fill_field(message: Message, field: FieldDescriptor, value: Any) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if not isinstance(value, Mapping):
            raise wrong(value, "a mapping")
        inner = field.message_type.fields_by_name["value"]
        target = getattr(message, field.name)
        for key, each in value.items():
            if not isinstance(key, str):
                raise FieldError(f"has a key that is not text but {described(key)}; use text keys")
            try:
                if inner.message_type is not None:
                    _fill_message(target[checked_text(key)], each)
                else:
                    target[checked_text(key)] = scalar(inner, each)
            except FieldError as error:
                raise error.below(key) from None
    elif field.is_repeated:
        _extend(getattr(message, field.name), field, value)
    elif field.message_type is not None:
        _fill_message(getattr(message, field.name), value)
    else:
        setattr(message, field.name, scalar(field, value))


def paths(message_type: Any, values: Mapping[str, Any]) -> list[str]:
    """Return the update mask of a mapping: inside the spec each field, elsewhere each value as a whole."""
    found: list[str] = []
    for given, value in values.items():
        field = _field(message_type, given)
        if field.name in OWN_KINDS and isinstance(value, Mapping):
            found += _deep_paths(field, value)
        else:
            found.append(field.name)
    return found


def _deep_paths(field: FieldDescriptor, value: Any) -> list[str]:
    inner = field.message_type
    if (
        inner is None
        or field.is_repeated
        or inner.file.package == "google.protobuf"
        or not isinstance(value, Mapping)
        or not value
    ):
        return [field.name]
    return [
        f"{field.name}.{path}"
        for given, each in value.items()
        for path in _deep_paths(_field(inner, given), each)
    ]


def _field(message_type: Any, given: str) -> FieldDescriptor:
    for name in (given, our_name(given)):
        field = message_type.fields_by_name.get(name)
        if field is not None:
            return cast("FieldDescriptor", field)
    known = ", ".join(sorted(message_type.fields_by_name))
    raise ValueError(f"{message_type.name} has no field {given!r}; its fields are {known}")


def _extend(repeated: Any, field: FieldDescriptor, values: Any) -> None:
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise wrong(values, "a list")
    for index, value in enumerate(values):
        try:
            if field.message_type is not None:
                _fill_message(repeated.add(), value)
            else:
                repeated.append(scalar(field, value))
        except FieldError as error:
            raise error.below(f"[{index}]") from None


def _fill_message(message: Message, value: Any) -> None:
    # Also an empty one is present: `manual={}` says something.
    message.SetInParent()
    if isinstance(value, type(message)):
        message.CopyFrom(value)
    elif isinstance(message, timestamp_pb2.Timestamp) and isinstance(value, dt.datetime):
        message.FromDatetime(value)
    elif isinstance(message, duration_pb2.Duration):
        message.FromTimedelta(span(value))
    elif isinstance(message, struct_pb2.Struct):
        if not isinstance(value, Mapping):
            raise wrong(value, "a mapping")
        try:
            json_format.ParseDict(plain_json(value), message)
        except json_format.ParseError:  # all else is checked by then
            raise FieldError("is nested too deep; remove levels") from None
    elif isinstance(value, Mapping):
        if message.DESCRIPTOR.name == "Schedule":
            value = _schedule(value)
        fill(message, value)
    else:
        raise wrong(value, "a mapping")


def _schedule(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return our schedule of `{type, expression, minutes, timezone, enabled, retry_policy, timeout}`; ours passes through."""
    if "type" not in value:
        return value
    common = ("enabled", "retry_policy", "timeout")
    kind = str(value["type"]).lower()
    timing = {key: each for key, each in value.items() if key not in (*common, "type")}
    if kind == "manual":
        timing = {}
    elif kind == "interval" and "expression" in timing:
        minutes = str(timing.pop("expression"))
        if not minutes.isdecimal():
            raise wrong(minutes, "a number of minutes").below("expression")
        timing["minutes"] = int(minutes)
    return {kind: timing, **{key: value[key] for key in common if key in value}}


def word(message: Message, field: str) -> str:
    """Return the word of an enum field, for example `READY`; empty if the field is not set.

    Raises:
        KeyError: The message has no such field.
    """
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enum is not None, f"{field} is not an enum"
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    name = enum.values_by_number[getattr(message, field)].name.removeprefix(prefix)
    return "" if name == "UNSPECIFIED" else str(name)
