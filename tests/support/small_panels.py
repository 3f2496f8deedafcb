"""Tables of small panels, and settings of the second procedure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from worker.backtest import BacktestSettings

WEEKDAYS = [
    day for number in range(120) if (day := dt.date(2020, 1, 1) + dt.timedelta(days=number)).weekday() < 5
]


def table(
    column: str, values: Mapping[str, Sequence[float | None]], days: Sequence[dt.date] = WEEKDAYS
) -> pl.DataFrame:
    """Return one row for each value: each entity's values stand on the days in order."""
    rows = [(days[index], name, value) for name, line in values.items() for index, value in enumerate(line)]
    return pl.DataFrame(rows, schema={"date": pl.Date, "entity": pl.String, column: pl.Float64}, orient="row")


def settings(*, assets: dict[str, Any] | None = None, start: str = "", **config: Any) -> BacktestSettings:
    """Return settings of a daily backtest of one entity without costs, where nothing else is given."""
    given = {"procedure": 2, "rebalance_frequency": "daily", "transaction_costs": 0.0, "top_n": 1, **config}
    return BacktestSettings.from_spec(
        {"assets": assets or {}, "date_range": {"start": start}, "config": given}
    )
