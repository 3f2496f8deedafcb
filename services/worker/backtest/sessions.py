"""Choose the sessions and the decisions: on which dates there is trade, and on which of them weights are decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.backtest.settings import BacktestSettings, Frequency, MissingPrices
from worker.backtest.tables import Mask, Matrix, Numbers


@dataclass(frozen=True)
class Sessions:
    """The dates that are sessions, and what became of the others."""

    is_session: Mask  # (dates,)
    left_out: Mask  # (dates,) with a close of some member, and no session
    lacking: Mask | None  # (dates, members) whose close a session lacks; None where prices are carried


def find_sessions(grid: Matrix, expected: Mask | None, settings: BacktestSettings) -> Sessions:
    """Choose the sessions among dates.

    Args:
        grid: (dates, members) the closes, NaN where there is none.
        expected: (dates, members) whose close a session needs; None: everybody's. Carried prices do not ask for it.
        settings: whether prices are carried, and how many members need a close.
    """
    has_close = ~np.isnan(grid)
    present = has_close.sum(axis=1)
    if settings.missing_prices is MissingPrices.CARRY:
        alive = _count_alive(has_close)
        covered = present / np.maximum(alive, 1) >= settings.min_session_coverage
        is_session = covered & (present > 0)
        return Sessions(is_session, ~is_session & (present > 0), None)
    needed = np.ones_like(has_close) if expected is None else expected
    lacking = needed & ~has_close
    is_session = ~lacking.any(axis=1) & (present > 0)
    return Sessions(is_session, ~is_session & (present > 0), lacking)


def last_rows(has_close: Mask) -> Numbers:
    """Return the last row with a close of each member that has one."""
    return np.asarray(has_close.shape[0] - 1 - has_close[::-1].argmax(axis=0), dtype=np.int64)


def _count_alive(has_close: Mask) -> Numbers:
    """Count the members alive on each date: from their first close to their last one."""
    dates = has_close.shape[0]
    if not dates:
        return np.zeros(0, dtype=np.int64)
    ever = has_close.any(axis=0)
    begins = np.bincount(has_close.argmax(axis=0)[ever], minlength=dates + 1)
    ends = np.bincount(last_rows(has_close)[ever] + 1, minlength=dates + 1)
    return np.asarray(np.cumsum(begins - ends)[:dates], dtype=np.int64)


def find_decisions(dates: Sequence[dt.date], frequency: Frequency) -> list[int]:
    """Return the indices of decision sessions: the first session, and the last of each period."""
    if frequency is Frequency.DAILY:
        return list(range(len(dates)))
    periods = [
        (date.year, date.month) if frequency is Frequency.MONTHLY else tuple(date.isocalendar())[:2]
        for date in dates
    ]
    is_last = [
        index + 1 == len(dates) or periods[index + 1] != period for index, period in enumerate(periods)
    ]
    return [index for index, last in enumerate(is_last) if last or index == 0]
