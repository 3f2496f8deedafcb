"""Find the members whose last close ends them, and when and at what price they are sold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.backtest.panel import Sale
from worker.backtest.sessions import last_rows
from worker.backtest.settings import BacktestSettings
from worker.backtest.tables import Matrix, Numbers


@dataclass(frozen=True)
class Delistings:
    """The sales of delisted members, and the members whose last close is too near to the end to say."""

    sessions: Numbers  # (members,) the session of the sale; -1: not delisted
    sales: dict[int, Sale]
    stale: list[int]  # members that are carried to the end although nothing says that they trade again


def find_delistings(grid: Matrix, dates: Numbers, days: Numbers, settings: BacktestSettings) -> Delistings:
    """Find the delisted members.

    Args:
        grid: (dates, members) all closes that there are, inside and outside of the range; every member has one.
        dates: the days of `grid`.
        days: the days of the sessions in range.
        settings: after how many sessions a last close ends a member, and with what return.
    """
    count, members = days.size, grid.shape[1]
    last = last_rows(~np.isnan(grid))
    following = np.searchsorted(days, dates[last], side="right")  # the first session after the last close
    left = count - following  # sessions that follow
    in_range = (dates[last] >= days[0]) & (left > 0)
    is_delisted = in_range & (left >= settings.delisting_after)
    prices = grid[last, np.arange(members)] * (1.0 + settings.delisting_return)
    sessions = np.where(is_delisted, following, -1)
    sales = {
        int(session): Sale(columns := np.flatnonzero(sessions == session), prices[columns])
        for session in np.unique(sessions[is_delisted])
    }
    return Delistings(sessions, sales, np.flatnonzero(in_range & ~is_delisted).tolist())
