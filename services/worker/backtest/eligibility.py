"""Rank entities at each decision: who may be chosen, who is, and where the range begins if nobody says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.backtest.settings import BacktestSettings
from worker.backtest.tables import Matrix

Columns = npt.NDArray[np.intp]
_FEW = 4  # a ranking of more than this many times the wanted entities is cut before it is sorted


@dataclass(frozen=True)
class Choice:
    """The choice of a decision: columns from the best score to the worst on the long side, and from the worst on the short side."""

    longs: Columns
    shorts: Columns
    long_scores: Matrix  # distances from the mean of all that could be chosen, at least 0
    short_scores: Matrix
    are_weights: bool = (
        False  # the scores are the weights themselves, in absolute values: they are not shared out
    )


def select_top(values: Matrix, count: int) -> Columns:
    """Return columns of the highest values, at most `count`; NaN never, ties in the columns' order, which is by name."""
    return _first(np.flatnonzero(~np.isnan(values)), -values, count)


def select_bottom(values: Matrix, count: int) -> Columns:
    """Return the columns that come last in the order of `select_top`, the last one first."""
    return _first(np.flatnonzero(~np.isnan(values))[::-1], values, count)


def _first(candidates: Columns, order: Matrix, count: int) -> Columns:
    """Return the candidates with the lowest `order`, at most `count`; ties stay as they are given."""
    keys = order[candidates]
    if candidates.size > _FEW * count:
        near = keys <= np.partition(keys, count - 1)[count - 1]
        candidates, keys = candidates[near], keys[near]
    return candidates[np.argsort(keys, kind="stable")[:count]]


def choose(scores: Matrix, decisions: Sequence[int], settings: BacktestSettings) -> Mapping[int, Choice]:
    """Choose at each decision session, from scores that are NaN where an entity may not be chosen.

    A decision that can choose nobody has no choice: the holdings stay.
    """
    rows = np.ascontiguousarray(scores)
    none = np.empty(0, dtype=np.intp)
    choices: dict[int, Choice] = {}
    for decision in decisions:
        row = rows[decision]
        count = settings.top_n
        if settings.long_short:
            count = min(count, int(np.count_nonzero(~np.isnan(row))) // 2)
        longs = select_top(row, count) if count else none
        if not longs.size:
            continue
        shorts = select_bottom(row, count) if settings.long_short else none
        center = row[~np.isnan(row)].mean()
        choices[decision] = Choice(
            longs,
            shorts,
            np.maximum(0.0, row[longs] - center),
            np.maximum(0.0, center - row[shorts]),
        )
    return choices


def find_begin(
    counts: Sequence[int], members: Sequence[int], decisions: Sequence[int], settings: BacktestSettings
) -> int | None:
    """Return the first decision session at which enough entities may be chosen; None if none ever may.

    Enough are `top_n` a side, or all members if they are fewer. Where that never happens, it is the first decision that
    can choose anybody.

    Args:
        counts: how many may be chosen at each decision.
        members: how many members there are then.
        decisions: the sessions.
        settings: how many are wanted.
    """
    sides = 2 if settings.long_short else 1
    for decision, count, number in zip(decisions, counts, members, strict=True):
        if count >= sides and count >= min(sides * settings.top_n, number):
            return decision
    return next((one for one, count in zip(decisions, counts, strict=True) if count >= sides), None)
