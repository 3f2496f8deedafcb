"""Arrange prices and signals as matrices over the sessions of the first procedure; nothing is decided or traded here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from optaic.plugins import MissingInput, NoDataInRange, SchemaMismatch, UnknownEntity
from optaic.rules.backtests import EQUAL_WEIGHT
from optaic.rules.columns import VALUE
from worker.backtest.settings import BacktestSettings
from worker.backtest.tables import Cells, Mask, Matrix, Numbers, as_dates, read_cells

_EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True)
class Sale:
    """The sale of delisted members on one session."""

    columns: Numbers
    prices: Matrix


@dataclass(frozen=True)
class Panel:
    """One row per session in range, one column per member of the universe, ordered by name."""

    dates: list[dt.date]
    entities: list[str]
    closes: Matrix  # (sessions, entities), all finite and positive: where there is none, the one before, or 1 before the first
    signal: Matrix  # (sessions, entities), NaN where there is no value, or the entity may not be chosen
    benchmark_returns: Matrix  # (sessions - 1,)
    tradable: Mask | None = None  # (sessions, entities), where there is a close; None: everywhere
    volumes: Matrix | None = None  # (sessions, entities) in shares, NaN where unknown
    sales: Mapping[int, Sale] = field(default_factory=dict)  # by session


def build_panel(prices: pl.DataFrame, signals: Sequence[pl.DataFrame], settings: BacktestSettings) -> Panel:
    """Align prices `date, entity, close` and signals `date, entity, value`, the primary first.

    Sessions are the dates on which every member has a close.

    Raises:
        MissingInput: no signal is given.
        SchemaMismatch: a table lacks a column or repeats a key, or a close is not positive.
        UnknownEntity: a member or the benchmark has no price at all.
        NoDataInRange: no session lies in the range, or the benchmark lacks a close on one.
    """
    if not signals:
        raise MissingInput("signals.primary: a backtest needs a primary signal; name one")
    closes = read_cells(prices, "close", "prices")
    entities = sorted(settings.universe) or closes.entities
    check_known(entities, closes.entities, settings.benchmark)
    dates = closes.days_of(entities)
    grid = closes.spread(entities, dates, "F")
    complete = ~np.isnan(grid).any(axis=1) if entities else np.zeros(0, dtype=np.bool_)
    dates, grid = dates[complete], grid[complete]
    inside = within(dates, settings)
    if not inside.any():
        raise no_session(dates, settings, "every member of the universe has a close on")
    days, values = dates[inside], np.asfortranarray(grid[inside])
    check_positive(values)
    matrices = [read_cells(signal, VALUE, "signal").spread(entities, days, "F") for signal in signals]
    return Panel(
        dates=as_dates(days).to_list(),
        entities=entities,
        closes=values,
        signal=combine_signals(matrices, settings.primary_weight),
        benchmark_returns=_benchmark_returns(closes, values, days, settings.benchmark),
    )


def check_known(members: Sequence[str], known: Sequence[str], benchmark: str) -> None:
    """Refuse members and a benchmark of which there is no price.

    Raises:
        UnknownEntity: naming them.
    """
    wanted = {*members, *([] if benchmark == EQUAL_WEIGHT else [benchmark])}
    if unknown := sorted(wanted - set(known)):
        raise UnknownEntity(
            f"assets: prices have no {', '.join(unknown)}; choose the universe and the benchmark from those they have: "
            f"{', '.join(known[:30]) or 'none'}"
        )


def within(days: Numbers, settings: BacktestSettings) -> Mask:
    """Return which days lie in the range of the backtest."""
    start = -np.inf if settings.start is None else (settings.start - _EPOCH).days
    end = np.inf if settings.end is None else (settings.end - _EPOCH).days
    inside: Mask = (days >= start) & (days <= end)
    return inside


def no_session(days: Numbers, settings: BacktestSettings, what: str) -> NoDataInRange:
    """Return the refusal of a range without any session; `days` are the sessions outside of it."""
    dates = as_dates(days)
    span = f"{dates[0]} to {dates[-1]}" if days.size else "no date at all"
    asked = f"{settings.start or 'the first'} to {settings.end or 'the last session'}"
    return NoDataInRange(
        f"date_range: no session from {asked}; {what} {span}; change the range or the universe"
    )


def check_positive(closes: Matrix) -> None:
    """Refuse closes that are not positive.

    Raises:
        SchemaMismatch: there is one.
    """
    if (closes <= 0.0).any():
        raise SchemaMismatch("prices: a close in the range is not positive; correct the prices")


def combine_signals(signals: Sequence[Matrix], primary_weight: float) -> Matrix:
    """Combine signals: one is returned as it is; several give the weighted mean of their z-scores over the universe (ddof 1).

    Signals of no weight are left out; an entity needs a value of each of the others. Only the order matters later,
    so a signal that is alone is not standardised: where all its values are equal there would be no z-score.
    """
    used = [
        (signal, weight)
        for signal, weight in zip(signals, signal_weights(len(signals), primary_weight), strict=True)
        if weight > 0.0
    ]
    if len(used) == 1:
        return used[0][0]
    combined: Matrix = np.sum([weight * _standardize(signal) for signal, weight in used], axis=0)
    return combined


def signal_weights(count: int, primary_weight: float) -> list[float]:
    """Return the weight of each signal, the primary first; the others share what it leaves."""
    others = count - 1
    return [primary_weight, *[(1.0 - primary_weight) / others] * others] if others else [1.0]


def _standardize(signal: Matrix) -> Matrix:
    scores = np.full_like(signal, np.nan)
    for row, values in enumerate(signal):
        present = values[~np.isnan(values)]
        if present.size and present.min() < present.max():
            scores[row] = (values - present.mean()) / present.std(ddof=1)
    return scores


def _benchmark_returns(closes: Cells, members: Matrix, days: Numbers, benchmark: str) -> Matrix:
    levels = members
    if benchmark != EQUAL_WEIGHT:
        levels = closes.spread([benchmark], days)
        if (absent := np.flatnonzero(~(levels[:, 0] > 0.0))).size:
            raise NoDataInRange(
                f"assets.benchmark: {benchmark} has no close on {absent.size} sessions, the first being "
                f"{as_dates(days[absent[:1]])[0]}; choose another benchmark or another date_range"
            )
    returns: Matrix = levels[1:] / levels[:-1] - 1.0
    average: Matrix = np.mean(returns, axis=1)
    return average
