"""The part of a table to read, and what reading it needs to know; it loads nothing that reads."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from optaic import errors

Date = dt.date | str
Find = Callable[
    [str], Mapping[str, str]
]  # the variables by which a URI is reached, beside those of the environment
Fetch = Callable[[str, str], bytes | None]  # a file of a run by its name, through a gateway; None without one

FetchRows = Callable[
    [str, Mapping[str, Any]], Iterator[bytes] | None
]  # a run's table as pages of Arrow, through a gateway; None without one


@dataclass(frozen=True)
class Selection:
    """The part of a table to read; None selects everything, and dates are inclusive."""

    columns: Sequence[str] | None = None
    entities: Sequence[str] | None = None
    start: dt.date | None = None
    end: dt.date | None = None

    @classmethod
    def of(
        cls,
        columns: Sequence[str] | None,
        entities: Sequence[str] | None,
        start: Date | None,
        end: Date | None,
    ) -> Selection:
        """Return what a caller gave, checked.

        Raises:
            InvalidArgumentError: Something is no list of names or no date, or the dates run backwards.
        """
        found = cls(
            _names("columns", columns),
            _names("entities", entities),
            _date("start", start),
            _date("end", end),
        )
        if found.start and found.end and found.start > found.end:
            raise _invalid("start", f"{found.start} is after end ({found.end}); exchange them")
        return found

    def arguments(self) -> dict[str, Any]:
        """Return it as an accessor takes it."""
        return {"columns": self.columns, "entities": self.entities, "start": self.start, "end": self.end}


@dataclass(frozen=True)
class Plugin:
    """A component of a dataset: its code, and its configuration with the schema of that."""

    code_ref: str
    config: Mapping[str, Any]
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """One version of a dataset, and how it is read."""

    name: str  # the dataset's name, for messages
    store: Plugin
    accessor: Plugin
    timezone: str
    uri: str
    physical_version: str
    run_id: str  # that has written it


def _names(field: str, given: Sequence[str] | None) -> Sequence[str] | None:
    if given is None:
        return None
    is_list = isinstance(given, Iterable) and not isinstance(given, str)
    names = list(given) if is_list else []
    if not is_list or not all(isinstance(name, str) for name in names):
        raise _invalid(field, f"must be a list of names, not {given!r}")
    return names


def _date(field: str, given: Date | None) -> dt.date | None:
    if given is None or (isinstance(given, dt.date) and not isinstance(given, dt.datetime)):
        return given
    with contextlib.suppress(ValueError):
        if isinstance(given, str):
            return dt.date.fromisoformat(given)
    raise _invalid(field, f"must be a date like 2022-12-28, not {given!r}")


def _invalid(field: str, text: str) -> errors.InvalidArgumentError:
    return errors.InvalidArgumentError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        f"{field}: {text}",
        [errors.Violation(field, text)],
    )
