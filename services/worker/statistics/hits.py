"""Compute how often a prediction has the sign of what came true."""

from __future__ import annotations

import polars as pl


def hit_rate(table: pl.DataFrame, score: str, outcome: str) -> float | None:
    """Return the share of rows in which both have the same sign, of those with a finite score and an outcome other than 0.

    A score of 0 is no hit. None if there is no such row.
    """
    numbers = table.select(pl.col(score, outcome).cast(pl.Float64))
    counted = numbers.filter(pl.col(score).is_finite() & pl.col(outcome).is_finite() & (pl.col(outcome) != 0))
    if counted.is_empty():
        return None
    return float((counted[score].sign() == counted[outcome].sign()).sum()) / counted.height
