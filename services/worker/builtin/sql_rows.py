"""Convert rows of a database to a table; reports columns whose values have several types. Connects to no database.

SQLite and its like give each value a type of its own. A column of several becomes one of the type that takes all.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl

from optaic.plugins import OutOfRange, SchemaMismatch, UnparsableData

_WORDS: Mapping[type, str] = {
    bool: "a Boolean", int: "a whole number", float: "a number", Decimal: "a decimal", str: "a text",
    bytes: "bytes", dt.date: "a date", dt.datetime: "a time",
}  # fmt: skip
_NUMBERS = frozenset({bool, int, float, Decimal})
_LONGEST_SHOWN = 60  # characters
_DIGITS = 38  # of a decimal
_WIDEST = 2**127  # whole numbers up to here come as they are; the store judges them


@dataclass(frozen=True)
class Mixture:
    """The mixture of types that one column contains."""

    said: str  # the first value of each type, with its row; for metrics
    altered: str = ""  # the first value that would become another number, with its row; for metrics
    places: str = ""  # the rows of the first values of each type, without the values; for errors
    altered_row: int = 0  # of the first value that would become another number; 0: none does
    texts: pl.Series | None = None  # all values as they are written, where one is altered


@dataclass(frozen=True)
class Fetched:
    """A table, and what its source says of it otherwise; by column."""

    table: pl.DataFrame
    mixtures: Mapping[str, Mixture]
    renamed: Mapping[str, str]  # why a column has another name than at the source


class Cursor:
    """The rows that were read, in the form in which polars takes them from any database."""

    def __init__(self, description: Sequence[Any], rows: Sequence[Sequence[Any]]) -> None:
        self.description = description
        self._rows = [tuple(row) for row in rows]

    def execute(self, *_: object, **__: object) -> Cursor:
        """Return this cursor: its statement has already been executed."""
        return self

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return self._rows


def make_table(
    description: Sequence[Any], rows: Sequence[Sequence[Any]], wanted: Collection[str], source: str
) -> Fetched:
    """Make a table of the rows.

    Args:
        description: of the columns, as drivers give it (PEP 249); the name first.
        rows: with the values in this order.
        wanted: the columns that matter; empty: all.
        source: what was read.

    Raises:
        OutOfRange: a number is too large.
        SchemaMismatch: values of a column are of types that do not go together.
        UnparsableData: a decimal is no number.
        polars.exceptions.PolarsError: the columns make no table.
    """
    mixtures = {}
    for place, column in enumerate(zip(*rows, strict=True)):
        name = str(description[place][0])
        if (not wanted or name in wanted) and (found := _judge(name, column, source)):
            mixtures[place] = found
    table = pl.read_database("", Cursor(description, rows), infer_schema_length=None)
    renamed = {
        now: f"column {place} has no name at the source"
        for place, (now, was) in enumerate(zip(table.columns, description, strict=True), 1)
        if not was[0]
    }
    for name in table.columns:  # as SQLite calls the second column of a name in a query
        first, _, number = name.rpartition(":")
        if number.isdigit() and first in table.columns:
            renamed[name] = f"another column of the query has the name {first!r}"
    return Fetched(table, {table.columns[place]: found for place, found in mixtures.items()}, renamed)


def _judge(name: str, column: Sequence[Any], source: str) -> Mixture | None:
    """Return what a column mixes; None where nothing.

    Raises:
        as `make_table`.
    """
    kinds = set(map(type, column)) - {type(None)}
    if int in kinds:
        _check_whole(name, column, source)
    if Decimal in kinds:
        _check_decimals(name, column, source)
    if len(kinds) <= 1 or not kinds <= set(_WORDS):  # a driver's own types are its own business
        return None
    firsts = list(_firsts(column))
    said = " and ".join(f"{_show(value)} in row {row} is {_WORDS[kind]}" for kind, row, value in firsts)
    places = " and ".join(f"row {row} has {_WORDS[kind]}" for kind, row, _ in firsts)
    if kinds & {dt.date, dt.datetime, bytes} or (kinds != {bool} and bool in kinds and str not in kinds):
        raise SchemaMismatch(f"{source}: column {name!r} mixes types: {places}. Cast it in a query")
    if float not in kinds or str in kinds:
        return Mixture(said, places=places)
    changed = ((row, value) for row, value in enumerate(column, 1) if _changes(value))
    if (first := next(changed, None)) is None:
        return Mixture(said, places=places)
    texts = pl.Series(name, [None if value is None else str(value) for value in column], pl.String)
    return Mixture(said, f"{_show(first[1])} in row {first[0]}", places, first[0], texts)


def _firsts(column: Sequence[Any]) -> Iterator[tuple[type, int, Any]]:
    seen = set()
    for row, value in enumerate(column, 1):
        kind = type(value)
        if value is not None and kind not in seen:
            seen.add(kind)
            yield kind, row, value


def _changes(value: Any) -> bool:
    """Return whether a number among floats would be another one as a float."""
    if isinstance(value, Decimal):
        return Decimal(repr(float(value))) != value
    return isinstance(value, int) and (abs(value) > 2**1023 or int(float(value)) != value)


def _check_whole(name: str, column: Sequence[Any], source: str) -> None:
    for row, value in enumerate(column, 1):
        if type(value) is int and not -_WIDEST <= value < _WIDEST:
            raise OutOfRange(
                f"{source}: column {name!r}: the number in row {row} has more than 64 bits; cast the column to text in a query"
            )


def _check_decimals(name: str, column: Sequence[Any], source: str) -> None:
    """Refuse values that do not fit into a decimal; the digits before and after the point count together."""
    before = after = 0
    for row, given in enumerate(column, 1):
        if not isinstance(given, Decimal | int):
            continue
        value = Decimal(given)
        if not value.is_finite():
            raise UnparsableData(
                f"{source}: column {name!r}: the value in row {row} is not a decimal number; cast the column to a "
                "float, or this value to null, in a query"
            )
        before = max(before, value.adjusted() + 1)
        after = max(after, -int(value.as_tuple().exponent))
        if before + after > _DIGITS:
            raise OutOfRange(
                f"{source}: column {name!r}: with the value in row {row} it needs more than {_DIGITS} digits; cast it "
                "to text or a float in a query"
            )


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str | bytes) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
