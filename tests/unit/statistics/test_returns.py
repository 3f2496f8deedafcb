"""Later returns and means by quantile, each beside pandas."""

import datetime as dt
import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from optaic.plugins import SchemaMismatch
from worker.statistics.returns import later_returns, mean_by_quantile

DAY = dt.date(2024, 1, 1)


def panel(sessions: int, entities: int, seed: int, gaps: float = 0.0) -> pl.DataFrame:
    numbers = np.random.default_rng(seed)
    closes = 100 * np.exp(numbers.normal(0, 0.02, (sessions, entities)).cumsum(axis=0))
    wide = pd.DataFrame(
        closes,
        index=[DAY + dt.timedelta(days=3 * day) for day in range(sessions)],
        columns=[f"e{entity}" for entity in range(entities)],
    )
    wide = wide.where(numbers.random(wide.shape) >= gaps)
    long = wide.rename_axis("date").reset_index().melt("date", var_name="entity", value_name="close")
    return pl.DataFrame(long.dropna()).with_columns(pl.col("date").cast(pl.Date))


def wide(table: pl.DataFrame, column: str) -> pd.DataFrame:
    return table.to_pandas().pivot_table(index="date", columns="entity", values=column, dropna=False)


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_a_return_is_that_from_a_session_to_a_later_one(gaps: float) -> None:
    prices = panel(40, 5, seed=1, gaps=gaps).sample(fraction=1.0, shuffle=True, seed=2)
    found = later_returns(prices, (1, 5, 21))
    closes = wide(prices, "close")
    assert found.columns == ["date", "entity", "return_1", "return_5", "return_21"]
    assert found.height == prices.height
    for horizon in (1, 5, 21):
        later = (closes.shift(-horizon) / closes - 1).reset_index()
        expected = later.melt("date", var_name="entity", value_name="expected").dropna()
        kept = found.drop_nulls(f"return_{horizon}").sort("date", "entity")
        ordered = expected.sort_values(["date", "entity"])["expected"].to_numpy()
        assert kept[f"return_{horizon}"].to_numpy() == pytest.approx(ordered, rel=1e-12)


def test_a_close_that_is_no_price_gives_no_return() -> None:
    closes = [1.0, 0.0, 2.0, -1.0, 3.0, math.inf, 4.0, None, 5.0, 6.0]
    days = [DAY + dt.timedelta(days=day) for day in range(len(closes))]
    found = later_returns(pl.DataFrame({"date": days, "entity": "a", "close": closes}), (1, 2))
    known = dict(zip(found["date"].to_list(), found.drop("date", "entity").rows(), strict=True))
    assert known == {
        days[0]: (None, 1.0),
        days[1]: (None, None),
        days[2]: (None, 0.5),
        days[3]: (None, None),
        days[4]: (None, 4.0 / 3.0 - 1.0),
        days[6]: (None, 0.25),
        days[8]: (pytest.approx(0.2), None),
        days[9]: (None, None),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda prices: prices.drop("close"), "prices: no column 'close'"),
        (lambda prices: prices.drop("entity"), "prices: no column 'entity'"),
        (lambda prices: pl.concat([prices, prices.head(1)]), "prices: several rows for one date and entity"),
        (lambda prices: prices.with_columns(close=pl.lit("1")), "prices: 'close' is String, not numeric"),
    ],
)
def test_prices_that_cannot_be_read_are_refused(change: Any, said: str) -> None:
    with pytest.raises(SchemaMismatch, match=said):
        later_returns(change(panel(3, 2, seed=1)), (1,))


@pytest.mark.parametrize("entities", [5, 7, 20, 23])
def test_quintiles_are_those_of_the_ranks_on_each_date(entities: int) -> None:
    numbers = np.random.default_rng(entities)
    table = panel(30, entities, seed=3, gaps=0.1).with_columns(
        outcome=pl.Series(numbers.normal(size=30 * entities)[: panel(30, entities, seed=3, gaps=0.1).height])
    )
    frame = table.to_pandas()
    size = frame.groupby("date")["close"].transform("size")
    frame = frame[size >= 5]
    share = frame.groupby("date")["close"].rank(pct=True)
    frame["quantile"] = np.ceil((5 * share).round(9)).astype(int)
    expected = frame.groupby(["date", "quantile"])["outcome"].mean().groupby("quantile").mean()
    found = mean_by_quantile(table, "close", "outcome")
    assert found == pytest.approx([expected.get(quantile) for quantile in range(1, 6)])


def test_each_quintile_has_a_fifth_of_the_entities() -> None:
    table = pl.DataFrame({"date": [DAY] * 10, "score": range(10), "outcome": [float(n) for n in range(10)]})
    assert mean_by_quantile(table, "score", "outcome") == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert mean_by_quantile(table.head(4), "score", "outcome") == [None] * 5
    equal = table.with_columns(score=pl.lit(1.0))
    assert mean_by_quantile(equal, "score", "outcome") == [None, None, 4.5, None, None]
