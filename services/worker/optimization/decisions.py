"""Keep the decisions of an optimizer as one table: a new one takes its place among the earlier ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import polars as pl

from optaic.rules.columns import DATE, ENTITY, WEIGHT

SCHEMA = {DATE: pl.Date, ENTITY: pl.String, WEIGHT: pl.Float64}


def table_of(date: dt.date, weights: Mapping[str, float]) -> pl.DataFrame:
    """Return one decision as `date, entity, weight`, ordered by name."""
    names = sorted(weights)
    return pl.DataFrame(
        {DATE: [date] * len(names), ENTITY: names, WEIGHT: [float(weights[name]) for name in names]},
        schema=SCHEMA,
    )


def add_decision(earlier: pl.DataFrame | None, decision: pl.DataFrame, date: dt.date) -> pl.DataFrame:
    """Return all decisions with the new one, which replaces a decision of the same date."""
    if earlier is None:
        return decision
    kept = earlier.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).filter(
        pl.col(DATE) != date
    )
    return pl.concat([kept, decision]).sort(DATE, ENTITY)


def weights_before(earlier: pl.DataFrame | None, date: dt.date) -> tuple[dt.date, dict[str, float]] | None:
    """Return the date and the weights of the last decision before a date, None if there is none."""
    if earlier is None or (before := earlier.filter(pl.col(DATE) < date)).is_empty():
        return None
    last = before[DATE].max()
    assert isinstance(last, dt.date)
    rows = before.filter(pl.col(DATE) == last).select(ENTITY, WEIGHT)
    return last, dict(rows.iter_rows())
