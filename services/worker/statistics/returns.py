"""Compute what an entity returns later, and what the entities with low and with high scores return on average."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from optaic.plugins import SchemaMismatch
from optaic.plugins.words import describe_type
from optaic.rules.columns import DATE, ENTITY, KEYS

CLOSE = "close"


def later_returns(prices: pl.DataFrame, horizons: Sequence[int], name: str = "prices") -> pl.DataFrame:
    """Return how much each close changes until so many sessions later; sessions are the distinct dates of the prices.

    Args:
        prices: `date, entity, close`, each pair of date and entity once.
        horizons: numbers of sessions.
        name: of the prices, in errors.

    Returns:
        `date, entity, return_<horizon>...`, a row for each row with a finite close: the close of the later session / the
        close - 1. Null where the entity has no finite close on the later session, or either of them is not above 0.

    Raises:
        SchemaMismatch: the prices lack a column, hold no numbers in it, or repeat a key.
    """
    _check(prices, name)
    sessions = prices.select(pl.col(DATE).unique().sort().drop_nulls()).with_row_index("session")
    known = (
        prices.select(*KEYS, pl.col(CLOSE).cast(pl.Float64))
        .filter(pl.col(CLOSE).is_finite() & pl.col(ENTITY).is_not_null())
        .join(sessions, on=DATE)
        .with_columns(pl.col("session").cast(pl.Int64))
    )
    if known.select(KEYS).is_duplicated().any():
        raise SchemaMismatch(f"{name}: several rows for one date and entity; give it one")
    found = known
    for horizon in horizons:
        later = known.select(pl.col("session") - horizon, ENTITY, pl.col(CLOSE).alias("later"))
        both = (pl.col(CLOSE) > 0.0) & (pl.col("later") > 0.0)
        found = (
            found.join(later, on=["session", ENTITY], how="left", maintain_order="left")
            .with_columns(
                pl.when(both).then(pl.col("later") / pl.col(CLOSE) - 1.0).alias(return_column(horizon))
            )
            .drop("later")
        )
    return found.drop("session", CLOSE)


def return_column(horizon: int) -> str:
    """Return the column of the return over so many sessions."""
    return f"return_{horizon}"


def mean_by_quantile(table: pl.DataFrame, score: str, outcome: str, count: int = 5) -> list[float | None]:
    """Return the mean outcome of each quantile of the scores, the lowest first; None: no date has an entity in it.

    On each date the entities with a finite score and outcome are ranked by score, ties sharing the mean of their
    ranks; a rank r of n lies in the quantile ceil(count x r / n). Dates with fewer than `count` of them are left out.
    The mean of a quantile is the mean over the dates of its mean on the date.
    """
    numbers = table.select(DATE, pl.col(score, outcome).cast(pl.Float64))
    paired = numbers.filter(pl.col(score).is_finite() & pl.col(outcome).is_finite())
    size = pl.len().over(DATE)
    rank = pl.col(score).rank("average").over(DATE)
    placed = paired.filter(size >= count).select(
        DATE, (rank * count / size).ceil().cast(pl.Int64).alias("quantile"), pl.col(outcome).alias("outcome")
    )
    by_date = placed.group_by(DATE, "quantile").agg(pl.col("outcome").mean())
    means = dict(
        by_date.sort(DATE, "quantile").group_by("quantile").agg(pl.col("outcome").mean()).iter_rows()
    )
    return [means.get(quantile) for quantile in range(1, count + 1)]


def _check(prices: pl.DataFrame, name: str) -> None:
    for needed in (*KEYS, CLOSE):
        if needed not in prices.columns:
            raise SchemaMismatch(
                f"{name}: no column {needed!r} (the columns are {', '.join(prices.columns)}); choose another upstream, or "
                "change its pipeline"
            )
    if not prices.schema[CLOSE].is_numeric() and prices.schema[CLOSE] != pl.Null:
        kind = describe_type(prices.schema[CLOSE])
        raise SchemaMismatch(
            f"{name}: {CLOSE!r} is {kind}, not numeric; choose another upstream, or change its pipeline"
        )
