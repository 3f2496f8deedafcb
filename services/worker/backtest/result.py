"""The result of a backtest: the simulated path and its tables; computes no metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl

from optaic.rules.columns import DATE, ENTITY
from worker.backtest.panel import Matrix, Panel

Metrics: TypeAlias = Mapping[str, float | int | None]


@dataclass(frozen=True)
class Execution:
    """One rebalancing; vectors are over the universe, money in the units of the capital."""

    decision: int  # session whose signal it follows
    session: int
    nav: float  # before costs
    weights: Matrix
    trades: Matrix  # value bought (positive) or sold
    commission: Matrix
    slippage: Matrix

    @property
    def costs(self) -> float:
        """Return the costs of all trades."""
        return float(self.commission.sum() + self.slippage.sum())


@dataclass(frozen=True)
class Path:
    """The simulated portfolio at each session's close, after that session's execution."""

    values: Matrix  # (sessions, entities)
    nav: Matrix  # (sessions,)
    executions: list[Execution]


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

    @property
    def tables(self) -> Mapping[str, pl.DataFrame]:
        """The artifacts by their public names."""
        return {
            "equity_curve": self.equity_curve,
            "trades": self.trades,
            "weights_history": self.weights_history,
            "daily_returns": self.daily_returns,
        }


def make_result(panel: Panel, path: Path, metrics: Metrics) -> BacktestResult:
    """Build the tables of a simulated path."""
    dates = pl.Series(DATE, panel.dates, dtype=pl.Date)
    benchmark = path.nav[0] * np.cumprod(np.concatenate([[1.0], 1.0 + panel.benchmark_returns]))
    returns = {"return": path.nav[1:] / path.nav[:-1] - 1.0, "benchmark_return": panel.benchmark_returns}
    return BacktestResult(
        metrics=metrics,
        equity_curve=pl.DataFrame({DATE: dates, "nav": path.nav, "benchmark": benchmark}),
        trades=_list_trades(panel, path),
        weights_history=_list_weights(panel, path),
        daily_returns=pl.DataFrame({DATE: dates[1:], **returns}),
    )


def _list_trades(panel: Panel, path: Path) -> pl.DataFrame:
    rows = [
        {
            DATE: panel.dates[execution.session],
            "decision_date": panel.dates[execution.decision],
            ENTITY: panel.entities[column],
            "trade_value": execution.trades[column],
            "weight_target": execution.weights[column],
            "price": panel.closes[execution.session, column],
            "commission": execution.commission[column],
            "slippage": execution.slippage[column],
            "cost": execution.commission[column] + execution.slippage[column],
        }
        for execution in path.executions
        for column in np.flatnonzero(execution.trades)
    ]
    numbers = ("trade_value", "weight_target", "price", "commission", "slippage", "cost")
    schema = {
        DATE: pl.Date,
        "decision_date": pl.Date,
        ENTITY: pl.String,
        **dict.fromkeys(numbers, pl.Float64),
    }
    return pl.DataFrame(rows, schema=schema)


def _list_weights(panel: Panel, path: Path) -> pl.DataFrame:
    sessions, columns = np.nonzero(path.values)
    return pl.DataFrame(
        {
            DATE: [panel.dates[session] for session in sessions],
            ENTITY: [panel.entities[column] for column in columns],
            "weight": path.values[sessions, columns] / path.nav[sessions],
        },
        schema={DATE: pl.Date, ENTITY: pl.String, "weight": pl.Float64},
    )
