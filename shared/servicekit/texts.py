"""Find texts that PostgreSQL cannot store: it has no NUL, neither in text nor in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

NUL = "\0"
_JSON = (Struct, ListValue, Value)


def find_nul(message: Message, path: str = "") -> Iterator[str]:
    """Yield the path of every text with NUL, such as `instance.labels['a']`; inside a Struct as in its JSON."""
    for field, value in message.ListFields():
        # The fields of a Struct are its encoding; its JSON has other paths.
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
