"""Change a real request into one that nobody means: its fields, its structure, at last its bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from buf.validate import validate_pb2
from support.fuzzing import values

_MOST_PLACES = 400
_DEEPEST = 5
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (32, True),
    FieldDescriptor.CPPTYPE_INT64: (64, True),
    FieldDescriptor.CPPTYPE_UINT32: (32, False),
    FieldDescriptor.CPPTYPE_UINT64: (64, False),
}
_DOUBLES = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
_SURROGATE, _OVERLONG, _LONE = b"\xed\xa0\x80", b"\xc0\xaf", b"\xff"
_Place = tuple[Message, Any]
_Item = TypeVar("_Item")


class Mutator:
    """Changes messages; `texts` holds texts that the services know, such as ids, by the names of their fields."""

    def __init__(
        self, choices: random.Random, texts: Mapping[str, Sequence[str]], masks: Sequence[str]
    ) -> None:
        self._choices = choices
        self._texts = texts
        self._masks = masks
        self._known = [text for each in texts.values() for text in each]

    def mutate(self, message: Message) -> None:
        """Change one to four places of a message."""
        for _ in range(self._choices.choice((1, 1, 1, 1, 1, 2, 2, 3, 4))):
            places = list(_places(message, 0))
            if not places:
                return
            self._edit(*self._choices.choice(places[:_MOST_PLACES]))

    def fill(self, message: Message, depth: int = 0) -> None:
        """Set about half of the fields of a message."""
        for field in message.DESCRIPTOR.fields:
            if self._choices.random() < (0.6 if depth < 2 else 0.25):
                self._edit(message, field, depth)

    def _edit(self, message: Message, field: Any, depth: int = 0) -> None:
        if self._choices.random() < 0.12:
            message.ClearField(field.name)
        elif isinstance(message, (Struct, ListValue, Value)):
            self._edit_json(message)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._edit_map(getattr(message, field.name), field)
        elif field.is_repeated:
            self._edit_list(getattr(message, field.name), field, depth)
        elif field.message_type is not None:
            self._edit_message(getattr(message, field.name), depth)
        else:
            setattr(message, field.name, self._scalar(field, getattr(message, field.name)))

    def _edit_json(self, message: Struct | ListValue | Value) -> None:
        given = values.json(self._choices, self._any_text())
        if isinstance(message, Struct):
            if not isinstance(given, dict):
                given = {self._text(None, ""): given}
            if self._choices.random() < 0.5:
                message.Clear()
            for name, value in given.items():
                message.fields[name].CopyFrom(_value(value))
            if self._choices.random() < 0.2:
                name = self._choice(list(message.fields) or [""])
                message.fields[name].SetInParent()  # a value without a kind
                message.fields[name].Clear()
        elif isinstance(message, ListValue):
            message.values.append(_value(given))
        else:
            message.CopyFrom(_value(given))

    def _edit_map(self, found: Any, field: FieldDescriptor) -> None:
        entry = field.message_type
        assert entry is not None
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        most = field.GetOptions().Extensions[validate_pb2.field].map.max_pairs or 64
        for _ in range(self._choices.choice((1, 1, 2, most, most + 1))):
            name = self._scalar(key, key.default_value)
            if value.message_type is not None:
                self._edit_message(found[name], _DEEPEST)
            else:
                found[name] = self._scalar(value, value.default_value)

    def _edit_list(self, found: Any, field: FieldDescriptor, depth: int) -> None:
        most = field.GetOptions().Extensions[validate_pb2.field].repeated.max_items or 64
        way = self._choices.randrange(6)
        if way == 0 and found:
            found.append(found[0]) if field.message_type is None else found.add().CopyFrom(found[0])
        elif way == 1 and found:
            del found[self._choices.randrange(len(found))]
        elif way == 2 and len(found) > 1:
            items = list(found)
            self._choices.shuffle(items)
            items = [_copy(each) for each in items]
            del found[:]
            found.extend(items)
        else:
            count = self._choices.choice((1, 1, 1, 2, 3, min(most, 300), min(most + 1, 1_001)))
            if field.message_type is not None:
                one = found.add()
                self._edit_message(one, depth)
                for _ in range(count - 1 if depth == 0 else 0):
                    found.add().CopyFrom(one)
            else:
                found.extend(self._scalar(field, field.default_value) for _ in range(count))

    def _edit_message(self, message: Message, depth: int) -> None:
        message.SetInParent()
        name = message.DESCRIPTOR.full_name
        if name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            is_duration = name.endswith("Duration")
            message.seconds, message.nanos = values.seconds(self._choices, is_duration=is_duration)  # type: ignore[attr-defined]  # both have these
        elif name == "google.protobuf.FieldMask":
            self._edit_mask(message)
        elif isinstance(message, (Struct, ListValue, Value)):
            self._edit_json(message)
        elif depth < _DEEPEST:
            self.fill(message, depth + 1)

    def _edit_mask(self, mask: Any) -> None:
        paths = [self._choice(self._masks) for _ in range(self._choices.choice((1, 1, 2, 5)))]
        way = self._choices.randrange(5)
        if way == 0:
            paths = paths * self._choices.choice((2, 1_000, 1_001))
        elif way == 1:
            paths = [f"{path}.{self._choice(self._masks)}" for path in paths]
        elif way == 2:
            paths = [self._text(None, "")]
        if self._choices.random() < 0.5:
            del mask.paths[:]
        mask.paths.extend(paths)

    def _scalar(self, field: FieldDescriptor, present: Any) -> Any:
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return not present
        if kind in _DOUBLES:
            return self._choice(values.DOUBLES)
        if kind in _INTEGERS:
            bits, is_signed = _INTEGERS[kind]
            return values.integer(self._choices, bits, is_signed=is_signed)
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            assert field.enum_type is not None
            return self._enum(field.enum_type)
        text = self._text(field, present)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text

    def _enum(self, enum: EnumDescriptor) -> int:
        if self._choices.random() < 0.2:
            return self._choices.choice((99, -1, 2**31 - 1, -(2**31)))
        return self._choices.choice(enum.values).number

    def _text(self, field: FieldDescriptor | None, present: Any) -> str:
        way = self._choices.randrange(10)
        own = self._texts.get(field.name, ()) if field is not None else ()
        if field is not None and field.name == "expression" and way < 6:
            return values.formula(self._choices)
        if way < 4 and own:
            return self._choice(own)
        if way < 5 and self._known:
            return self._choice(self._known)
        if way == 5 and field is not None:
            return values.text_at_limit(self._choices, field)
        if way == 6 and present:
            return self._change(str(present))
        return self._choice(values.TEXTS)

    def _change(self, text: str) -> str:
        place = self._choices.randrange(len(text) + 1)
        inserted = self._choice(("\0", "A", "=", "_", "-", "%", "'", "é", " ", "0", ""))
        return text[:place] + inserted + text[place + self._choices.choice((0, 1)) :]

    def _any_text(self) -> Sequence[str]:
        return (
            *(values.formula(self._choices) for _ in range(5)),
            *values.TEXTS[:60],
            *self._choices.sample(self._known, min(len(self._known), 20)),
        )

    def _choice(self, items: Sequence[_Item]) -> _Item:
        return self._choices.choice(items)


def _places(message: Message, depth: int) -> Iterator[_Place]:
    """Yield each field of a message that a change may concern, set or not, and of the messages within."""
    for field in message.DESCRIPTOR.fields:
        yield message, field
        if field.message_type is None or depth >= _DEEPEST:
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in list(getattr(message, field.name))[:5]:
                    yield from _places(getattr(message, field.name)[key], depth + 1)
        elif field.is_repeated:
            for item in getattr(message, field.name)[:5]:
                yield from _places(item, depth + 1)
        elif message.HasField(field.name):
            yield from _places(getattr(message, field.name), depth + 1)


def _copy(item: Any) -> Any:
    if not isinstance(item, Message):
        return item
    copy = type(item)()
    copy.CopyFrom(item)
    return copy


def _value(given: Any) -> Value:
    value = Value()
    if given is None:
        value.null_value = 0  # type: ignore[assignment]  # the only value of its enum
    elif isinstance(given, bool):
        value.bool_value = given
    elif isinstance(given, int | float):
        value.number_value = given
    elif isinstance(given, str):
        value.string_value = given
    elif isinstance(given, dict):
        value.struct_value.SetInParent()
        for name, each in given.items():
            value.struct_value.fields[name].CopyFrom(_value(each))
    else:
        value.list_value.SetInParent()
        for each in given:
            value.list_value.values.append(_value(each))
    return value


def mask_paths(message: Descriptor, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the paths that an update mask of a message may have."""
    for field in message.fields:
        path = f"{prefix}.{field.name}".lstrip(".")
        yield path
        if field.message_type is not None and not field.is_repeated and depth < 2:
            yield from mask_paths(field.message_type, path, depth + 1)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _unknown_field(choices: random.Random) -> bytes:
    number = choices.choice((99, 1_000, 19_500, 2**29 - 1, 1, 0))
    wire_type = choices.randrange(8)
    payload = choices.choice((b"", b"\x01", b"\x7f" + b"x" * 127, b"\xff" * 10, b"\x05ab"))
    return _varint(number << 3 | wire_type) + payload


