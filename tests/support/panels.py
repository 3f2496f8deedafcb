"""Panels of prices for models, made from a seed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl

FIRST = dt.date(2020, 1, 1)
CONFIG: dict[str, Any] = {
    "features": [
        {"name": "week", "expression": "PCT(close, 5)", "transforms": [{"name": "standardize"}]},
        {"name": "spread", "expression": "STD(PCT(close, 1), 10)", "transforms": [{"name": "winsorize"}]},
    ],
    "target": {"expression": "PCT(close, 1)", "horizon": 3},
}


def make_prices(sessions: int = 60, entities: int = 8, seed: int = 0) -> pl.DataFrame:
    """Return `date, entity, close` of random walks, one session a day."""
    draws = np.random.default_rng(seed).normal(0, 0.01, (sessions, entities))
    close = 100 * np.exp(np.cumsum(draws, axis=0))
    days = [FIRST + dt.timedelta(days=day) for day in range(sessions)]
    names = [f"e{number}" for number in range(entities)]
    return pl.DataFrame(
        {
            "date": [day for day in days for _ in names],
            "entity": names * sessions,
            "close": close.ravel(),
        }
    )
