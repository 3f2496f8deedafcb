"""Carry closes over the sessions on which a member has none."""

from __future__ import annotations

import numpy as np

from worker.backtest.tables import Matrix

UNPRICED = 1.0  # stands for the close of a member that has had none yet: nobody holds it


def carry(closes: Matrix) -> Matrix:
    """Return each close, or the last one before; NaN before the first."""
    missing = np.isnan(closes)
    if not missing.any():
        return closes
    rows = np.where(missing, -1, np.arange(closes.shape[0])[:, None])
    np.maximum.accumulate(rows, axis=0, out=rows)
    carried: Matrix = np.where(rows >= 0, np.take_along_axis(closes, np.maximum(rows, 0), axis=0), np.nan)
    return carried
