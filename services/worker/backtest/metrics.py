"""Compute the figures of a simulated path that both procedures have, by their public names; nothing is simulated here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from worker.backtest.execution import Path
from worker.backtest.panel import Panel
from worker.backtest.settings import BacktestSettings
from worker.backtest.tables import Matrix

SESSIONS_PER_YEAR = 252
ROUNDING = 1e-12  # returns that are nearer to each other are equal


def compute_metrics(panel: Panel, path: Path, settings: BacktestSettings) -> Mapping[str, Any]:
    """Compute all figures as fractions (0.1 is 10 %), annual ones over 252 sessions; None if undefined.

    `turnover` is one-sided and annual, the first purchase included. `excess_return` is the difference of the
    annualized returns; `information_ratio` and `tracking_error` are of the daily differences.
    """
    sessions = len(panel.dates)
    returns = daily_returns(path.nav)
    total = float(path.nav[-1] / path.nav[0] - 1.0)
    benchmark_total = float(np.prod(1.0 + panel.benchmark_returns) - 1.0)
    annual, benchmark_annual = (_annualize(value, sessions) for value in (total, benchmark_total))
    active = returns - panel.benchmark_returns
    traded = sum(one.traded / one.nav / 2.0 for one in path.executions if one.nav > 0.0)
    return {
        "total_return": total,
        "annualized_return": annual,
        "volatility": _volatility(returns),
        "sharpe_ratio": _ratio(returns),
        "max_drawdown": float(np.min(path.nav / np.maximum.accumulate(path.nav) - 1.0)),
        "turnover": traded * SESSIONS_PER_YEAR / (sessions - 1) if sessions > 1 else None,
        "benchmark_total_return": benchmark_total,
        "benchmark_annualized_return": benchmark_annual,
        "excess_return": None if annual is None or benchmark_annual is None else annual - benchmark_annual,
        "tracking_error": _volatility(active),
        "information_ratio": _ratio(active),
        "total_costs": sum((execution.costs for execution in path.executions), 0.0),
        "initial_capital": settings.initial_capital,
        "final_nav": float(path.nav[-1]),
        "sessions": sessions,
        "executions": sum(execution.decision is not None for execution in path.executions),
    }


def daily_returns(nav: Matrix) -> Matrix:
    """Return the return of each session but the first; 0 where nothing was left."""
    if (nav[:-1] == 0.0).any():
        return np.divide(nav[1:], nav[:-1], out=np.ones(nav.size - 1), where=nav[:-1] != 0.0) - 1.0
    return nav[1:] / nav[:-1] - 1.0


def _annualize(total: float, sessions: int) -> float | None:
    return float((1.0 + total) ** (SESSIONS_PER_YEAR / (sessions - 1)) - 1.0) if sessions > 1 else None


def _volatility(returns: Matrix) -> float | None:
    return float(returns.std(ddof=1)) * math.sqrt(SESSIONS_PER_YEAR) if returns.size > 1 else None


def _ratio(returns: Matrix) -> float | None:
    """Divide the mean by the standard deviation, annualized; undefined if all returns are equal apart from rounding."""
    if returns.size < 2 or np.ptp(returns) < ROUNDING:  # noqa: PLR2004 - one return has no deviation
        return None
    return float(returns.mean() / returns.std(ddof=1)) * math.sqrt(SESSIONS_PER_YEAR)
