"""Compute rank correlations by date: of scores with later outcomes (the information coefficient), and with themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from optaic.rules.columns import DATE, KEYS

_ROUNDING = 1e-12  # coefficients that are nearer to each other are equal
_FEWEST = 2  # pairs of a correlation, and coefficients of a deviation


@dataclass(frozen=True)
class Summary:
    """The figures of daily coefficients; None: not defined."""

    mean: float | None
    std: float | None  # ddof 1
    t_statistic: float | None  # mean / (std / sqrt(dates))
    information_ratio: float | None  # mean / std
    dates: int  # that have a coefficient


def daily_ic(table: pl.DataFrame, score: str, outcome: str) -> pl.DataFrame:
    """Return the Spearman rank correlation of two columns on each date, over the rows that have a finite value of both.

    Ties share the mean of their ranks.

    Returns:
        `date, ic, count`, a row for each date of the table, in order. `count` is the number of pairs. `ic` is null if
        there are fewer than two pairs, or one of the columns is constant on that date.
    """
    return _correlate(table, score, outcome).rename({"correlation": "ic"})


def rank_autocorrelation(table: pl.DataFrame, score: str) -> pl.DataFrame:
    """Return the Spearman rank correlation of a column with itself on the date before, over the entities of both dates.

    Returns:
        `date, correlation, count` as `daily_ic`, from the second date of the table on.
    """
    dates = table.select(pl.col(DATE).unique().sort())
    following = dates.with_columns(pl.col(DATE).shift(-1).alias("next")).drop_nulls()
    before = table.join(following, on=DATE).select(
        pl.col("next").alias(DATE), KEYS[1], pl.col(score).alias("before")
    )
    paired = table.select(*KEYS, score).join(before, on=KEYS, how="left")
    return _correlate(paired, score, "before").slice(1)


def summarize(coefficients: pl.Series) -> Summary:
    """Return the figures of daily coefficients; nulls do not count."""
    known = coefficients.drop_nulls().to_numpy()
    if not known.size:
        return Summary(None, None, None, None, 0)
    mean = float(known.mean())
    if known.size < _FEWEST:
        return Summary(mean, None, None, None, known.size)
    std = float(known.std(ddof=1))
    if known.max() - known.min() < _ROUNDING:
        return Summary(mean, std, None, None, known.size)
    return Summary(mean, std, mean / (std / math.sqrt(known.size)), mean / std, known.size)


def _correlate(table: pl.DataFrame, one: str, other: str) -> pl.DataFrame:
    numbers = table.select(DATE, pl.col(one, other).cast(pl.Float64))
    ranks = numbers.filter(pl.col(one).is_finite() & pl.col(other).is_finite()).select(
        DATE, pl.col(one, other).rank("average").over(DATE)
    )
    varies = pl.all_horizontal(pl.col(name).min() < pl.col(name).max() for name in (one, other))
    found = ranks.group_by(DATE).agg(
        pl.when(varies).then(pl.corr(one, other).clip(-1.0, 1.0)).alias("correlation"),
        pl.len().alias("count"),
    )
    return (
        table.select(pl.col(DATE).unique().sort())
        .join(found, on=DATE, how="left", maintain_order="left")
        .with_columns(pl.col("count").fill_null(0).cast(pl.Int64))
    )
