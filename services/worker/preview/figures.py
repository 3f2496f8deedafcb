"""Compute the figures of a preview; docs/runs.md has the formula of each. A figure that is not defined is None."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from optaic.expression.joining import align_keys
from optaic.plugins import InputTable
from optaic.rules.columns import DATE, ENTITY, KEYS, VALUE
from worker.statistics.ic import daily_ic, rank_autocorrelation, summarize
from worker.statistics.moments import Moments
from worker.statistics.returns import CLOSE, later_returns, mean_by_quantile, return_column

HORIZONS = (1, 5, 21)  # sessions
QUINTILES = 5


def measure(table: pl.DataFrame, moments: Moments) -> dict[str, object]:
    """Return the figures that the values alone have."""
    missing = table[VALUE].null_count()
    covered = table.group_by(DATE).agg(pl.col(VALUE).is_not_null().mean().alias("share"))
    return {
        "row_count": table.height,
        "nan_share": missing / table.height,
        "mean": moments.mean,
        "std": moments.std,
        "min": moments.min,
        "max": moments.max,
        "skewness": moments.skewness,
        "kurtosis": moments.kurtosis,
        "dates": covered.height,
        "entities": table[ENTITY].n_unique(),
        "mean_coverage": covered.sort(DATE)["share"].mean(),
        "rank_autocorrelation": rank_autocorrelation(table, VALUE)["correlation"].mean(),
    }


def measure_foresight(table: pl.DataFrame, prices: InputTable) -> dict[str, object]:
    """Return how the values relate to the returns that follow them.

    Raises:
        SchemaMismatch: the prices lack a column, repeat a key, or have keys of other types.
    """
    shown = InputTable(role="", name="the preview", reader=lambda: table)
    aligned = align_keys(prices, shown)
    returns = later_returns(aligned, HORIZONS, f"upstream_refs: prices {prices.name!r}")
    joined = table.join(returns, on=KEYS, how="left")
    sessions = aligned.select(pl.col(DATE).unique())
    usable = pl.col(CLOSE).cast(pl.Float64).is_finite() & (pl.col(CLOSE).cast(pl.Float64) > 0.0)
    return {
        "dates_without_prices": table.select(pl.col(DATE).unique())
        .join(sessions, on=DATE, how="anti")
        .height,
        "unusable_closes": aligned.height - aligned.select(usable.sum()).item(),
        **{name: value for horizon in HORIZONS for name, value in _of_horizon(joined, horizon)},
    }


def _of_horizon(joined: pl.DataFrame, horizon: int) -> Iterator[tuple[str, object]]:
    outcome = return_column(horizon)
    found = summarize(daily_ic(joined, VALUE, outcome)["ic"])
    yield f"ic_mean_{horizon}", found.mean
    yield f"ic_std_{horizon}", found.std
    yield f"ic_t_statistic_{horizon}", found.t_statistic
    yield f"ic_dates_{horizon}", found.dates
    yield f"quintile_returns_{horizon}", mean_by_quantile(joined, VALUE, outcome, QUINTILES)


def warn(metrics: Mapping[str, object], warm_up: int | None) -> Iterator[str]:
    """Yield in words what a reader of the figures must know."""
    if metrics["nan_share"] == 1.0:
        needed = "all earlier sessions" if warm_up is None else f"up to {warm_up} earlier sessions"
        yield (
            f"no row has a value: a value may need {needed}, and each column that is read; choose later dates, or other "
            "inputs"
        )
    elif metrics["dates"] == 1:
        yield "there is one date, so figures that compare dates are not defined; choose a longer date_range"
    if count := metrics["infinite_inputs"]:
        yield f"{count} values of the inputs are infinite, and count as missing; correct the inputs"
    if count := metrics["universe_without_rows"]:
        yield f"{count} entities of the universe have no row in the inputs; correct the universe, or run the inputs"
    if count := metrics.get("dates_without_prices"):
        yield f"{count} dates are no session of the prices, so no return follows their values; choose other prices"
    if count := metrics.get("unusable_closes"):
        yield f"{count} closes of the prices are missing, infinite or not above 0, and give no return; correct the prices"
