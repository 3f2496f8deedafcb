"""Compute the returns of the benchmark over sessions on which prices may be missing."""

from __future__ import annotations

import numpy as np

from optaic.plugins import NoDataInRange
from worker.backtest.settings import BacktestSettings
from worker.backtest.tables import Cells, Mask, Matrix, Numbers, as_dates


def equal_weight_returns(
    carried: Matrix, sold_on: Numbers, members: Mask | None, settings: BacktestSettings
) -> Matrix:
    """Return the mean return of the members that have a close on an earlier session; 0 where there is no member.

    Args:
        carried: (sessions, members) the carried closes, NaN before the first one.
        sold_on: (members,) the session on which a delisted member brings its last return and leaves; -1: never.
        members: (sessions, members) who is a member on a session; it counts for the return to the next one. None: all.
        settings: the return of a delisting.
    """
    levels = np.asfortranarray(carried)
    returns: Matrix = levels[1:] / levels[:-1] - 1.0
    counted = ~np.isnan(levels[:-1])
    sold = np.flatnonzero(sold_on > 0)
    returns[sold_on[sold] - 1, sold] = settings.delisting_return
    counted[:, sold] &= np.arange(1, levels.shape[0])[:, None] <= sold_on[sold]
    if members is not None:
        counted &= members[:-1]
    if counted.all():
        whole: Matrix = np.mean(returns, axis=1)
        return whole
    number = counted.sum(axis=1)
    average: Matrix = np.where(counted, returns, 0.0).sum(axis=1) / np.maximum(number, 1)
    return average


def named_returns(prices: Cells, days: Numbers, benchmark: str) -> tuple[Matrix, int]:
    """Return the returns of an entity's carried close, and the number of sessions on which it has no close.

    Raises:
        NoDataInRange: it has no close by the first session.
    """
    own_days, closes = prices.of(benchmark)
    positive = closes > 0.0
    own_days, closes = own_days[positive], closes[positive]
    rows = np.searchsorted(own_days, days, side="right") - 1
    if rows[0] < 0:
        raise NoDataInRange(
            f"assets.benchmark: {benchmark} has no close by the first session, {as_dates(days[:1])[0]}; choose another "
            "benchmark or another date_range"
        )
    levels = closes[rows]
    returns: Matrix = levels[1:] / levels[:-1] - 1.0
    return returns, int(np.count_nonzero(own_days[rows] != days))
