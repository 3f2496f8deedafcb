"""Compute the further figures of the newest procedure; docs/backtest.md has the formula of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from worker.backtest.execution import Path
from worker.backtest.metrics import ROUNDING, SESSIONS_PER_YEAR, daily_returns
from worker.backtest.panel import Panel
from worker.backtest.tables import Matrix
from worker.statistics.moments import describe

_TAIL = 0.05  # of the returns, for the value at risk


def measure(panel: Panel, path: Path, known: Mapping[str, Any]) -> dict[str, float | None]:
    """Compute the further figures from a path and the figures that are known; None if undefined."""
    returns, benchmark = daily_returns(path.nav), panel.benchmark_returns
    nav = np.where(path.nav > 0.0, path.nav, np.nan)
    gross, net = (np.abs(path.values).sum(axis=1) / nav, path.values.sum(axis=1) / nav)
    beta = _beta(returns, benchmark)
    tail = _tail(returns)
    # Returns that are equal but for rounding have no shape.
    moments = describe(returns if returns.size and np.ptp(returns) >= ROUNDING else returns[:0])
    found = {
        "alpha": None if beta is None else _mean(returns - beta * benchmark, SESSIONS_PER_YEAR),
        "beta": beta,
        "up_capture": _divide(_mean(returns[benchmark > 0.0]), _mean(benchmark[benchmark > 0.0])),
        "down_capture": _divide(_mean(returns[benchmark < 0.0]), _mean(benchmark[benchmark < 0.0])),
        "sortino_ratio": _sortino(returns),
        "calmar_ratio": _divide(known["annualized_return"], -known["max_drawdown"]),
        "skewness": moments.skewness,
        "excess_kurtosis": moments.kurtosis,
        "var_95": tail[0],
        "cvar_95": tail[1],
        "hit_rate": _mean((returns > 0.0).astype(np.float64)),
        "average_holding_period": _holding_period(path.values),
        "total_commission": sum(one.commission_sum for one in path.executions),
        "total_slippage": sum(one.slippage_sum for one in path.executions),
        "average_gross_exposure": _mean(gross),
        "average_net_exposure": _mean(net),
        "max_gross_exposure": float(np.nanmax(gross)) if np.isfinite(gross).any() else None,
    }
    return {
        name: value if value is not None and math.isfinite(value) else None for name, value in found.items()
    }


def _mean(values: Matrix, factor: float = 1.0) -> float | None:
    return float(values.mean()) * factor if values.size else None


def _divide(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _beta(returns: Matrix, benchmark: Matrix) -> float | None:
    if returns.size < 2 or np.ptp(benchmark) < ROUNDING:  # noqa: PLR2004 - one return has no variance
        return None
    away = benchmark - benchmark.mean()
    return float((away * (returns - returns.mean())).sum() / (away * away).sum())


def _sortino(returns: Matrix) -> float | None:
    """Divide the mean by the root of the mean of the squared negative returns, annualized."""
    downside = math.sqrt(_mean(np.minimum(returns, 0.0) ** 2) or 0.0)
    mean = _mean(returns)
    return (
        mean / downside * math.sqrt(SESSIONS_PER_YEAR) if mean is not None and downside > ROUNDING else None
    )


def _tail(returns: Matrix) -> tuple[float | None, float | None]:
    """Return the value at risk and the conditional one at 95 %, as positive losses, from the sorted returns."""
    if not returns.size:
        return None, None
    share = _TAIL * returns.size  # as many returns, and a part of the next, are the tail
    last = max(0, math.ceil(share) - 1)
    ordered = np.sort(returns)
    worst = float(ordered[last])
    return -worst, -float(ordered[:last].sum()) / share + worst * (last / share - 1.0)


def _holding_period(values: Matrix) -> float | None:
    """Return how many sessions a position lasts on average, from its opening to its end or the end of the range."""
    sides = np.sign(values)
    opened = int(np.count_nonzero((sides[1:] != sides[:-1]) & (sides[1:] != 0.0))) + int(
        np.count_nonzero(sides[0])
    )
    return int(np.count_nonzero(sides)) / opened if opened else None
