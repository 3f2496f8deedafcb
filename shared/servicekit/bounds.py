"""Refuse a request that is too large to look at: its bytes before it is read, then its values, masks and times.

What a contract cannot say about the well-known types stands here, with one limit for all methods.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from servicekit.errors import FieldViolation, InvalidArgumentError, ResourceExhaustedError

DEFAULT_BYTES = 64 * 1024
MOST_NODES = 50_000  # of one Struct: objects, lists and values
MOST_NODES_AT_ONCE = 200_000  # of all Structs of a request
MOST_LEVELS = 32
MOST_PATHS = 1_000  # of a field mask
LONGEST_PATH = 1_000
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799  # 0001-01-01 and 9999-12-31T23:59:59
LONGEST_DURATION = 315_576_000_000
_NANOS = 1_000_000_000
_OPTION = "optaic.common.v1.max_request_bytes"
_TIMESTAMP, _DURATION = "google.protobuf.Timestamp", "google.protobuf.Duration"
_MASK = "google.protobuf.FieldMask"
_JSON = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
_CONTAINERS = ("struct_value", "list_value")
_BOUNDED = _JSON | {_TIMESTAMP, _DURATION, _MASK}


def most_bytes(method: str) -> int:
    """Return how many bytes a request of a method may have; the method is `/<service>/<name>`, as gRPC writes it."""
    service, _, name = method.removeprefix("/").partition("/")
    pool = descriptor_pool.Default()
    try:
        option: Any = pool.FindExtensionByName(_OPTION)
        options = pool.FindServiceByName(service).methods_by_name[name].GetOptions()
    except KeyError:
        return DEFAULT_BYTES
    return int(options.Extensions[option]) or DEFAULT_BYTES


def check_size(raw: bytes, limit: int) -> None:
    """Refuse a request that has too many bytes, before it is read.

    Raises:
        ResourceExhaustedError: REQUEST_TOO_LARGE.
    """
    if len(raw) > limit:
        raise ResourceExhaustedError(
            "REQUEST_TOO_LARGE",
            f"the request has {len(raw)} bytes, and this method reads at most {limit}; send less at once",
            metadata={"limit": str(limit)},
        )


def check_bounds(message: Message) -> None:
    """Refuse a message with a Struct or a mask that is too large, or a time that does not exist.

    Raises:
        InvalidArgumentError: It lists every violation with its field path.
    """
    violations = list(_violations(message, "", [MOST_NODES_AT_ONCE]))
    if violations:
        raise InvalidArgumentError(
            "INVALID_ARGUMENT",
            "the request breaks rules of its contract; its field violations name each field",
            field_violations=violations,
        )


def json_values(message: Message) -> Iterator[Message]:
    """Yield each Struct, ListValue and Value of a message, without those within them."""
    for field, value in _reaching_values(message):
        if not field.is_repeated:
            items = [value]
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            items = list(value.values())
        else:
            items = value
        for item in items:
            if item.DESCRIPTOR.full_name in _JSON:
                yield item
            elif item.DESCRIPTOR.full_name not in _BOUNDED:
                yield from json_values(item)


def _violations(message: Message, path: str, left: list[int]) -> Iterator[FieldViolation]:
    for field, value in _reaching_values(message):
        at = f"{path}.{field.name}" if path else field.name
        if not field.is_repeated:
            yield from _look(value, at, left)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in value:
                yield from _look(value[key], f"{at}[{key!r}]", left)
        else:
            for index, item in enumerate(value):
                yield from _look(item, f"{at}[{index}]", left)


def _reaching_values(message: Message) -> Iterator[tuple[FieldDescriptor, Any]]:
    names = _reaching(message.DESCRIPTOR)
    if names:
        yield from ((field, value) for field, value in message.ListFields() if field.name in names)


def _look(value: Any, path: str, left: list[int]) -> Iterator[FieldViolation]:
    kind = value.DESCRIPTOR.full_name
    if kind not in _BOUNDED:
        yield from _violations(value, path, left)
        return
    text = ""
    if kind in _JSON:
        text = _problem_of_json(value, left)
    elif kind == _TIMESTAMP:
        text = _problem_of_timestamp(value.seconds, value.nanos)
    elif kind == _DURATION:
        text = _problem_of_duration(value.seconds, value.nanos)
    elif len(value.paths) > MOST_PATHS:
        text = f"must have at most {MOST_PATHS} paths"
    elif any(len(each) > LONGEST_PATH for each in value.paths):
        text = f"must have no path of more than {LONGEST_PATH} characters"
    if text:
        yield FieldViolation(path, text, "bounds")


def _problem_of_timestamp(seconds: int, nanos: int) -> str:
    if FIRST_SECOND <= seconds <= LAST_SECOND and 0 <= nanos < _NANOS:
        return ""
    return "must lie between 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999999Z"


def _problem_of_duration(seconds: int, nanos: int) -> str:
    is_valid = abs(seconds) <= LONGEST_DURATION and abs(nanos) < _NANOS and seconds * nanos >= 0
    return "" if is_valid else f"must lie between -{LONGEST_DURATION} and {LONGEST_DURATION} seconds"


def _problem_of_json(value: Any, left: list[int]) -> str:
    """Return what is wrong with a Struct, Value or ListValue; empty if nothing is."""
    nodes = 0
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        node, level = pending.pop()
        nodes += 1
        if nodes > MOST_NODES:
            return f"must have at most {MOST_NODES} values, those within objects and lists included"
        if nodes > left[0]:
            return f"the whole request must have at most {MOST_NODES_AT_ONCE} values; send less at once"
        if level > MOST_LEVELS:
            return f"must have at most {MOST_LEVELS} levels"
        if isinstance(node, Value):
            kind = node.WhichOneof("kind")
            if kind is None:
                return "must have no value without a kind; write null for none"
            node = getattr(node, kind) if kind in _CONTAINERS else None
        if isinstance(node, Struct):
            pending.extend((each, level + 1) for each in node.fields.values())
        elif isinstance(node, ListValue):
            pending.extend((each, level + 1) for each in node.values)
    left[0] -= nodes
    return ""


@functools.cache
def _reaching(descriptor: Descriptor) -> frozenset[str]:
    """Return the names of the fields of a message in which a bounded type may lie, however deep."""
    return frozenset(
        field.name
        for field in descriptor.fields
        if field.message_type is not None and _reaches(field.message_type, set())
    )


def _reaches(descriptor: Descriptor, seen: set[str]) -> bool:
    if descriptor.full_name in _BOUNDED:
        return True
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    return any(
        _reaches(field.message_type, seen) for field in descriptor.fields if field.message_type is not None
    )
