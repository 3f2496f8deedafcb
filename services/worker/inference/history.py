"""Join new predictions with those that stay, and count what must not be among them; tables in, a table out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from optaic.rules.columns import CONFIDENCE, DATE, ENTITY, KEYS, PREDICTED, VALUE

SCHEMA: Mapping[str, pl.DataType] = {
    DATE: pl.Date(),
    ENTITY: pl.String(),
    VALUE: pl.Float64(),
    CONFIDENCE: pl.Float64(),
}
_KNOWN = "_known"  # the session on which the last label of a row's model became known
_ROWS = {**SCHEMA, _KNOWN: pl.Date()}


@dataclass(frozen=True)
class Wanted:
    """The dates that a run predicts."""

    first: dt.date  # the first date of the version that is read: from here on everything is predicted again
    after: dt.date | None  # of the earlier dates only those after this one; None: all
    until: dt.date | None  # nothing later is read; None: everything is

    def holds(self, date: pl.Expr) -> pl.Expr:
        """Return whether a date is predicted."""
        is_wanted = pl.lit(value=True) if self.until is None else date <= self.until
        return is_wanted if self.after is None else is_wanted & ((date > self.after) | (date >= self.first))


def choose_dates(
    base: pl.DataFrame | None, first: dt.date, until: dt.date | None, *, is_full: bool
) -> Wanted:
    """Return which dates are predicted: in full mode all, else those that no earlier run wrote, and all from `first` on."""
    if is_full or base is None:
        return Wanted(first, None, until)
    written = base.filter(pl.col(DATE) < first)[DATE]
    last = written.max()
    return Wanted(first, last if isinstance(last, dt.date) else None, until)


def keep(base: pl.DataFrame | None, wanted: Wanted) -> pl.DataFrame:
    """Return what stays of the earlier predictions: all dates that are not predicted again."""
    if base is None:
        return pl.DataFrame(schema=SCHEMA)
    return _shape(base.filter(~wanted.holds(pl.col(DATE))), SCHEMA)


class Collected:
    """The new predictions, each with what its model knew."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []

    def add(self, predictions: pl.DataFrame, known: dt.date | None) -> None:
        """Add predictions of a model that learnt no label which became known after `known`; None: it is not said."""
        self._parts.append(_shape(predictions.with_columns(pl.lit(known, pl.Date).alias(_KNOWN)), _ROWS))

    def count_in_sample(self) -> int:
        """Return how many predictions come from a model that used a label known only after their date."""
        return self._rows().filter(pl.col(DATE) < pl.col(_KNOWN)).height

    def join(self, kept: pl.DataFrame) -> pl.DataFrame:
        """Return all predictions in the order of their keys."""
        return pl.concat([kept, _shape(self._rows(), SCHEMA)]).sort(KEYS)

    def _rows(self) -> pl.DataFrame:
        return pl.concat([pl.DataFrame(schema=_ROWS), *self._parts])


def _shape(table: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return these columns of a table, of these types."""
    return table.select(pl.col(name).cast(kind) for name, kind in schema.items())


def summarize(table: pl.DataFrame) -> dict[str, float | None]:
    """Return mean and deviation (ddof 1) of the predictions, and the mean confidence; null where there are too few."""
    value, confidence = (table[name].drop_nulls() for name in PREDICTED)
    figures = {"mean": value.mean(), "std": value.std(), "mean_confidence": confidence.mean()}
    return {name: float(found) if isinstance(found, float) else None for name, found in figures.items()}


def count_gaps(sessions: pl.Series, table: pl.DataFrame) -> int:
    """Return how many of the sessions between the first and the last prediction have none."""
    first, last = table[DATE].min(), table[DATE].max()
    inside = sessions.filter((sessions >= first) & (sessions <= last))
    return int((~inside.is_in(table[DATE].unique().implode())).sum())
