"""Convert messages to plain values and back; every error has its path. Knows no rule of any service."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from google.protobuf import duration_pb2, json_format, struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from optaic.client import messages
from optaic.definition.v1 import definition_pb2
from optaic.errors import Violation
from optaic.instance.v1 import instance_pb2, spec_pb2
from optaic.rules.kinds import COMPONENT_KINDS, OWN_KINDS

# What a document may say. The rest of these messages is output, or an id that a name stands for.
_GIVEN: dict[str, Collection[str]] = {
    instance_pb2.Instance.DESCRIPTOR.full_name: (
        "name",
        "description",
        "owner",
        "labels",
        *OWN_KINDS,
        "definition_name",
        "definition_version",
        "track_newest",
        "config",
        "schedule",
        "upstream_refs",
        "freshness_policy",
        "probe_interval",
        "auto_refresh",
    ),
    spec_pb2.ComponentSpec.DESCRIPTOR.full_name: (
        "definition_name",
        "definition_version",
        "track_newest",
        "config",
    ),
    spec_pb2.DatasetSpec.DESCRIPTOR.full_name: (
        *COMPONENT_KINDS,
        "monitoring_enabled",
        "timezone",
        "max_deleted_share",
        "monitoring",
    ),
    spec_pb2.ModelSpec.DESCRIPTOR.full_name: ("monitoring",),
    instance_pb2.UpstreamRef.DESCRIPTOR.full_name: ("resource_id", "role"),
    definition_pb2.DefinitionVersion.DESCRIPTOR.full_name: (
        "version",
        "code_ref",
        "parameters_schema",
        "input_schema",
        "output_schema",
        "compatibility_rules",
        "guardrail_contracts",
        "flow_specs",
        "status_aggregation_contract",
        "description",
        "op_macro",
        "reads_nothing",
        "is_external",
        "op",
    ),
}
_OURS = "optaic."


def given_fields(descriptor: Any) -> list[FieldDescriptor]:
    """Return the fields that a document may give, in the order of the contract."""
    known = _GIVEN.get(descriptor.full_name)
    return [field for field in descriptor.fields if known is None or field.name in known]


def keep_given(message: Message) -> None:
    """Clear every field that a document cannot set."""
    known = {field.name for field in given_fields(message.DESCRIPTOR)}
    for field, value in message.ListFields():
        if field.name not in known:
            message.ClearField(field.name)
        elif is_ours(field):
            for each in value if field.is_repeated else [value]:
                keep_given(each)


def is_ours(field: FieldDescriptor) -> bool:
    """Return whether a field holds messages of ours, which have fields; maps and JSON are values."""
    inner = field.message_type
    return inner is not None and inner.file.package.startswith(_OURS) and not inner.GetOptions().map_entry


def fill(message: Message, values: Any, path: str, problems: list[Violation]) -> None:
    """Set a message's fields from plain values under our names only; mistakes are recorded."""
    if not isinstance(values, Mapping):
        problems.append(Violation(path, "must be a mapping", "INVALID_VALUE"))
        return
    fields = {field.name: field for field in given_fields(message.DESCRIPTOR)}
    oneofs: dict[str, str] = {}
    for name, value in values.items():
        where, field = f"{path}.{name}", fields.get(name)
        if field is None:
            known = ", ".join(sorted(fields)) or "nothing"
            problems.append(
                Violation(where, f"is not a known field; the known fields are {known}", "UNKNOWN_FIELD")
            )
            continue
        other = oneofs.setdefault(field.containing_oneof.name, name) if field.containing_oneof else name
        if other != name:
            problems.append(
                Violation(where, f"cannot be set together with {other}; remove one of them", "INVALID_VALUE")
            )
        elif field.is_repeated and not _is_map(field):
            _fill_list(message, field, value, where, problems)
        elif is_ours(field):
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), value, where, problems)
        else:
            _set(message, field, value, where, problems)


def _fill_list(
    message: Message, field: FieldDescriptor, values: Any, path: str, problems: list[Violation]
) -> None:
    if not isinstance(values, list):
        problems.append(Violation(path, "must be a list", "INVALID_VALUE"))
        return
    for index, value in enumerate(values):
        where = f"{path}[{index}]"
        if is_ours(field):
            fill(getattr(message, field.name).add(), value, where, problems)
        else:
            _set(message, field, [value], where, problems)


