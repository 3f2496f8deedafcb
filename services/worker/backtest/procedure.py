"""Run a backtest by the procedure that it pins; it reads no table by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from optaic.plugins import Optimizer
from optaic.rules.backtests import FIRST_PROCEDURE
from worker.backtest.breakdowns import list_drawdowns, list_months
from worker.backtest.eligibility import choose
from worker.backtest.execution import simulate
from worker.backtest.market import prepare
from worker.backtest.measures import measure
from worker.backtest.metrics import compute_metrics
from worker.backtest.panel import build_panel
from worker.backtest.positions import list_positions
from worker.backtest.result import BacktestResult, make_result
from worker.backtest.sessions import find_decisions
from worker.backtest.settings import BacktestSettings

_Progress = Callable[[float, str], None]


def run(
    prices: pl.DataFrame,
    signals: Sequence[pl.DataFrame],
    settings: BacktestSettings,
    progress: _Progress = lambda fraction, message: None,  # noqa: ARG005 - the callback's names
    membership: pl.DataFrame | None = None,
    optimizer: Optimizer | None = None,
) -> BacktestResult:
    """Simulate the backtest and return its result.

    Args:
        prices: `date, entity, close`, and `volume` where the slippage model needs it.
        signals: `date, entity, value` each, the primary first.
        settings: everything else.
        progress: called with the fraction that is done.
        membership: `date, entity`, the members of each day; only the newest procedure reads it.
        optimizer: it decides the weights; only the newest procedure asks it.

    Raises:
        PluginError: typed by what is wrong with the inputs (see `build_panel` and `prepare`), or with the path (see `simulate`).
    """
    progress(0.05, "aligning prices and signals")
    if settings.procedure == FIRST_PROCEDURE:
        return _run_first(prices, signals, settings, progress)
    prepared = prepare(prices, signals, membership, settings, optimizer)
    panel = prepared.panel
    progress(0.3, f"simulating {len(panel.dates)} sessions")
    path = simulate(panel, prepared.choices, settings)
    progress(0.9, "measuring")
    known = compute_metrics(panel, path, settings)
    drawdowns = list_drawdowns(panel, path)
    metrics = {
        **known,
        **measure(panel, path, known),
        **prepared.notes.metrics(path, settings),
        "worst_drawdowns": [
            {
                name: value if isinstance(value, int | float) else value and str(value)
                for name, value in row.items()
            }
            for row in drawdowns.iter_rows(named=True)
        ],
    }
    positions = list_positions(panel, path)
    others = {"drawdowns": drawdowns, "monthly_returns": list_months(panel, path), "positions": positions}
    return make_result(panel, path, metrics, others)


def _run_first(
    prices: pl.DataFrame, signals: Sequence[pl.DataFrame], settings: BacktestSettings, progress: _Progress
) -> BacktestResult:
    """Run the first procedure, which has the same executions on panels where every member always has a close."""
    panel = build_panel(prices, signals, settings)
    progress(0.3, f"simulating {len(panel.dates)} sessions")
    decisions = find_decisions(panel.dates, settings.rebalance_frequency)
    path = simulate(panel, choose(panel.signal, decisions, settings), settings)
    progress(0.9, "measuring")
    return make_result(panel, path, compute_metrics(panel, path, settings))
