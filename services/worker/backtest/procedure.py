"""The fixed procedure: when weights are decided, how they are executed, what that costs; it reads no table by itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from optaic.plugins import PluginError
from worker.backtest.metrics import compute_metrics
from worker.backtest.panel import Matrix, Panel, build_panel
from worker.backtest.result import BacktestResult, Execution, Path, make_result
from worker.backtest.settings import BacktestSettings, Frequency, Slippage

EXECUTION_LAG = 1  # sessions between a decision's close and its execution at a close


def run(
    prices: pl.DataFrame,
    signals: Sequence[pl.DataFrame],
    settings: BacktestSettings,
    progress: Callable[[float, str], None] = lambda fraction, message: None,  # noqa: ARG005 - the callback's names
) -> BacktestResult:
    """Simulate the backtest and return its result.

    Args:
        prices: `date, entity, close`.
        signals: `date, entity, value` each, the primary first.
        settings: everything else.
        progress: called with the fraction that is done.

    Raises:
        PluginError: typed by what is wrong with the inputs (see `build_panel`), or `CostsExceedCapital`.
    """
    progress(0.05, "aligning prices and signals")
    panel = build_panel(prices, signals, settings)
    progress(0.3, f"simulating {len(panel.dates)} sessions")
    path = simulate(panel, settings)
    progress(0.9, "measuring")
    return make_result(panel, path, compute_metrics(panel, path, settings))


def find_decisions(dates: Sequence[dt.date], frequency: Frequency) -> list[int]:
    """Return the indices of decision sessions: the first session, and the last of each period."""
    if frequency is Frequency.DAILY:
        return list(range(len(dates)))
    periods = [
        (date.year, date.month) if frequency is Frequency.MONTHLY else tuple(date.isocalendar())[:2]
        for date in dates
    ]
    is_last = [
        index + 1 == len(dates) or periods[index + 1] != period for index, period in enumerate(periods)
    ]
    return [index for index, last in enumerate(is_last) if last or index == 0]


def select_top(values: Matrix, count: int) -> npt.NDArray[np.intp]:
    """Return columns of the highest values, at most `count`; NaN never, ties in the columns' order, which is by name."""
    candidates = np.flatnonzero(~np.isnan(values))
    return candidates[np.argsort(-values[candidates], kind="stable")[:count]]


def simulate(panel: Panel, settings: BacktestSettings) -> Path:
    """Simulate holdings, cash and executions over the panel's sessions; between executions shares stay fixed."""
    count = len(panel.dates)
    shares, cash = np.zeros_like(panel.closes), np.full(count, settings.initial_capital)
    executions: list[Execution] = []
    for decision in find_decisions(panel.dates, settings.rebalance_frequency):
        chosen = select_top(panel.signal[decision], settings.top_n)
        session = decision + EXECUTION_LAG
        if session >= count or not chosen.size:
            continue  # never executed; or nothing to hold: the holdings stay
        weights = np.zeros(len(panel.entities))
        weights[chosen] = 1.0 / chosen.size
        held = shares[session] * panel.closes[session]
        execution = _execute(decision, session, weights, held, float(cash[session]), settings)
        scale = (execution.nav - execution.costs) / execution.nav
        if scale <= 0.0:
            raise PluginError(
                f"the costs on {panel.dates[session]} consume all capital; raise the initial capital or lower the costs",
                type="CostsExceedCapital",
            )
        shares[session:] = weights * execution.nav * scale / panel.closes[session]
        cash[session:] = (1.0 - weights.sum()) * execution.nav * scale
        executions.append(execution)
    values = shares * panel.closes
    return Path(values=values, nav=values.sum(axis=1) + cash, executions=executions)


def _execute(
    decision: int, session: int, weights: Matrix, held: Matrix, cash: float, settings: BacktestSettings
) -> Execution:
    nav = float(held.sum()) + cash
    trades = weights * nav - held
    size = np.abs(trades)
    slippage = settings.slippage_rate * size
    if settings.slippage_model is Slippage.LINEAR:
        slippage = slippage * size / nav
    elif settings.slippage_model is Slippage.NONE:
        slippage = np.zeros_like(size)
    return Execution(decision, session, nav, weights, trades, settings.transaction_costs * size, slippage)
