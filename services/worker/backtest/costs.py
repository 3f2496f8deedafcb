"""Compute what trades cost: commission, and slippage by its model."""

from __future__ import annotations

import numpy as np

from worker.backtest.settings import FIXED_RATE, BacktestSettings, Slippage
from worker.backtest.tables import Matrix


def commissions(size: Matrix, settings: BacktestSettings) -> Matrix:
    """Return the commission of trades of these absolute values."""
    return settings.transaction_costs * size


def slippages(
    size: Matrix, nav: float, prices: Matrix, volumes: Matrix | None, settings: BacktestSettings
) -> tuple[Matrix, int]:
    """Return the slippage of trades of these absolute values, and how many lacked the volume that their model needs."""
    if settings.slippage_model is Slippage.NONE:
        return np.zeros_like(size), 0
    fixed: Matrix = settings.slippage_rate * size
    if settings.slippage_model is Slippage.FIXED:
        return fixed, 0
    if settings.slippage_model is Slippage.LINEAR:
        return fixed * size / nav, 0
    if volumes is None:
        raise ValueError("the slippage model volume needs volumes; read them with the prices")
    known = volumes > 0.0
    share = np.minimum(1.0, size / prices / np.where(known, volumes, 1.0))
    lacking = int(np.count_nonzero(~known & (size > 0.0)))
    return np.where(known, fixed * share, FIXED_RATE * size), lacking
