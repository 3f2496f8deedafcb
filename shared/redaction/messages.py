"""Find, hide and restore the credentials in URLs within a message; nothing is refused here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from redaction import hide_credentials, redact_urls

_Message = TypeVar("_Message", bound=Message)
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Text:
    """A text within a message."""

    path: Path  # names of fields and members, and places in lists; of plain data as JSON has it
    text: str
    put: Callable[[str], None]  # another text in its place


def texts_of(message: Message, at: Path = ()) -> Iterator[Text]:
    """Yield all texts of a message; names of members are none."""
    for field, value in message.ListFields():
        given: Any = value  # a text, a message, or a list or map of either
        path = at if isinstance(message, Value | Struct | ListValue) else (*at, field.name)
        if isinstance(given, str):
            yield Text(path, given, lambda text, name=field.name: setattr(message, name, text))  # type: ignore[misc] # a default binds the name
        elif isinstance(given, Message):
            yield from texts_of(given, path)
        elif isinstance(given, Mapping):
            yield from _texts_in(given, sorted(given), path)
        elif field.type in {field.TYPE_MESSAGE, field.TYPE_STRING}:
            yield from _texts_in(given, range(len(given)), path)


def _texts_in(container: Any, keys: Any, at: Path) -> Iterator[Text]:
    for key in keys:
        each, path = container[key], (*at, key)
        if isinstance(each, Message):
            yield from texts_of(each, path)
        elif isinstance(each, str):
            yield Text(path, each, lambda text, key=key: container.__setitem__(key, text))  # type: ignore[misc] # a default binds the key


def without_credentials(message: _Message, by: Callable[[str], str] = redact_urls) -> _Message:
    """Return a message without the credentials in its URLs; the same message if it has none."""
    payload = message.SerializeToString()
    if not _may_have_urls(payload):
        return message
    text = payload.decode(errors="surrogateescape")
    if by(text) == text:
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    for each in list(texts_of(copy)):
        if (hidden := by(each.text)) != each.text:
            each.put(hidden)
    return copy


def _may_have_urls(payload: bytes) -> bool:
    return b"://" in payload or b"%3a%2f%2f" in payload.lower()


def restore_credentials(message: Message, known: Message) -> None:
    """Put credentials back: a text that equals one of `known` with its credentials hidden becomes that text."""
    if not _may_have_urls(known.SerializeToString()):
        return
    hidden = {each.path: each.text for each in texts_of(known) if hide_credentials(each.text) != each.text}
    shown: dict[str, set[str]] = {}
    for text in hidden.values():
        shown.setdefault(hide_credentials(text), set()).add(text)
    if not hidden:
        return
    for each in list(texts_of(message)):
        meant = shown.get(each.text, set())
        if (same := hidden.get(each.path, "")) in meant:
            each.put(same)
        elif len(meant) == 1:
            each.put(next(iter(meant)))
