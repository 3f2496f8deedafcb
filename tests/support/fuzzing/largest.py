"""The largest requests that the contracts allow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from buf.validate import validate_pb2
from servicekit import bounds
from support.fuzzing.methods import Method
from support.fuzzing.mutation import mask_paths

_ID = "01900000-0000-7000-8000-{:012x}"
_DEEPEST = 6
_WIDE = 49_000  # values of a Struct, a little less than it may have
_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def largest(method: Method, sample: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield requests in which one field is as large as it may be, and which field that is; at last all are."""
    limit = bounds.most_bytes(method.path)
    message = method.request.FromString(sample)
    for path in [*_paths(method.request.DESCRIPTOR, ())]:
        made = method.request()
        made.CopyFrom(message)
        if _enlarge(made, path, limit - made.ByteSize()) and made.ByteSize() <= limit:
            yield ".".join(path), made.SerializeToString()
    made = method.request()
    made.CopyFrom(message)
    for path in [*_paths(method.request.DESCRIPTOR, ())]:
        before = method.request()
        before.CopyFrom(made)
        _enlarge(made, path, limit // 8)
        if made.ByteSize() > limit:
            made = before
    yield "*", made.SerializeToString()


def _paths(descriptor: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for field in descriptor.fields:
        path = (*above, field.name)
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        is_known = field.message_type is not None and field.message_type.full_name.startswith("google.")
        if field.is_repeated or is_known or _most_characters(field) > 1_000:
            yield path
        if field.message_type is not None and not is_map and not is_known and len(above) < _DEEPEST:
            yield from _paths(field.message_type, path)


def _enlarge(message: Any, path: tuple[str, ...], room: int) -> bool:
    """Make the field at the end of a path as large as it may be, within so many bytes; return whether it is."""
    field = message.DESCRIPTOR.fields_by_name[path[0]]
    if len(path) > 1:
        place = getattr(message, path[0])
        if field.is_repeated:
            place = place[0] if place else place.add()
        return _enlarge(place, path[1:], room)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _enlarge_map(getattr(message, field.name), field, room)
    if field.is_repeated:
        return _enlarge_list(getattr(message, field.name), field, room)
    if field.message_type is None:
        setattr(message, field.name, _text(field, room))
        return True
    place = getattr(message, field.name)
    if isinstance(place, Struct | Value | ListValue):
        _widen(place, room)
    elif field.message_type.full_name.endswith("FieldMask"):
        paths = list(mask_paths(message.DESCRIPTOR))
        longest = [f"{path}.{'x' * (900 - len(path))}" for path in paths]
        while len(longest) < bounds.MOST_PATHS:
            longest += longest
        place.paths.extend(longest[: min(bounds.MOST_PATHS, room // 910)])
    return True


def _enlarge_list(found: Any, field: Any, room: int) -> bool:
    most = field.GetOptions().Extensions[validate_pb2.field].repeated.max_items or 1_000
    if field.message_type is None:
        if field.type not in _TEXTS:
            found.extend([1] * most)
            return True
        size = max(1, min(_most_characters(field), room // most - 4))
        is_id = field.GetOptions().Extensions[validate_pb2.field].repeated.items.string.uuid
        count = min(most, room // ((36 if is_id else size) + 4))
        found.extend(_ID.format(number) if is_id else f"{number:0{size}d}"[-size:] for number in range(count))
        return True
    if not found:
        found.add()
    one = type(found[0])()
    one.CopyFrom(found[0])
    del found[:]
    found.extend([one] * max(1, min(most, room // (one.ByteSize() + 5))))
    return True


def _enlarge_map(found: Any, field: Any, room: int) -> bool:
    rules = field.GetOptions().Extensions[validate_pb2.field].map
    most = rules.max_pairs or 64
    if field.message_type.fields_by_name["value"].message_type is not None:
        return False
    size = max(1, min(rules.values.string.max_len or 64, room // most - 24))
    for number in range(min(most, room // (size + 24))):
        found[f"k{number:010d}"] = "v" * size
    return True


def _widen(place: Any, room: int) -> None:
    struct = place if isinstance(place, Struct) else place.struct_value
    count = min(_WIDE, room // 16)
    struct.fields["wide"].list_value.values.extend([Value(number_value=number) for number in range(count)])


def _text(field: Any, room: int) -> str:
    return "x" * max(0, min(_most_characters(field), room - 8))


def _most_characters(field: Any) -> int:
    if field.type not in _TEXTS:
        return 0
    rules = field.GetOptions().Extensions[validate_pb2.field]
    text = (rules.repeated.items if field.is_repeated else rules).string
    return int(text.max_len or text.max_bytes)


def deep(levels: int = bounds.MOST_LEVELS - 2) -> Message:
    """Return a Struct of so many levels."""
    struct = Struct()
    place = struct
    for _ in range(levels // 2):
        place = place.fields["a"].struct_value
    return struct
