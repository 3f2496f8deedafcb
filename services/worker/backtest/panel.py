"""Arrange prices and signals as matrices over the backtest's sessions; nothing is decided or traded here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from optaic.plugins import MissingInput, NoDataInRange, SchemaMismatch, UnknownEntity, take_days, zone_of
from optaic.rules.backtests import EQUAL_WEIGHT
from optaic.rules.columns import DATE, ENTITY, KEYS, VALUE
from worker.backtest.settings import BacktestSettings

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One row per session in range, one column per member of the universe, ordered by name."""

    dates: list[dt.date]
    entities: list[str]
    closes: Matrix  # (sessions, entities), all finite and positive
    signal: Matrix  # (sessions, entities), NaN where there is no value
    benchmark_returns: Matrix  # (sessions - 1,)


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
    closes = _clean(prices, "close", "prices")
    known = closes[ENTITY].unique().sort().to_list()
    entities = sorted(settings.universe) or known
    wanted = [*entities, *([] if settings.benchmark == EQUAL_WEIGHT else [settings.benchmark])]
    if unknown := sorted(set(wanted) - set(known)):
        raise UnknownEntity(
            f"assets: prices have no {', '.join(unknown)}; choose the universe and the benchmark from those they have: "
            f"{', '.join(known[:30]) or 'none'}"
        )
    grid = _pivot(closes, entities, "close").drop_nulls().sort(DATE)
    chosen = _cut(grid, settings)
    if chosen.is_empty():
        span = f"{grid[DATE][0]} to {grid[DATE][-1]}" if grid.height else "no date at all"
        asked = f"{settings.start or 'the first'} to {settings.end or 'the last session'}"
        raise NoDataInRange(
            f"date_range: no session from {asked}; every member of the universe has a close on {span}; change the range "
            "or the universe"
        )
    dates = chosen.select(DATE)
    matrices = [_align(signal, entities, dates) for signal in signals]
    values = chosen.select(entities).to_numpy().astype(np.float64)
    return Panel(
        dates=dates[DATE].to_list(),
        entities=entities,
        closes=values,
        signal=combine_signals(matrices, settings.primary_weight),
        benchmark_returns=_benchmark_returns(closes, values, dates, settings.benchmark),
    )


def combine_signals(signals: Sequence[Matrix], primary_weight: float) -> Matrix:
    """Combine signals: one is returned as it is; several give the weighted mean of their z-scores over the universe (ddof 1).

    Signals of no weight are left out; an entity needs a value of each of the others. Only the order matters later,
    so a signal that is alone is not standardised: where all its values are equal there would be no z-score.
    """
    others = len(signals) - 1
    weights = [primary_weight, *[(1.0 - primary_weight) / others] * others] if others else [1.0]
    used = [(signal, weight) for signal, weight in zip(signals, weights, strict=True) if weight > 0.0]
    if len(used) == 1:
        return used[0][0]
    combined: Matrix = np.sum([weight * _standardize(signal) for signal, weight in used], axis=0)
    return combined


def _standardize(signal: Matrix) -> Matrix:
    scores = np.full_like(signal, np.nan)
    for row, values in enumerate(signal):
        present = values[~np.isnan(values)]
        if present.size and present.min() < present.max():
            scores[row] = (values - present.mean()) / present.std(ddof=1)
    return scores


def _clean(table: pl.DataFrame, column: str, name: str) -> pl.DataFrame:
    """Select the rows with a finite value, `date` as Date, each key once."""
    for needed in (*KEYS, column):
        if needed not in table.columns:
            raise SchemaMismatch(
                f"{name}: no column {needed!r} (the columns are {', '.join(table.columns)}); choose another upstream, or "
                "change its pipeline"
            )
    value = pl.col(column).cast(pl.Float64)
    days = take_days(table[DATE], zone_of(table[DATE]))
    rows = table.select(days, ENTITY, value).filter(pl.col(column).is_finite())
    if rows.select(pl.struct(KEYS).is_duplicated().any()).item():
        raise SchemaMismatch(f"{name}: several rows for one date and entity; give it one")
    return rows


def _pivot(rows: pl.DataFrame, entities: Sequence[str], column: str) -> pl.DataFrame:
    """Return `date` and one column per entity, even for entities without any row."""
    rows = rows.filter(pl.col(ENTITY).is_in(list(entities)))
    wide = rows.pivot(on=ENTITY, on_columns=list(entities), index=DATE, values=column)
    return wide.select(DATE, *entities)


def _cut(grid: pl.DataFrame, settings: BacktestSettings) -> pl.DataFrame:
    if settings.start is not None:
        grid = grid.filter(pl.col(DATE) >= pl.lit(settings.start))
    if settings.end is not None:
        grid = grid.filter(pl.col(DATE) <= pl.lit(settings.end))
    if (grid.select(pl.exclude(DATE)) <= 0.0).select(pl.any_horizontal(pl.all())).to_series().any():
        raise SchemaMismatch("prices: a close in the range is not positive; correct the prices")
    return grid


def _align(signal: pl.DataFrame, entities: Sequence[str], dates: pl.DataFrame) -> Matrix:
    wide = _pivot(_clean(signal, VALUE, "signal"), entities, VALUE)
    aligned = dates.join(wide, on=DATE, how="left", maintain_order="left").select(entities)
    return aligned.fill_null(float("nan")).to_numpy().astype(np.float64)


def _benchmark_returns(closes: pl.DataFrame, members: Matrix, dates: pl.DataFrame, benchmark: str) -> Matrix:
    levels = members
    if benchmark != EQUAL_WEIGHT:
        own = closes.filter((pl.col(ENTITY) == benchmark) & (pl.col("close") > 0.0)).select(DATE, "close")
        aligned = dates.join(own, on=DATE, how="left", maintain_order="left")
        if absent := aligned.filter(pl.col("close").is_null())[DATE].to_list():
            raise NoDataInRange(
                f"assets.benchmark: {benchmark} has no close on {len(absent)} sessions, the first being {absent[0]}; choose "
                "another benchmark or another date_range"
            )
        levels = aligned.select("close").to_numpy().astype(np.float64)
    returns: Matrix = levels[1:] / levels[:-1] - 1.0
    average: Matrix = np.mean(returns, axis=1)
    return average
