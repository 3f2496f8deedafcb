"""Read long tables once, and spread them over days and entities; nothing is decided or traded here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from optaic.plugins import SchemaMismatch, take_days, zone_of
from optaic.rules.columns import DATE, ENTITY, KEYS

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]  # days since 1970-01-01, or positions
_Short = npt.NDArray[np.int32]  # the same, for each of many rows
_SPARSE = 8  # cells for each row, from which on a mask of all cells costs more than sorting the rows


@dataclass(frozen=True)
class Cells:
    """The rows of a table: the day and the entity of each, and its value."""

    days: _Short
    codes: _Short  # positions in `entities`
    entities: list[str]  # those that have a row, ordered by name
    values: Matrix
    extra: Matrix | None = field(default=None)  # a second value, NaN where there is none

    def of(self, entity: str) -> tuple[Numbers, Matrix]:
        """Return the days and the values of one entity, by day."""
        if entity not in self.entities:
            return np.empty(0, np.int64), np.empty(0)
        rows = np.flatnonzero(self.codes == self.entities.index(entity))
        rows = rows[np.argsort(self.days[rows], kind="stable")]
        return self.days[rows].astype(np.int64), self.values[rows]

    def days_of(self, members: Sequence[str]) -> Numbers:
        """Return the days on which a member has a row, in order."""
        columns = self._columns(members)
        return distinct(self.days if (kept := columns >= 0).all() else self.days[kept])

    def spread(
        self,
        members: Sequence[str],
        days: Numbers,
        order: Literal["C", "F"] = "C",
        *,
        is_extra: bool = False,
    ) -> Matrix:
        """Return a matrix of days by members with the values, NaN where there is none; other days are left out."""
        columns, places = self._columns(members), position_of(self.days, days)
        values = self.values if self.extra is None or not is_extra else self.extra
        if not (kept := (columns >= 0) & (places >= 0)).all():
            columns, places, values = columns[kept], places[kept], values[kept]
        height, width = days.size, len(members)
        matrix = np.full(height * width, np.nan)
        if order == "C":
            matrix[places.astype(np.int64) * width + columns] = values
        else:
            matrix[columns.astype(np.int64) * height + places] = values
        return matrix.reshape((height, width), order=order)

    def _columns(self, members: Sequence[str]) -> _Short:
        """Return the position among the members of each row's entity, -1 if it is none."""
        if list(members) == self.entities:
            return self.codes
        positions = {name: position for position, name in enumerate(members)}
        return np.array([positions.get(name, -1) for name in self.entities], dtype=np.int32)[self.codes]


def read_cells(table: pl.DataFrame, column: str, name: str, extra: str | None = None) -> Cells:
    """Read the rows with a finite value, `date` as a day, each key once.

    Raises:
        SchemaMismatch: the table lacks a column or repeats a key.
    """
    for needed in (*KEYS, column, *([extra] if extra else [])):
        if needed not in table.columns:
            raise SchemaMismatch(
                f"{name}: no column {needed!r} (the columns are {', '.join(table.columns)}); choose another upstream, or "
                "change its pipeline"
            )
    numbers = [pl.col(each).cast(pl.Float64) for each in (column, *([extra] if extra else []))]
    rows = table.select(take_days(table[DATE], zone_of(table[DATE])), ENTITY, *numbers)
    kept = rows.select(pl.col(column).is_finite() & pl.col(DATE).is_not_null() & pl.col(ENTITY).is_not_null())
    if not (mask := kept.to_series().fill_null(value=False)).all():
        rows = rows.filter(mask)
    days, codes, entities = _keys(rows)
    if _repeats(days, codes, len(entities)):
        raise SchemaMismatch(f"{name}: several rows for one date and entity; give it one")
    return Cells(
        days,
        codes,
        entities,
        rows[column].to_numpy(),
        rows[extra].fill_null(float("nan")).to_numpy() if extra else None,
    )


def read_keys(table: pl.DataFrame, name: str) -> Cells:
    """Read the days and entities of a table, each pair as often as it stands there.

    Raises:
        SchemaMismatch: the table lacks a column.
    """
    for needed in KEYS:
        if needed not in table.columns:
            raise SchemaMismatch(
                f"{name}: no column {needed!r} (the columns are {', '.join(table.columns)}); choose another dataset, or "
                "change its pipeline"
            )
    rows = table.select(take_days(table[DATE], zone_of(table[DATE])), ENTITY).drop_nulls()
    days, codes, entities = _keys(rows)
    return Cells(days, codes, entities, np.ones(days.size))


def distinct(days: Numbers | _Short) -> Numbers:
    """Return each day once, in order."""
    if not days.size:
        return np.empty(0, dtype=np.int64)
    first = days.min()
    seen = np.zeros(int(days.max() - first) + 1, dtype=np.bool_)
    seen[days - first] = True
    return np.asarray(np.flatnonzero(seen) + first, dtype=np.int64)


def position_of(days: Numbers | _Short, known: Numbers) -> _Short:
    """Return the position of each day among those that are known, in order; -1 if it is not among them."""
    if not known.size or not days.size:
        return np.full(days.size, -1, dtype=np.int32)
    first, last = int(min(known[0], days.min())), int(max(known[-1], days.max()))
    lookup = np.full(last - first + 1, -1, dtype=np.int32)
    lookup[known - first] = np.arange(known.size)
    positions: _Short = lookup[days - np.int32(first)]
    return positions


def as_dates(days: Numbers) -> pl.Series:
    """Return days as a column of dates."""
    return pl.Series(DATE, days.astype(np.int32)).cast(pl.Date)


def _keys(rows: pl.DataFrame) -> tuple[_Short, _Short, list[str]]:
    entities: list[str] = rows[ENTITY].unique().sort().to_list()
    codes = rows[ENTITY].cast(pl.Enum(entities)).to_physical().cast(pl.Int32).to_numpy()
    return rows[DATE].to_physical().to_numpy(), codes, entities


def _repeats(days: _Short, codes: _Short, width: int) -> bool:
    if not days.size:
        return False
    first = days.min()
    cells = (days - first).astype(np.int64) * width + codes
    count = int(days.max() - first + 1) * width
    if count > _SPARSE * days.size + 1_000_000:
        return bool(pl.Series(cells).n_unique() < cells.size)
    seen = np.zeros(count, dtype=np.bool_)
    seen[cells] = True
    return bool(np.count_nonzero(seen) < cells.size)