def _set(message: Message, field: FieldDescriptor, value: Any, path: str, problems: list[Violation]) -> None:
    if value is None:
        problems.append(Violation(path, "has no value; remove the field, or write {}", "INVALID_VALUE"))
        return
    scalars = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, float)]
    if infinite := next((each for each in scalars if not math.isfinite(each)), None):
        problems.append(Violation(path, f"must be a finite number, not {infinite}", "INVALID_VALUE"))
        return
    try:
        messages.fill(message, {field.name: value})
    except messages.FieldError as error:
        inside = error.path.removeprefix(field.name)
        if field.is_repeated and not _is_map(field):
            inside = inside.removeprefix("[0]")  # the caller gives items one by one
        problems.append(Violation(f"{path}{inside}", error.text, "INVALID_VALUE"))
    except RecursionError:
        problems.append(Violation(path, "is nested too deep; remove levels", "INVALID_VALUE"))


def plain(message: Message) -> dict[str, Any]:
    """Convert a message to the plain value of a document; `fill` converts it back."""
    result: dict[str, Any] = {}
    for field in given_fields(message.DESCRIPTOR):
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.has_presence or value:
            result[field.name] = _plain_field(field, value)
    return result


def _plain_field(field: FieldDescriptor, value: Any) -> Any:
    if _is_map(field):
        return dict(sorted(value.items()))
    if field.is_repeated:
        return [_plain_value(field, each) for each in value]
    return _plain_value(field, value)


def _plain_value(field: FieldDescriptor, value: Any) -> Any:
    if is_ours(field):
        return plain(value)
    if isinstance(value, struct_pb2.Struct):
        return _whole(json_format.MessageToDict(value))
    if isinstance(value, duration_pb2.Duration):
        return _whole(value.ToTimedelta().total_seconds())
    if field.enum_type is not None:
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return field.enum_type.values_by_number[value].name.removeprefix(prefix).lower()
    return value


def _whole(value: Any) -> Any:
    """Return JSON with whole numbers as integers, as people write them, and keys in order: a message has none."""
    if isinstance(value, Mapping):
        return {key: _whole(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def differing(desired: Message, current: Message) -> Iterator[str]:
    """Yield the paths, as an update mask has them, of the fields in which two messages differ."""
    for field in given_fields(desired.DESCRIPTOR):
        name = field.name
        if (
            field.is_repeated
            or not is_ours(field)
            or not (desired.HasField(name) and current.HasField(name))
            or name in {"schedule", "freshness_policy", "probe_interval", "auto_refresh"}  # one value each
        ):
            if _value(desired, field) != _value(current, field):
                yield name
        else:
            for path in differing(getattr(desired, name), getattr(current, name)):
                yield f"{name}.{path}"


def value_at(message: Any, path: str) -> Any:
    """Return a field as the client takes it: None where it is not set."""
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.has_presence and not message.HasField(name):
        return None
    value = getattr(message, name)
    return dict(value) if _is_map(field) else list(value) if field.is_repeated else value


def plain_at(message: Any, path: str) -> Any:
    """Return a field as a document writes it; None if it is not set."""
    value: Any = plain(message)
    for name in path.split("."):
        value = value.get(name) if value is not None else None
    return value


def leaves(path: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield every difference between two plain values, as deep as it goes."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from leaves(f"{path}.{key}", before.get(key), after.get(key))
    elif _is_list(before) and _is_list(after):
        for index, (one, other) in enumerate(zip_longest(before, after)):
            yield from leaves(f"{path}[{index}]", one, other)
    elif before != after:
        yield path, before, after


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a plain value, as deep as it goes; keys are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts(each)
    elif _is_list(value):
        for each in value:
            yield from texts(each)


def _value(message: Message, field: FieldDescriptor) -> Any:
    """Return a field's value for comparison; an empty message equals an unset one."""
    if not field.is_repeated and field.has_presence and not message.HasField(field.name):
        return None
    value = _plain_field(field, getattr(message, field.name))
    return value or None if field.message_type is not None else value


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
