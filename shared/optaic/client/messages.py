"""Python values to protobuf messages, under our names and those that the outside knows; it checks no rule."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, cast

from google.protobuf import duration_pb2, json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from optaic.common.v1 import flow_pb2

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
_FLOW_KINDS = {"train": "TRAINING", "infer": "INFERENCE", "monitor": "MONITORING"}
_SPECS = ("dataset", "signal", "experiment", "model", "portfolio_optimizer", "backtest")


def our_name(name: str) -> str:
    """Return our name of a field that the outside knows under another."""
    return _KNOWN_AS.get(name, name)


def flow_kind(value: str | int) -> flow_pb2.FlowKind.ValueType:
    """Return the flow kind of `train`, `training`, `FLOW_KIND_TRAINING` or its number.

    Raises:
        ValueError: There is no such flow kind.
    """
    if isinstance(value, str):
        value = _FLOW_KINDS.get(value.lower(), value)
    return flow_pb2.FlowKind.ValueType(_enum(flow_pb2.FlowKind.DESCRIPTOR, value))


def fill(message: Message, values: Mapping[str, Any]) -> None:
    """Set a message's fields from plain values.

    Raises:
        ValueError: A field does not exist, or a value does not fit it.
        TypeError: A value is of another type altogether.
    """
    for given, value in values.items():
        field = _field(message.DESCRIPTOR, given)
        if value is None:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update(value)
        elif field.is_repeated:
            _extend(getattr(message, field.name), field, value)
        elif field.message_type is not None:
            _fill_message(getattr(message, field.name), value)
        else:
            setattr(message, field.name, _scalar(field, value))


def paths(message_type: Any, values: Mapping[str, Any]) -> list[str]:
    """Return the update mask of what a mapping says: into the spec, field by field; anything else is one value."""
    found: list[str] = []
    for given, value in values.items():
        field = _field(message_type, given)
        if field.name in _SPECS and isinstance(value, Mapping):
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
    raise ValueError(f"{message_type.name} has no field {given!r}; it has {known}")


def _extend(repeated: Any, field: FieldDescriptor, values: Iterable[Any]) -> None:
    for value in values:
        if field.message_type is not None:
            _fill_message(repeated.add(), value)
        else:
            repeated.append(_scalar(field, value))


def _fill_message(message: Message, value: Any) -> None:
    # Also an empty one is present: `manual={}` says something.
    message.SetInParent()
    if isinstance(value, type(message)):
        message.CopyFrom(value)
    elif isinstance(message, timestamp_pb2.Timestamp) and isinstance(value, dt.datetime):
        message.FromDatetime(value)
    elif isinstance(message, duration_pb2.Duration):
        span = value if isinstance(value, dt.timedelta) else dt.timedelta(seconds=float(value))
        message.FromTimedelta(span)
    elif isinstance(message, struct_pb2.Struct):
        json_format.ParseDict(_plain(value), message)
    elif isinstance(value, Mapping):
        if message.DESCRIPTOR.name == "Schedule":
            value = _schedule(value)
        fill(message, value)
    else:
        raise TypeError(f"{value!r} is not a {message.DESCRIPTOR.name}")


def _plain(value: Any, path: str = "") -> Any:
    """Return JSON: dates as ISO text, tuples as lists.

    Raises:
        ValueError: A whole number is so large that a Struct, which has doubles only, would hold another one.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(each, f"{path}.{key}" if path else str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, f"{path}[{index}]") for index, each in enumerate(value)]
    if isinstance(value, int) and not _is_double(value):
        raise ValueError(f"{path}: {value} is not carried exactly, it lies beyond 2^53; give it as a text")
    return value.isoformat() if isinstance(value, dt.date) else value


def _is_double(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _schedule(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return our schedule of `{type, expression, minutes, timezone, enabled, retry_policy}`; ours passes through."""
    if "type" not in value:
        return value
    common = ("enabled", "retry_policy")
    kind = str(value["type"]).lower()
    timing = {key: each for key, each in value.items() if key not in (*common, "type")}
    if kind == "manual":
        timing = {}
    elif kind == "interval" and "expression" in timing:
        timing["minutes"] = int(timing.pop("expression"))
    return {kind: timing, **{key: value[key] for key in common if key in value}}


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is None:
        return value.isoformat() if isinstance(value, dt.date) else value
    if field.enum_type is flow_pb2.FlowKind.DESCRIPTOR:
        return flow_kind(value)
    return _enum(field.enum_type, value)


def _enum(enum: EnumDescriptor, value: str | int) -> int:
    """Return an enum's number; text may leave out the prefix and be in lower case."""
    if isinstance(value, int):
        return value
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    name = value.upper()
    found = enum.values_by_name.get(name) or enum.values_by_name.get(prefix + name)
    if found is None:
        words = ", ".join(each.name.removeprefix(prefix).lower() for each in enum.values[1:])
        raise ValueError(f"{value!r} is not a {enum.name}: {words}")
    return int(found.number)


def word(message: Message, field: str) -> str:
    """Return the value of an enum field as people say it, for example `READY`; empty where it is not set.

    Raises:
        KeyError: The message has no such field.
    """
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enum is not None, f"{field} is no enum"
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    name = enum.values_by_number[getattr(message, field)].name.removeprefix(prefix)
    return "" if name == "UNSPECIFIED" else str(name)
