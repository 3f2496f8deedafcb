"""The fixed backtest procedure once more, in plain pandas, sentence by sentence from its specification.

It imports nothing of the product; tests compare the two. Slow and literal on purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass
class Reference:
    """What the recomputation found."""

    nav: pd.Series
    benchmark: pd.Series
    trades: list[dict[str, object]] = field(default_factory=list)
    weights: dict[pd.Timestamp, dict[str, float]] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)


def recompute(
    prices: pd.DataFrame,
    signal: pd.DataFrame,
    *,
    start: str | None = None,
    end: str | None = None,
    universe: list[str] | None = None,
    benchmark: str = "equal_weight",
    frequency: str = "monthly",
    commission: float = 0.001,
    slippage: str = "none",
    rate: float = 0.0,
    top_n: int = 5,
    capital: float = 1_000_000.0,
) -> Reference:
    """Run it on wide frames: dates down, entities across, NaN where there is nothing."""
    members = sorted(universe or prices.columns)
    # Closes, on sessions for which every member of the universe has one.
    closes = prices[members].dropna().loc[start:end]
    sessions = list(closes.index)
    close, values = closes.to_dict("index"), signal.to_dict("index")  # by session and entity
    decisions = _decision_sessions(sessions, frequency)
    result = Reference(nav=pd.Series(dtype=float), benchmark=_benchmark(prices, closes, benchmark, capital))

    positions = dict.fromkeys(members, 0.0)
    cash = capital
    awaiting: dict[str, float] | None = None  # decided at the close before
    decided_on: pd.Timestamp | None = None
    navs: list[float] = []
    turnover = 0.0
    executions = 0
    total_costs = 0.0
    for number, session in enumerate(sessions):
        if number > 0:  # between executions positions drift; cash earns nothing
            for member in members:
                positions[member] *= close[session][member] / close[sessions[number - 1]][member]
        if awaiting is not None:
            nav = sum(positions.values()) + cash
            trades = {member: awaiting.get(member, 0.0) * nav - positions[member] for member in members}
            costs = {
                member: _cost(trade, nav, commission, slippage, rate) for member, trade in trades.items()
            }
            scale = (nav - sum(costs.values())) / nav
            positions = {member: awaiting.get(member, 0.0) * nav * scale for member in members}
            cash = (nav - sum(awaiting.get(member, 0.0) * nav for member in members)) * scale
            turnover += sum(abs(trade) for trade in trades.values()) / nav / 2
            executions += 1
            total_costs += sum(costs.values())
            result.trades.extend(
                {
                    "date": session,
                    "decision_date": decided_on,
                    "entity": member,
                    "trade_value": trades[member],
                }
                for member in members
                if trades[member] != 0.0
            )
            awaiting = None
        navs.append(sum(positions.values()) + cash)
        result.weights[session] = {m: value / navs[-1] for m, value in positions.items() if value != 0.0}
        if session in decisions:
            chosen = _highest(values.get(session, {}), members, top_n)
            if chosen:  # none: keep the holdings
                awaiting, decided_on = dict.fromkeys(chosen, 1.0 / len(chosen)), session
    result.nav = pd.Series(navs, index=sessions)
    result.metrics = _metrics(result, turnover, executions, total_costs)
    return result


def _decision_sessions(sessions: list[pd.Timestamp], frequency: str) -> set[pd.Timestamp]:
    if frequency == "daily":
        return set(sessions)
    last: dict[object, pd.Timestamp] = {}
    for session in sessions:
        calendar = session.isocalendar()
        period = (session.year, session.month) if frequency == "monthly" else (calendar.year, calendar.week)
        last[period] = session
    return {sessions[0], *last.values()}


def _highest(values: dict[Any, float], members: list[str], count: int) -> list[str]:
    present = [
        (-values[member], member) for member in members if member in values and not math.isnan(values[member])
    ]
    return [member for _, member in sorted(present)[:count]]


def _cost(trade: float, nav: float, commission: float, slippage: str, rate: float) -> float:
    size = abs(trade)
    extra = {"none": 0.0, "fixed": rate * size, "linear": rate * (size / nav) * size}[slippage]
    return commission * size + extra


def _benchmark(prices: pd.DataFrame, closes: pd.DataFrame, benchmark: str, capital: float) -> pd.Series:
    if benchmark == "equal_weight":
        returns = closes.pct_change().mean(axis=1)
    else:
        returns = prices.loc[closes.index, benchmark].pct_change()
    return capital * (1 + returns.fillna(0.0)).cumprod()


def _metrics(result: Reference, turnover: float, executions: int, costs: float) -> dict[str, float | None]:
    nav, benchmark = result.nav, result.benchmark
    sessions = len(nav)
    returns = (nav / nav.shift(1) - 1).dropna()
    total = nav.iloc[-1] / nav.iloc[0] - 1
    benchmark_total = benchmark.iloc[-1] / benchmark.iloc[0] - 1
    years = 252 / (sessions - 1) if sessions > 1 else None
    deviation = returns.std(ddof=1) if len(returns) > 1 else None
    is_flat = deviation is None or returns.max() - returns.min() < 1e-12
    return {
        "total_return": total,
        "annualized_return": None if years is None else (1 + total) ** years - 1,
        "volatility": None if deviation is None else deviation * math.sqrt(252),
        "sharpe_ratio": None if is_flat else returns.mean() / deviation * math.sqrt(252),
        "max_drawdown": (nav / nav.cummax() - 1).min(),
        "turnover": None if years is None else turnover * years,
        "benchmark_total_return": benchmark_total,
        "benchmark_annualized_return": None if years is None else (1 + benchmark_total) ** years - 1,
        "total_costs": costs,
        "final_nav": nav.iloc[-1],
        "sessions": sessions,
        "executions": executions,
    }
