"""Turn a choice into target weights: the shares of each side among those of the chosen that can be traded."""

from __future__ import annotations

import numpy as np

from worker.backtest.eligibility import Choice, Columns
from worker.backtest.settings import BacktestSettings, Weighting
from worker.backtest.tables import Mask, Matrix


def target_weights(
    choice: Choice, tradable: Mask | None, width: int, settings: BacktestSettings
) -> Matrix | None:
    """Return the weights over all members, 1 a side and negative on the short side; None if a side cannot be traded.

    The weight of a chosen member that cannot be traded is shared out over the others on its side.
    """
    weights = np.zeros(width)
    sides = [(1.0, choice.longs, choice.long_scores), (-1.0, choice.shorts, choice.short_scores)]
    for sign, columns, scores in sides[: 2 if choice.shorts.size else 1]:
        kept, of_kept = columns, scores
        if tradable is not None:
            can_trade = tradable[columns]
            kept, of_kept = columns[can_trade], scores[can_trade]
        if not kept.size:
            return None
        weights[kept] = sign * _shares(kept, of_kept, settings.weighting)
    return weights


def _shares(columns: Columns, scores: Matrix, weighting: Weighting) -> Matrix | float:
    total = float(scores.sum())
    if weighting is Weighting.EQUAL or not total > 0.0:
        return 1.0 / columns.size
    return scores / total
