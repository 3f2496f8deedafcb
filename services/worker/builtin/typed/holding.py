"""Compare the columns and types of a new table with the previous version; reads and writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from optaic.plugins import HeldTypes, SchemaMismatch
from optaic.plugins.words import describe_type
from worker.builtin.typed.casting import to_exact_floats
from worker.builtin.typed.kinds import DEFAULT, storage_type


@dataclass(frozen=True)
class Shape:
    """A table whose columns have types, and how they differ from those of the version before."""

    table: pl.DataFrame
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()  # "close: Int64 to Float64"

    def changes(self) -> dict[str, list[str]]:
        """Return the differences, in the form of a run's metrics."""
        found = {
            "columns_added": self.added,
            "columns_removed": self.removed,
            "columns_retyped": self.retyped,
        }
        return {name: list(names) for name, names in found.items() if names}


def settle(
    table: pl.DataFrame, held: HeldTypes | None, declared: Mapping[str, pl.DataType], *, is_free: bool
) -> Shape:
    """Give every column a type: a column without any value keeps the one it had, or takes the declared or the default one.

    Args:
        table: the whole content of a new version.
        held: the columns of the version before; None where there is none.
        declared: what the definition says of types.
        is_free: whether columns may be gone or of another type; otherwise Int64 may become Float64, and a column
            in which there was no value yet may get its type.

    Raises:
        SchemaMismatch: naming every column that is gone or of another type, what it was and is, and what to do.
    """
    before = {} if held is None else held.types
    columns, retyped, problems = [], [], []
    for column in table:
        name, was = column.name, before.get(column.name)
        if column.dtype == pl.Null():
            columns.append(column.cast(was or declared.get(name, DEFAULT)))
            continue
        if was is None or storage_type(column.dtype) == storage_type(was):
            columns.append(column)
            continue
        if not is_free:
            column = _hold(column, was)  # noqa: PLW2901 - the same values as the type that it had
        columns.append(column)
        now = storage_type(column.dtype) or column.dtype
        if now == storage_type(was):
            continue
        if is_free or _widens(was, now) or (held is not None and name in held.empty):
            retyped.append(f"{name}: {describe_type(was)} to {describe_type(now)}")
        else:
            problems.append(
                f"column {name!r} was {describe_type(was)} and is {describe_type(now)} now{_example(column, was)}"
            )
    removed = tuple(name for name in before if name not in table.columns)
    if removed and not is_free:
        problems += [f"column {name!r} ({describe_type(before[name])}) no longer exists" for name in removed]
    if problems:
        raise SchemaMismatch(f"{'; '.join(problems)}; refresh in mode FULL to accept the table as it is now")
    added = tuple(name for name in table.columns if name not in before) if held is not None else ()
    return Shape(pl.DataFrame(columns), added, removed, tuple(retyped))


def _widens(was: pl.DataType, now: pl.DataType) -> bool:
    return was.is_integer() and now.is_float()


def _hold(column: pl.Series, was: pl.DataType) -> pl.Series:
    """Return the column as it was, where that changes no value: nothing but nulls, or whole numbers among others."""
    if column.null_count() == column.len():
        return pl.Series(column.name, [None], was).new_from_index(0, column.len())
    if not (was.is_float() and column.dtype.is_integer()):
        return column
    floats = to_exact_floats(column)
    return column if floats is None else floats


def _example(column: pl.Series, was: pl.DataType) -> str:
    """Return where the first text is that is no number, where numbers are held."""
    if not (was.is_numeric() and column.dtype == pl.String()):
        return ""
    wrong = column.cast(pl.Float64, strict=False).is_null() & column.is_not_null()
    row = wrong.arg_max() if wrong.any() else None
    return "" if row is None else f", first in row {row + 1}"


def align(base: pl.DataFrame, new: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return rows of the version before and new ones, with the same columns of the same types, so that they can be put together.

    A column that is new is null in what was before.

    Raises:
        SchemaMismatch: naming every column that is gone or of another type, what it was and is, and what to do.
    """
    held = HeldTypes(base.schema, lambda: find_empty(base))
    settled = settle(new, held, {}, is_free=False).table
    types = settled.schema
    for name, was in base.schema.items():
        if was == types[name] or storage_type(was) == storage_type(types[name]):
            types[name] = was
        elif _widens(was, types[name]) and to_exact_floats(base[name]) is None:
            raise SchemaMismatch(
                f"column {name!r} was {describe_type(was)} and is {describe_type(types[name])} now, but has numbers that "
                "would change as that type; refresh in mode FULL to accept the table as it is now"
            )
    order = [*base.columns, *(name for name in new.columns if name not in base.columns)]
    return _as_types(base, types, order), _as_types(settled, types, order)


def _as_types(table: pl.DataFrame, types: Mapping[str, pl.DataType], order: Iterable[str]) -> pl.DataFrame:
    return table.select(
        pl.col(name).cast(types[name]) if name in table.columns else pl.lit(None, types[name]).alias(name)
        for name in order
    )


def find_empty(table: pl.DataFrame) -> frozenset[str]:
    """Return the columns in which there is no value."""
    return frozenset(column.name for column in table if column.null_count() == column.len())
