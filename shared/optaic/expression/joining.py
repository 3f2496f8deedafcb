"""Join the tables that an expression reads to one, whose columns have the names that the expression gives them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import polars as pl

from optaic.expression.grid import Grid
from optaic.expression.names import find_namesakes, spell_column, spellings
from optaic.expression.tree import Expression
from optaic.plugins.errors import SchemaMismatch
from optaic.plugins.words import describe_type
from optaic.rules.columns import DATE, KEYS


class Table(Protocol):
    """A table `date, entity, columns...` with a name."""

    @property
    def name(self) -> str:
        """The name in `name.column`."""

    @property
    def instance_id(self) -> str:
        """The id of the instance that it is the output of; empty if it is of none."""

    @property
    def frame(self) -> pl.DataFrame:
        """The whole table."""


def join_inputs(expression: Expression, tables: Sequence[Table]) -> pl.DataFrame:
    """Return one table with `date`, `entity` and exactly the columns that the expression reads, under its names for them.

    Raises:
        ExpressionError: a column is in no table, or in several.
        SchemaMismatch: a table lacks a key, or the tables' keys have different types.
    """
    # One input in two roles is one table.
    tables = list({table.instance_id or id(table): table for table in tables}.values())
    for table in tables:
        _check_keys(table, tables[0])
        if len(tables) > 1:  # the evaluation checks a single one
            _check_rows(table)
    owners: dict[str, list[tuple[Table, str]]] = defaultdict(list)
    for table in tables:
        for column in table.frame.columns:
            if column not in KEYS:
                for name in (*spellings(column), spell_column(table.name, column)):
                    owners[name].append((table, column))
    shared = {
        name: [spell_column(table.name, column) for table, column in found]
        for name, found in owners.items()
        if len(found) > 1
    }
    namesakes = find_namesakes((table.name, table.instance_id or str(id(table))) for table in tables)
    expression.check_columns(owners, shared, namesakes)
    joined: pl.DataFrame | None = None
    first = tables[0].frame[DATE]
    for table in tables:
        wanted = [
            pl.col(column).alias(name)
            for name in expression.columns
            for t, column in owners[name]
            if t is table
        ]
        part = table.frame.select(*KEYS, *wanted).with_columns(_on_clock_of(table.frame[DATE], first))
        joined = part if joined is None else joined.join(part, on=KEYS, how="full", coalesce=True)
    assert joined is not None
    return joined


def align_keys(table: Table, other: Table) -> pl.DataFrame:
    """Return a table whose rows can be joined with those of another one by date and entity.

    Raises:
        SchemaMismatch: it lacks a key, or the tables' keys have different types.
    """
    _check_keys(table, other)
    return table.frame.with_columns(_on_clock_of(table.frame[DATE], other.frame[DATE]))


def _on_clock_of(times: pl.Series, first: pl.Series) -> pl.Series:
    """Convert times to the zone of the first input's, because rows belong together by instant."""
    zones = [getattr(each.dtype, "time_zone", None) for each in (times, first)]
    return times if None in zones else times.dt.convert_time_zone(str(zones[1]))


def _check_keys(table: Table, first: Table) -> None:
    for key in KEYS:
        if key not in table.frame.columns:
            raise SchemaMismatch(
                f"input {table.name!r} has no column {key!r}, which an expression needs; choose another upstream"
            )
        expected = first.frame.schema[key]
        kind = _on_clock_of(table.frame[key], first.frame[key]).dtype
        if kind != expected:
            raise SchemaMismatch(
                f"{key!r} is {describe_type(kind)} in {table.name!r} but {describe_type(expected)} in {first.name!r}; "
                "give it the same type in both"
            )


def _check_rows(table: Table) -> None:
    try:
        Grid.of(table.frame)
    except SchemaMismatch as error:
        raise SchemaMismatch(f"input {table.name!r}: {error.message}") from error
