"""The parameters of a read, from the query of its URL; they are checked before anything is asked or opened."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from gateway import errors

JSON, CSV, ARROW = "application/json", "text/csv", "application/vnd.apache.arrow.stream"
MEDIA_TYPES = (JSON, CSV, ARROW)
MOST_ROWS = 10_000
_ROWS = 1_000
_MOST_QUERY = 24 * 1024  # characters
_MOST_NAMES = 1_000
_MOST_NAME = 1_000  # characters
_SELECTION = ("columns", "entities", "start", "end")
_PAGING = ("page_size", "page_token")
_TOKEN = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,15})\.([0-9a-f]{16})", re.ASCII)


@dataclass(frozen=True)
class Parameters:
    """The part of a table that is wanted, and how."""

    columns: Sequence[str] | None
    entities: Sequence[str] | None
    start: str
    end: str
    page_size: int
    position: tuple[int, int, int]
    mark: str

    def describe(self) -> dict[str, Any]:
        """Return them as the reader of the table takes them."""
        return {
            "columns": self.columns,
            "entities": self.entities,
            "start": self.start,
            "end": self.end,
            "page_size": self.page_size,
            "position": list(self.position),
        }

    def token(self, position: Sequence[int] | None) -> str:
        """Return the token of the page that begins at a position; empty if there is none."""
        return "" if position is None else f"{position[0]}.{position[1]}.{position[2]}.{self.mark}"


def read_parameters(path: str, query: str, *, is_statistics: bool) -> Parameters:
    """Return the parameters of a read.

    Raises:
        InvalidArgumentError: INVALID_ARGUMENT, INVALID_PAGE_TOKEN; it names the parameter.
    """
    if len(query) > _MOST_QUERY:
        raise errors.parameter(
            "query", f"has more than {_MOST_QUERY} characters; name fewer columns or entities"
        )
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in given:
            raise errors.parameter(name[:100], "stands twice; separate several names by commas")
        given[name] = value
    known = _SELECTION if is_statistics else (*_SELECTION, *_PAGING)
    for name in given:
        if name not in known:
            raise errors.parameter(name[:100], f"is no parameter of this path; it has {', '.join(known)}")
    start, end = _date("start", given), _date("end", given)
    if start and end and start > end:
        raise errors.parameter("start", "is after end; exchange them")
    columns, entities = _names("columns", given), _names("entities", given)
    mark = _mark(path, columns, entities, start, end)
    return Parameters(columns, entities, start, end, _size(given), _position(given, mark), mark)


def media_type_of(accept: str) -> str:
    """Return the type of the answer: the first of the header Accept that there is; JSON where nothing is asked for.

    Raises:
        InvalidArgumentError: NOT_ACCEPTABLE.
    """
    wanted = [each.partition(";")[0].strip().lower() for each in accept.split(",")]
    for each in wanted:
        if each in MEDIA_TYPES:
            return each
        if each in {"", "*/*", "application/*"}:
            return JSON
        if each == "text/*":
            return CSV
    raise errors.not_acceptable(", ".join(MEDIA_TYPES))


def _names(name: str, given: Mapping[str, str]) -> list[str] | None:
    """Return a list of names: with commas between them, or as a JSON list, for names that have commas."""
    text = given.get(name)
    if not text:
        return None
    found: Any = text.split(",")
    if text.startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise errors.parameter(name, "begins with `[`, and is no list of JSON") from None
    if not all(isinstance(each, str) and len(each) <= _MOST_NAME for each in found):
        raise errors.parameter(name, f"must be names of at most {_MOST_NAME} characters")
    if len(found) > _MOST_NAMES:
        raise errors.parameter(name, f"has more than {_MOST_NAMES} names; name fewer")
    return list(found)


def _date(name: str, given: Mapping[str, str]) -> str:
    text = given.get(name, "")
    if not text:
        return ""
    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError:
        raise errors.parameter(name, "must be a date like 2022-12-28") from None


def _size(given: Mapping[str, str]) -> int:
    text = given.get("page_size", "")
    if not text:
        return _ROWS
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 0 < int(text) <= MOST_ROWS:
        raise errors.parameter("page_size", f"must be a number of rows from 1 to {MOST_ROWS}")
    return int(text)


def _position(given: Mapping[str, str], mark: str) -> tuple[int, int, int]:
    text = given.get("page_token", "")
    if not text:
        return 0, 0, 0
    found = _TOKEN.fullmatch(text)
    if found is None or found[4] != mark:
        raise errors.page_token()
    return int(found[1]), int(found[2]), int(found[3])


def _mark(path: str, *selection: object) -> str:
    """Return what ties a token to the table and to the selection of which it is."""
    return hashlib.sha256(json.dumps([path, *selection]).encode()).hexdigest()[:16]
