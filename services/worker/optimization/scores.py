"""Combine the signals of an optimizer on the date of its decision."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from optaic.plugins import NoDataInRange
from optaic.rules.columns import VALUE
from worker.backtest.panel import combine_signals
from worker.backtest.tables import as_dates, distinct, read_cells

_EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True)
class Scores:
    """The combined signal of one date."""

    date: dt.date
    by_entity: dict[str, float]  # in the order of names; who lacks a value of a signal has none


def combine_scores(
    signals: Sequence[pl.DataFrame], primary_weight: float, data_date: dt.date | None
) -> Scores:
    """Return the combined signal on the last date that every signal has, or on a given date.

    Args:
        signals: `date, entity, value` each, the primary first.
        primary_weight: of the primary; the others share the rest.
        data_date: the date that is decided, None for the last one.

    Raises:
        NoDataInRange: the signals have no such date, or no entity has a value of each of them.
        SchemaMismatch: a table lacks a column or repeats a key.
    """
    cells = [read_cells(signal, VALUE, "signal") for signal in signals]
    days = distinct(cells[0].days)
    for each in cells[1:]:
        days = np.intersect1d(days, each.days)
    dates = as_dates(days)
    if not days.size:
        raise NoDataInRange(
            "signals: there is no date on which every signal has a value; choose other signals"
        )
    date = data_date or dates[-1]
    if date not in dates:
        before = dates.filter(dates < date)
        near = f"the last one before is {before[-1]}" if before.len() else f"the first one is {dates[0]}"
        raise NoDataInRange(f"data_date: {date} is no date on which every signal has a value; {near}")
    names = sorted({name for each in cells for name in each.entities})
    day = np.array([(date - _EPOCH).days], dtype=np.int64)
    combined = combine_signals([each.spread(names, day) for each in cells], primary_weight)[0]
    values = {name: float(value) for name, value in zip(names, combined, strict=True) if not np.isnan(value)}
    if not values:
        raise NoDataInRange(
            f"signals: on {date} no entity has a value of each signal, or the values of a signal are all equal; choose other "
            "signals or another data_date"
        )
    return Scores(date, values)
