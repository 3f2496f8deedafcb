"""Panels that are the same on every machine, and the digits of what a backtest makes of them."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from collections.abc import Mapping
from typing import Any

import polars as pl

# By name: sessions, entities, secondary signals, the share of closes that are missing, and the specification.
CASES: Mapping[str, tuple[int, int, int, float, dict[str, Any]]] = {
    "monthly": (400, 7, 0, 0.0, {"config": {"top_n": 3}}),
    "daily_linear": (
        300, 11, 0, 0.0,
        {"config": {"rebalance_frequency": "daily", "slippage_model": "linear", "top_n": 4}},
    ),
    "weekly_fixed_gaps": (
        500, 5, 0, 0.01, {"config": {"rebalance_frequency": "weekly", "slippage_model": "fixed", "top_n": 2}},
    ),
    "many_entities": (60, 300, 0, 0.0, {"config": {"rebalance_frequency": "daily", "top_n": 20}}),
    "one_entity": (90, 1, 0, 0.05, {"config": {"rebalance_frequency": "weekly"}}),
    "one_session": (1, 6, 0, 0.0, {}),
    "two_sessions": (2, 150, 0, 0.0, {"config": {"rebalance_frequency": "daily"}}),
    "several_signals": (
        250, 9, 3, 0.0, {"config": {"rebalance_frequency": "weekly", "primary_weight": 0.4, "top_n": 3}},
    ),
    "named_benchmark": (
        250, 8, 0, 0.0,
        {"assets": {"benchmark": "e003", "universe": ["e000", "e005", "e006"]}, "config": {"top_n": 2}},
    ),
    "a_range": (
        400, 12, 0, 0.002,
        {"date_range": {"start": "2019-05-01", "end": "2020-02-10"}, "config": {"transaction_costs": 0.004}},
    ),
}  # fmt: skip


def make_panel(name: str) -> tuple[pl.DataFrame, list[pl.DataFrame], dict[str, Any]]:
    """Return prices, signals and the specification of a case."""
    sessions, entities, others, gaps, spec = CASES[name]
    numbers = random.Random(name)
    days = [dt.date(2019, 1, 1) + dt.timedelta(days=day) for day in range(sessions * 2)]
    days = [day for day in days if day.weekday() < 5][:sessions]
    prices: list[tuple[dt.date, str, float]] = []
    signals: list[list[tuple[dt.date, str, float]]] = [[] for _ in range(1 + others)]
    for entity in (f"e{number:03d}" for number in range(entities)):
        level = numbers.uniform(5.0, 500.0)
        for day in days:
            level *= 1.0 + numbers.uniform(-0.03, 0.031)
            if numbers.random() >= gaps:
                prices.append((day, entity, level))
            for rows in signals:
                if numbers.random() >= 0.1:
                    rows.append((day, entity, round(numbers.uniform(-2.0, 2.0), 1)))
    return _table(prices, "close"), [_table(rows, "value") for rows in signals], spec


def digits(metrics: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Return every figure in hexadecimal, and the digest of every bit of each table."""
    return {
        "metrics": {
            name: value.hex() if isinstance(value, float) else value for name, value in metrics.items()
        },
        "tables": {name: _digest(table) for name, table in tables.items()},
    }


def _digest(table: pl.DataFrame) -> str:
    rows = "\n".join(
        ",".join(value.hex() if isinstance(value, float) else str(value) for value in row)
        for row in table.iter_rows()
    )
    return hashlib.sha256(f"{table.columns}\n{rows}".encode()).hexdigest()


def _table(rows: list[tuple[dt.date, str, float]], column: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"date": pl.Date, "entity": pl.String, column: pl.Float64}, orient="row")
