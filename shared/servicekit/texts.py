"""Texts that no service can keep: PostgreSQL has no NUL, neither in text nor in JSON; it knows no message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

NUL = "\0"
_JSON = (Struct, ListValue, Value)


def find_nul(message: Message, path: str = "") -> Iterator[str]:
    """Yield the path of every text with a NUL: `instance.labels['a']`; within a Struct as JSON has it."""
    for field, value in message.ListFields():
        # The fields of a Struct are how it is encoded, not what somebody wrote.
        at = path if isinstance(message, _JSON) else f"{path}.{field.name}".lstrip(".")
        if not field.is_repeated:
            yield from _find(value, at)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in sorted(value):
                yield from _find(key, f"{at}[{key!r}]")
                yield from _find(value[key], f"{at}[{key!r}]")
        else:
            for index, item in enumerate(value):
                yield from _find(item, f"{at}[{index}]")


def _find(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Message):
        yield from find_nul(value, path)
    elif isinstance(value, str) and NUL in value:
        yield path
