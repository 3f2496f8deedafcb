"""Thin out a table for display."""

from __future__ import annotations

import numpy as np
import polars as pl

MOST_ROWS = 10_000


def take_sample(table: pl.DataFrame, most: int = MOST_ROWS) -> pl.DataFrame:
    """Return evenly spaced rows of a table, at most so many; the first and the last row are among them."""
    if table.height <= most:
        return table
    return table[np.linspace(0, table.height - 1, most).round().astype(np.int64)]
