"""Prepare the newest procedure: sessions, carried prices, delistings and who may be chosen when; nothing is traded here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from optaic.plugins import MissingInput, Optimizer, PluginError, UnknownEntity
from optaic.rules.backtests import EQUAL_WEIGHT
from optaic.rules.columns import VALUE
from worker.backtest.allocation import allocate
from worker.backtest.benchmark import equal_weight_returns, named_returns
from worker.backtest.delisting import Delistings, find_delistings
from worker.backtest.eligibility import Choice, choose, find_begin
from worker.backtest.notes import Notes
from worker.backtest.panel import (
    Panel,
    check_known,
    check_positive,
    combine_signals,
    no_session,
    signal_weights,
    within,
)
from worker.backtest.returns import list_returns
from worker.backtest.sessions import Sessions, find_decisions, find_sessions
from worker.backtest.settings import BacktestSettings, MissingPrices, Slippage, Weighting
from worker.backtest.tables import (
    Cells,
    Mask,
    Matrix,
    Numbers,
    as_dates,
    distinct,
    position_of,
    read_cells,
    read_keys,
)
from worker.backtest.tradability import UNPRICED, carry


@dataclass(frozen=True)
class Prepared:
    """The input of a simulation, and what the preparation found."""

    panel: Panel
    choices: Mapping[int, Choice]
    notes: Notes


@dataclass(frozen=True)
class _Members:
    """The members: everybody of a universe, or some on each day."""

    names: list[str]
    by_day: Cells | None
    unpriced: list[str]

    def on(self, days: Numbers) -> Mask | None:
        """Return which entities are members on which day; None: all of them on every day."""
        return None if self.by_day is None else ~np.isnan(self.by_day.spread(self.names, days))


def prepare(
    prices: pl.DataFrame,
    signals: Sequence[pl.DataFrame],
    membership: pl.DataFrame | None,
    settings: BacktestSettings,
    optimizer: Optimizer | None = None,
) -> Prepared:
    """Align prices `date, entity, close`, signals `date, entity, value` and a membership `date, entity`.

    An optimizer decides the weights if the settings say so.

    Raises:
        MissingInput: no signal is given.
        SchemaMismatch: a table lacks a column or repeats a key, or a close is not positive.
        UnknownEntity: a member or the benchmark has no price at all.
        NoDataInRange: no session lies in the range, or the benchmark has no close by the first one.
        NoSolution: the optimizer never finds any weights.
        PluginError: `NoDecisions`, nobody may be chosen at any decision in range; or as the optimizer says.
    """
    if not signals:
        raise MissingInput("signals.primary: a backtest needs a primary signal; name one")
    if (optimizer is None) is (settings.weighting is Weighting.OPTIMIZER):
        raise ValueError("an optimizer is given exactly if the weighting is optimizer")
    is_by_volume = settings.slippage_model is Slippage.VOLUME
    closes = read_cells(prices, "close", "prices", "volume" if is_by_volume else None)
    members = _find_members(closes, membership, settings)
    dates = closes.days_of(members.names)
    grid = closes.spread(members.names, dates)
    sessions = find_sessions(grid, _expected(members, dates, settings), settings)
    inside = within(dates, settings)
    used = sessions.is_session & inside
    if not used.any():
        raise no_session(dates[sessions.is_session], settings, "the sessions are")
    check_positive(grid[used])
    days = dates[used]
    read = [
        (read_cells(signal, VALUE, "signal"), weight)
        for signal, weight in zip(signals, signal_weights(len(signals), settings.primary_weight), strict=True)
    ]
    scores = _score([cells for cells, _ in read], members, days, settings)
    without_close = ~np.isnan(scores) & np.isnan(grid[used])
    scores[without_close] = np.nan
    unmatched = _count_unmatched(
        [cells for cells, weight in read if weight > 0.0], members.names, days, settings
    )
    decisions = find_decisions(as_dates(days).to_list(), settings.rebalance_frequency)
    begin = _find_begin(scores, members.on(days), decisions, settings)
    if begin is None:
        raise _no_decisions(read[0][0], members.names, days)
    first = begin if settings.start is None else 0
    days, scores = days[first:], np.ascontiguousarray(scores[first:])
    decisions, without_close = [one - first for one in decisions if one >= first], without_close[first:]
    unsolved: list[tuple[int, str]] = []
    if optimizer is None:
        choices: Mapping[int, Choice] = choose(scores, decisions, settings)
    else:
        past = sessions.is_session & (dates <= days[-1])
        check_positive(grid[past])
        history = list_returns(grid[past], dates[past], members.names)
        found = allocate(optimizer, scores, decisions, days, history, settings)
        choices, unsolved = found.choices, found.unsolved
    own = grid[used][first:]
    present = members.on(days)
    delistings = find_delistings(grid, dates, days, settings)
    carried = carry(own)
    benchmark, absent = _benchmark(closes, carried, days, delistings, present, settings)
    panel = Panel(
        dates=as_dates(days).to_list(),
        entities=members.names,
        closes=np.asfortranarray(np.where(np.isnan(carried), UNPRICED, carried)),
        signal=scores,
        benchmark_returns=benchmark,
        tradable=~np.isnan(own),
        volumes=closes.spread(members.names, days, is_extra=True) if is_by_volume else None,
        sales=delistings.sales,
    )
    notes = Notes(
        members=len(members.names),
        members_without_close=_named(members.names, np.isnan(carried[-1])),
        left_out=int(np.count_nonzero(sessions.left_out & inside)),
        lacking=_who_lacks(members.names, sessions, inside),
        stale=[members.names[column] for column in delistings.stale],
        delisted=_named(members.names, delistings.sessions >= 0),
        sessions_before_begin=first,
        warmup=begin - first,
        unmatched_signal_dates=unmatched,
        decisions=len(decisions),
        decisions_without_choice=len(decisions) - len(choices) - len(unsolved),
        unsolved=[(panel.dates[decision], why) for decision, why in unsolved],
        decisions_without_members=0 if present is None else int((~present[decisions].any(axis=1)).sum()),
        values_without_close=int(np.count_nonzero(without_close[decisions])),
        unpriced_members=members.unpriced,
        benchmark_carried=absent,
    )
    return Prepared(panel, choices, notes)


def _find_members(closes: Cells, membership: pl.DataFrame | None, settings: BacktestSettings) -> _Members:
    if membership is None:
        names = sorted(settings.universe) or closes.entities
        check_known(names, closes.entities, settings.benchmark)
        return _Members(names, None, [])
    check_known([], closes.entities, settings.benchmark)
    by_day, known = read_keys(membership, "assets.membership_id"), set(closes.entities)
    names = [name for name in by_day.entities if name in known]
    if not names:
        raise UnknownEntity(
            "assets.membership_id: the prices have none of the membership's entities, for example "
            f"{', '.join(by_day.entities[:5]) or 'there is none'}; choose another membership or other prices"
        )
    return _Members(names, by_day, [name for name in by_day.entities if name not in known])


def _expected(members: _Members, dates: Numbers, settings: BacktestSettings) -> Mask | None:
    return None if settings.missing_prices is MissingPrices.CARRY else members.on(dates)


def _score(signals: Sequence[Cells], members: _Members, days: Numbers, settings: BacktestSettings) -> Matrix:
    """Return the combined signal, NaN where an entity has none or is no member of the day."""
    matrices = [signal.spread(members.names, days) for signal in signals]
    if (present := members.on(days)) is not None:
        for matrix in matrices:
            matrix[~present] = np.nan
    return combine_signals(matrices, settings.primary_weight)


def _find_begin(
    scores: Matrix, present: Mask | None, decisions: Sequence[int], settings: BacktestSettings
) -> int | None:
    counts = np.count_nonzero(~np.isnan(scores[decisions]), axis=1).tolist()
    if present is None:
        members = [scores.shape[1]] * len(decisions)
    else:
        members = present[decisions].sum(axis=1).tolist()
    return find_begin(counts, members, decisions, settings)


def _benchmark(
    closes: Cells,
    carried: Matrix,
    days: Numbers,
    delistings: Delistings,
    present: Mask | None,
    settings: BacktestSettings,
) -> tuple[Matrix, int]:
    if settings.benchmark == EQUAL_WEIGHT:
        return equal_weight_returns(carried, delistings.sessions, present, settings), 0
    return named_returns(closes, days, settings.benchmark)


def _count_unmatched(
    signals: Sequence[Cells], members: Sequence[str], days: Numbers, settings: BacktestSettings
) -> int:
    """Count the dates in the asked range on which a signal has a value and there is no session."""
    found = distinct(np.concatenate([signal.days_of(members) for signal in signals]))
    return int(np.count_nonzero(position_of(found[within(found, settings)], days) < 0))


def _who_lacks(names: Sequence[str], sessions: Sessions, inside: Mask) -> dict[str, int]:
    """Return on how many dates of the range each member kept a date from being a session, the worst first."""
    if sessions.lacking is None:
        return {}
    counts = sessions.lacking[sessions.left_out & inside].sum(axis=0)
    order: list[int] = np.argsort(-counts, kind="stable").tolist()
    return {names[column]: int(counts[column]) for column in order if counts[column]}


def _named(names: Sequence[str], which: Mask) -> list[str]:
    return [names[column] for column in np.flatnonzero(which).tolist()]


def _no_decisions(signal: Cells, members: Sequence[str], days: Numbers) -> PluginError:
    own, sessions = signal.days_of(members), as_dates(days)
    dates = as_dates(own)
    has = (
        f"has values for members from {dates[0]} to {dates[-1]}"
        if own.size
        else "has no value for any member"
    )
    return PluginError(
        f"signals.primary: nobody may be chosen at any decision from {sessions[0]} to {sessions[-1]}; the signal {has}. Choose "
        "another date_range or universe, or a signal with values on the dates of the prices",
        type="NoDecisions",
    )
