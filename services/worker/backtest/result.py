"""The result of a backtest: the simulated path and its tables; computes no metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from optaic.rules.columns import DATE, ENTITY
from worker.backtest.execution import Path
from worker.backtest.metrics import daily_returns
from worker.backtest.panel import Panel
from worker.backtest.tables import Matrix

Metrics: TypeAlias = Mapping[str, Any]
_NUMBERS = ("trade_value", "weight_target", "price", "commission", "slippage", "cost")
_REASONS = pl.Series(["rebalancing", "delisting"])


@dataclass(frozen=True)
class BacktestResult:
    """The metrics and the tables of a backtest."""

    metrics: Metrics  # None: undefined, for example a Sharpe ratio without any variance
    equity_curve: pl.DataFrame  # date, nav, benchmark (both starting at the initial capital)
    trades: (
        pl.DataFrame
    )  # date, decision_date, entity, trade_value, weight_target, price, commission, slippage, cost
    weights_history: pl.DataFrame  # date, entity, weight: what is held at each close
    daily_returns: pl.DataFrame  # date, return, benchmark_return: from the second session on
    others: Mapping[str, pl.DataFrame] = field(default_factory=dict)  # of the newest procedure

    @property
    def tables(self) -> Mapping[str, pl.DataFrame]:
        """The artifacts by their public names."""
        return {
            "equity_curve": self.equity_curve,
            "trades": self.trades,
            "weights_history": self.weights_history,
            "daily_returns": self.daily_returns,
            **self.others,
        }


def make_result(
    panel: Panel, path: Path, metrics: Metrics, others: Mapping[str, pl.DataFrame] | None = None
) -> BacktestResult:
    """Build the tables of a simulated path."""
    dates = pl.Series(DATE, panel.dates, dtype=pl.Date)
    returns = {"return": daily_returns(path.nav), "benchmark_return": panel.benchmark_returns}
    trades = list_trades(panel, path)
    return BacktestResult(
        metrics=metrics,
        equity_curve=pl.DataFrame({DATE: dates, "nav": path.nav, "benchmark": benchmark_level(panel, path)}),
        trades=trades.drop("reason") if others is None else trades,
        weights_history=_list_weights(panel, path),
        daily_returns=pl.DataFrame({DATE: dates[1:], **returns}),
        others=others or {},
    )


def benchmark_level(panel: Panel, path: Path) -> Matrix:
    """Return what the initial capital would be worth in the benchmark, at each session."""
    level: Matrix = path.nav[0] * np.cumprod(np.concatenate([[1.0], 1.0 + panel.benchmark_returns]))
    return level


def list_trades(panel: Panel, path: Path) -> pl.DataFrame:
    """Return one row for each trade, with the reason for it."""
    dates, entities = pl.Series(panel.dates, dtype=pl.Date), pl.Series(panel.entities, dtype=pl.String)
    made = path.executions
    sizes = [one.columns.size for one in made]
    joined = {
        name: np.concatenate([np.empty(0), *(getattr(one, name) for one in made)])
        for name in ("trades", "weights", "prices", "commission", "slippage")
    }
    columns = np.concatenate([np.empty(0, dtype=np.int64), *(one.columns for one in made)])
    sessions = np.repeat([one.session for one in made], sizes).astype(np.int64)
    decisions = pl.Series([one.decision for one in made for _ in range(one.columns.size)], dtype=pl.Int64)
    values = (*(joined[name] for name in ("trades", "weights", "prices", "commission", "slippage")),)
    return pl.DataFrame(
        {
            DATE: dates.gather(sessions),
            "decision_date": dates.gather(decisions),
            ENTITY: entities.gather(columns),
            **dict(zip(_NUMBERS, (*values, joined["commission"] + joined["slippage"]), strict=True)),
            "reason": _REASONS.gather(decisions.is_null().cast(pl.UInt32)),
        }
    )


def _list_weights(panel: Panel, path: Path) -> pl.DataFrame:
    sessions, columns = np.nonzero(path.values)
    return pl.DataFrame(
        {
            DATE: pl.Series(panel.dates, dtype=pl.Date).gather(sessions),
            ENTITY: pl.Series(panel.entities, dtype=pl.String).gather(columns),
            "weight": path.values[sessions, columns] / path.nav[sessions],
        }
    )
