"""Take the returns that an optimizer reads from a dataset of prices, up to a date."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import polars as pl

from optaic.plugins import NoDataInRange
from optaic.rules.columns import DATE
from worker.backtest.panel import check_positive
from worker.backtest.returns import list_returns
from worker.backtest.sessions import find_sessions
from worker.backtest.settings import BacktestSettings
from worker.backtest.tables import as_dates, read_cells

_NAME = "covariance"  # the role of the prices, in errors


@dataclass(frozen=True)
class Past:
    """The returns up to a date, and who has a close on the last session."""

    returns: pl.DataFrame  # `date` and a column for each entity
    priced: frozenset[str]
    last_session: dt.date
    thin_dates: int  # with a close of somebody and no session
    has_later: bool  # the prices go on after the date


def read_past(prices: pl.DataFrame, until: dt.date) -> Past:
    """Return the returns over the sessions up to a date; sessions and carried closes are those of a backtest.

    Raises:
        NoDataInRange: there is no session up to the date.
        SchemaMismatch: the table lacks a column or repeats a key, or a close is not positive.
    """
    cells = read_cells(prices, "close", _NAME)
    names = cells.entities
    days = cells.days_of(names)
    known = days[days <= (until - dt.date(1970, 1, 1)).days]
    grid = cells.spread(names, known)
    sessions = find_sessions(grid, None, BacktestSettings())
    used, closes = known[sessions.is_session], grid[sessions.is_session]
    if not used.size:
        begin = f"begin on {as_dates(days[:1])[0]}" if days.size else "have no close"
        raise NoDataInRange(
            f"{_NAME}: the prices {begin}, and {until} is decided; choose other prices or a later data_date"
        )
    check_positive(closes)
    return Past(
        list_returns(closes, used, names),
        frozenset(names[column] for column in np.flatnonzero(~np.isnan(closes[-1])).tolist()),
        as_dates(used[-1:])[0],
        int(np.count_nonzero(sessions.left_out)),
        bool(days.size > known.size),
    )


def returns_of(prices: pl.DataFrame) -> pl.DataFrame:
    """Return `date` and a column of returns for each entity over all sessions; raises as `read_past`."""
    last = prices[DATE].max()
    return read_past(prices, last if isinstance(last, dt.date) else dt.date.max).returns
