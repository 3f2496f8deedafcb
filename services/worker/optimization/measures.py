"""Compute the figures of a decision; docs/runs.md has the formula of each."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl

SESSIONS_PER_YEAR = 252
_ROUNDING = 1e-12  # deviations below it are none


def measure(
    weights: Mapping[str, float], returns: pl.DataFrame, previous: Mapping[str, float] | None
) -> dict[str, float | int | None]:
    """Return the figures of weights over past returns; None if one is not defined.

    Args:
        weights: by entity.
        returns: a column for each entity; sessions on which one with a weight has no return are left out.
        previous: the weights of the decision before, None if there is none.
    """
    held = {name: weight for name, weight in weights.items() if weight != 0.0}
    vector = np.array(list(held.values()), dtype=np.float64)
    gross, net = float(np.abs(vector).sum()), float(vector.sum())
    return {
        **_measure_past(vector, returns.select(list(held)).drop_nulls().to_numpy()),
        "effective_n": 1.0 / float(np.square(vector).sum()) if held else None,
        "concentration": float(np.abs(vector).max()) if held else None,
        "gross_exposure": gross,
        "net_exposure": net,
        "turnover": None if previous is None else _turnover(held, previous),
        "assets": len(held),
    }


def _measure_past(weights: np.ndarray, past: np.ndarray) -> dict[str, float | int | None]:
    """Measure the portfolio as if it had been held, with these weights, on each past session."""
    from skfolio import Portfolio  # noqa: PLC0415 - heavy, and only the child needs it

    names = ("expected_return", "volatility", "sharpe_ratio", "diversification_ratio")
    result: dict[str, float | int | None] = dict.fromkeys(names)
    sessions = past.shape[0] if weights.size else 0
    result["sessions"] = sessions
    if sessions < 2:  # noqa: PLR2004 - one return has no deviation
        return result
    portfolio = Portfolio(X=past, weights=weights, annualization_factor=SESSIONS_PER_YEAR)
    result["expected_return"] = float(portfolio.annualized_mean)
    result["volatility"] = float(portfolio.annualized_standard_deviation)
    if portfolio.standard_deviation > _ROUNDING:
        result["sharpe_ratio"] = float(portfolio.annualized_sharpe_ratio)
        alone = past.std(axis=0, ddof=1) * math.sqrt(SESSIONS_PER_YEAR)
        result["diversification_ratio"] = float(np.abs(weights) @ alone) / float(
            portfolio.annualized_standard_deviation
        )
    return result


def _turnover(weights: Mapping[str, float], previous: Mapping[str, float]) -> float:
    """Return half of the sum of the absolute changes."""
    names = weights.keys() | previous.keys()
    return sum(abs(weights.get(name, 0.0) - previous.get(name, 0.0)) for name in names) / 2.0
