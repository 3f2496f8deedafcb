"""Turn a choice into target weights: the shares of each side among those of the chosen that can be traded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.backtest.eligibility import Choice, Columns
from worker.backtest.settings import BacktestSettings, Weighting
from worker.backtest.tables import Mask, Matrix


@dataclass(frozen=True)
class Targets:
    """The weights over all members, negative on the short side, and what each side was to be in absolute values."""

    weights: Matrix
    gross_long: float
    gross_short: float


def find_targets(
    choice: Choice, tradable: Mask | None, width: int, settings: BacktestSettings
) -> Targets | None:
    """Return the target weights, 1 a side; None if nobody on a side can be traded.

    The weight of a chosen member that cannot be traded is shared out over the others on its side. Weights that were given
    stay as they are: what cannot be bought stays cash.
    """
    weights, gross = np.zeros(width), [0.0, 0.0]
    sides = [(1.0, choice.longs, choice.long_scores), (-1.0, choice.shorts, choice.short_scores)]
    for position, (sign, columns, scores) in enumerate(sides):
        if not columns.size:
            continue
        kept, of_kept = columns, scores
        if tradable is not None:
            can_trade = tradable[columns]
            kept, of_kept = columns[can_trade], scores[can_trade]
        if choice.are_weights:
            weights[kept], gross[position] = sign * of_kept, float(scores.sum())
            continue
        if not kept.size:
            return None
        weights[kept], gross[position] = sign * _shares(kept, of_kept, settings.weighting), 1.0
    return Targets(weights, *gross)


def _shares(columns: Columns, scores: Matrix, weighting: Weighting) -> Matrix | float:
    total = float(scores.sum())
    if weighting is Weighting.EQUAL or not total > 0.0:
        return 1.0 / columns.size
    return scores / total
