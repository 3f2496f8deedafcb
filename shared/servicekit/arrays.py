"""Write lists as arrays of PostgreSQL: a statement has up to forty of them, most with one element."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, PyFormat
from psycopg.types.array import ListDumper


def _quoted(value: object) -> str:
    text = str(value)
    if '"' in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


# By the exact type of an element. psycopg looks for each element, and for each type, on its own.
_WRITERS: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "NULL",
    str: _quoted,
    int: str,
    bool: lambda value: "t" if value else "f",
    float: str,
    bytes: lambda value: f'"\\\\x{value.hex()}"',
    dt.datetime: _quoted,
    dt.date: _quoted,
    uuid.UUID: str,
}


class _ArrayDumper(ListDumper):
    """A writer of lists of plain values, whose type the statement says; psycopg writes all others."""

    def get_key(self, obj: list[Any], format: PyFormat) -> Any:  # noqa: A002 - psycopg's name
        return self.cls if _is_plain(obj) else super().get_key(obj, format)

    def upgrade(self, obj: list[Any], format: PyFormat) -> Any:  # noqa: A002 - psycopg's name
        return self if _is_plain(obj) else super().upgrade(obj, format)

    def dump(self, obj: list[Any]) -> Any:
        """Return the text of the array."""
        if not _is_plain(obj):
            return super().dump(obj)
        text = ",".join([_WRITERS[type(value)](value) for value in obj])
        if "\0" in text:
            raise psycopg.DataError("a text must not contain NUL")
        return b"{" + text.encode() + b"}"


def _is_plain(values: list[Any]) -> bool:
    return all([type(value) in _WRITERS for value in values])  # noqa: C419 - a list is made faster than a generator


class Adaptation:
    """The types of values that a connection takes, for psycopg's `context`."""

    connection: psycopg.AsyncConnection[Any] | None = None

    def __init__(self) -> None:
        self.adapters = AdaptersMap(psycopg.adapters)
        self.adapters.register_dumper(list, _ArrayDumper)