def _flip(choices: random.Random, raw: bytes) -> bytes:
    changed = bytearray(raw)
    for _ in range(choices.choice((1, 1, 3))):
        changed[choices.randrange(len(changed))] = choices.randrange(256)
    return bytes(changed)


def _spoil_text(choices: random.Random, raw: bytes) -> bytes:
    """Put bytes that are no UTF-8 in the place of some that are in a text, without a change of its length."""
    wrong = choices.choice((_SURROGATE, _OVERLONG, _LONE, b"\0"))
    place = choices.randrange(max(1, len(raw) - len(wrong)))
    return raw[:place] + wrong + raw[place + len(wrong) :]


def _groups(choices: random.Random, raw: bytes) -> bytes:
    levels = choices.choice((10, 99, 101, 1_000))
    return raw + _varint(99 << 3 | 3) * levels + _varint(99 << 3 | 4) * levels


_WAYS: Sequence[Callable[[random.Random, bytes], bytes]] = (
    lambda choices, raw: raw[: choices.randrange(len(raw))],
    _flip,
    _flip,
    _spoil_text,
    _spoil_text,
    lambda choices, raw: raw + _unknown_field(choices),
    lambda _, raw: raw + raw,
    _groups,
    lambda choices, raw: raw + choices.randbytes(choices.choice((1, 10, 100))),
    lambda choices, _: choices.randbytes(choices.choice((1, 10, 1_000, 70_000))),
)


def spoil(choices: random.Random, raw: bytes) -> bytes:
    """Change the bytes of a message, so that it may be a message no more."""
    return choices.choice(_WAYS)(choices, raw or b"\0")
