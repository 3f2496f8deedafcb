"""The rules of the second procedure one by one, on panels small enough to compute by hand."""

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from optaic.plugins import NoDataInRange, PluginError, SchemaMismatch, UnknownEntity
from support.small_panels import WEEKDAYS, settings, table
from worker.backtest import BacktestResult, BacktestSettings, run
from worker.backtest.delisting import find_delistings

N = None


def members(rows: dict[str, Sequence[int]]) -> pl.DataFrame:
    found = [(WEEKDAYS[index], name) for name, line in rows.items() for index in line]
    return pl.DataFrame(found, schema={"date": pl.Date, "entity": pl.String}, orient="row")


def navs(result: BacktestResult) -> list[float]:
    return result.equity_curve["nav"].to_list()


def said(result: BacktestResult) -> str:
    return "\n".join(result.metrics["warnings"])


def test_a_late_listing_and_a_delisting_cost_no_session() -> None:
    """The case that needs the procedure: with procedure 1 only the sessions with all closes are left."""
    prices = table("close", {"a": [10.0] * 60, "b": [N] * 20 + [10.0] * 40, "c": [10.0] * 30})
    signal = table("value", {"a": [1.0] * 60, "b": [2.0] * 60, "c": [3.0] * 60})
    assert run(prices, [signal], settings(start="2020-01-01")).metrics["sessions"] == 60
    assert (
        run(prices, [signal], settings(start="2020-01-01", missing_prices="drop_session")).metrics["sessions"]
        == 10
    )
    assert run(prices, [signal], BacktestSettings()).metrics["sessions"] == 10


def test_dropped_sessions_are_counted_with_the_members_responsible() -> None:
    prices = table(
        "close", {"a": [10.0] * 6, "b": [1.0, N, N, 1.0, 1.0, 1.0], "c": [1.0, 1.0, N, 1.0, 1.0, 1.0]}
    )
    result = run(prices, [table("value", {"a": [1.0] * 6})], settings(missing_prices="drop_session"))
    assert result.metrics["dropped_sessions"] == 2
    assert result.metrics["dropped_session_members"] == {"b": 2, "c": 1}
    assert "b (2), c (1)" in said(result)


@pytest.mark.parametrize(
    ("coverage", "thin"), [(0.5, 1), (0.34, 1), (0.25, 0), (0.0, 0), (0.75, 2), (1.0, 2)]
)
def test_a_date_with_too_few_closes_is_no_session(coverage: float, thin: int) -> None:
    """Four members are alive; one has a close on the second date, two on the third."""
    prices = table(
        "close",
        {
            "a": [1.0] * 4,
            "b": [1.0, N, 1.0, 1.0],
            "c": [1.0, N, N, 1.0],
            "d": [1.0, N, N, 1.0],
            "e": [N, N, N, 1.0],
        },
    )
    signal = table("value", {"a": [1.0] * 4})
    result = run(prices, [signal], settings(min_session_coverage=coverage))
    assert result.metrics["thin_dates"] == thin
    assert result.metrics["sessions"] == 4 - thin
    assert bool(thin) == ("are no session" in said(result))


def test_a_holding_without_a_close_is_carried_and_the_next_close_brings_the_move() -> None:
    prices = table("close", {"a": [10.0, 10.0, N, N, 15.0], "b": [1.0] * 5})
    signal = table("value", {"a": [1.0] * 5})
    assert navs(run(prices, [signal], settings())) == pytest.approx([1e6, 1e6, 1e6, 1e6, 1.5e6])


def test_a_member_without_a_close_is_not_chosen() -> None:
    prices = table("close", {"a": [10.0, N, 10.0, 10.0], "b": [1.0] * 4})
    signal = table("value", {"a": [9.0] * 4, "b": [1.0] * 4})
    result = run(prices, [signal], settings(start="2020-01-02"))
    trades = result.trades
    assert result.metrics["values_without_close"] == 1
    assert trades.filter(pl.col("decision_date") == WEEKDAYS[1])["entity"].to_list() == ["b"]


def test_the_weight_of_a_chosen_member_that_cannot_be_traded_is_shared_out() -> None:
    prices = table("close", {"a": [10.0, N, 10.0], "b": [1.0] * 3, "c": [1.0] * 3})
    signal = table("value", {"a": [3.0, N, N], "b": [2.0, N, N], "c": [1.0, N, N]})
    result = run(prices, [signal], settings(top_n=3))
    assert {row["entity"]: row["weight_target"] for row in result.trades.iter_rows(named=True)} == {
        "b": 0.5,
        "c": 0.5,
    }
    assert result.metrics["untradable_choices"] == 1
    by_signal = run(prices, [signal], settings(top_n=3, weighting="signal"))
    # b is at the mean, so a would have had everything; b and c have nothing to share by, and share evenly.
    assert by_signal.trades["weight_target"].to_list() == [0.5, 0.5]


def test_an_execution_without_anybody_to_trade_is_skipped() -> None:
    prices = table("close", {"a": [10.0, 10.0, 10.0, N, 10.0], "b": [1.0] * 5})
    signal = table("value", {"a": [1.0, N, 2.0, N, N], "b": [N, 2.0, N, N, N]})
    result = run(prices, [signal], settings())
    assert result.metrics["skipped_executions"] == 1
    assert result.trades["date"].to_list() == [WEEKDAYS[1], WEEKDAYS[2], WEEKDAYS[2]]
    assert "executions were skipped" in said(result)


def test_an_untradable_holding_keeps_its_shares_and_uses_up_its_side() -> None:
    """Half is in a, which has no close at the next execution: b and c share the other half."""
    prices = table("close", {"a": [10.0, 10.0, N, 10.0], "b": [10.0] * 4, "c": [10.0] * 4})
    signal = table("value", {"a": [1.0, N, N, N], "b": [1.0, 2.0, N, N], "c": [N, 2.0, N, N]})
    result = run(prices, [signal], settings(top_n=2, transaction_costs=0.01))
    held = {
        row["entity"]: row["weight"]
        for row in result.weights_history.iter_rows(named=True)
        if row["date"] == WEEKDAYS[2]
    }
    first = 1e6 * 0.99  # after the purchase of everything
    cost = 0.01 * (first / 4 + first / 4)  # b is halved, c is bought
    nav = first - cost
    assert navs(result)[2] == pytest.approx(nav)
    assert held == pytest.approx(
        {"a": first / 2 / nav, "b": (first / 2 - cost) / 2 / nav, "c": (first / 2 - cost) / 2 / nav}
    )


def test_costs_that_only_untradable_holdings_could_pay_are_refused() -> None:
    prices = table("close", {"a": [10.0, 10.0, N, 10.0], "b": [10.0] * 4, "c": [10.0] * 4})
    signal = table("value", {"a": [3.0, N, N, N], "b": [2.9, 2.0, N, N], "c": [N, 3.0, N, N]})
    config: dict[str, Any] = {
        "top_n": 2,
        "slippage_model": "fixed",
        "slippage_rate": 0.4,
        "transaction_costs": 0.0,
    }
    assert run(prices, [signal], settings(**config))
    prices = table("close", {"a": [10.0, 1000.0, N, 10.0], "b": [10.0] * 4, "c": [10.0] * 4})
    with pytest.raises(PluginError) as refused:
        run(prices, [signal], settings(**{**config, "top_n": 1, "slippage_rate": 1.0}))
    assert refused.value.type == "CostsExceedCapital"


@pytest.mark.parametrize(("after", "sold"), [(21, True), (30, True), (31, False), (0, True)])
def test_a_member_without_a_later_close_is_sold_or_listed_as_stale(after: int, sold: bool) -> None:
    prices = table("close", {"a": [10.0] * 10, "b": [1.0] * 40})
    signal = table("value", {"a": [1.0] * 40, "b": [0.0] * 10 + [N] * 30})
    result = run(
        prices, [signal], settings(delisting_after=after, delisting_return=-0.3, transaction_costs=0.01)
    )
    rows = result.trades.filter(pl.col("reason") == "delisting")
    if sold:
        (row,) = rows.iter_rows(named=True)
        first = 1e6 * 0.99
        assert (row["date"], row["decision_date"], row["entity"]) == (WEEKDAYS[10], None, "a")
        assert row["trade_value"] == pytest.approx(-first * 0.7)
        assert row["price"] == pytest.approx(7.0)
        assert (row["commission"], row["slippage"]) == (pytest.approx(first * 0.7 * 0.01), 0.0)
        assert navs(result)[9:11] == pytest.approx([first, first * 0.7 * 0.99])
        assert (result.metrics["delisted"], result.metrics["stale_prices"]) == (["a"], [])
    else:
        assert rows.is_empty()
        assert (result.metrics["delisted"], result.metrics["stale_prices"]) == ([], ["a"])
        assert "valued at their last one: a" in said(result)


def test_the_proceeds_of_a_delisting_are_spent_at_the_execution_of_the_same_session() -> None:
    prices = table("close", {"a": [10.0] * 3, "b": [1.0] * 40})
    signal = table("value", {"a": [5.0] * 40, "b": [N, N, 1.0] + [N] * 37})
    result = run(prices, [signal], settings(delisting_after=0))
    assert result.trades.filter(pl.col("date") == WEEKDAYS[3])["entity"].to_list() == ["a"], (
        "chosen: a has no close there"
    )
    signal = table("value", {"a": [5.0, 5.0, N], "b": [N, N, 1.0]})
    result = run(prices, [signal], settings(delisting_after=0))
    bought = result.trades.filter((pl.col("date") == WEEKDAYS[3]) & (pl.col("entity") == "b"))
    assert bought["trade_value"].to_list() == pytest.approx([1e6])


def test_a_suspended_member_is_not_delisted_however_long_it_lasts() -> None:
    prices = table("close", {"a": [10.0] * 3 + [N] * 40 + [20.0] * 3, "b": [1.0] * 46})
    signal = table("value", {"a": [1.0] * 46})
    result = run(prices, [signal], settings())
    assert result.metrics["delisted"] == []
    assert navs(result)[-1] == pytest.approx(2e6)


def test_a_close_after_the_range_says_that_a_member_lives() -> None:
    prices = table("close", {"a": [10.0] * 3 + [N] * 40 + [20.0], "b": [1.0] * 44})
    spec = {
        "date_range": {"end": str(WEEKDAYS[40])},
        "config": {"procedure": 2, "rebalance_frequency": "daily"},
    }
    result = run(prices, [table("value", {"a": [1.0] * 44})], BacktestSettings.from_spec(spec))
    assert (result.metrics["delisted"], result.metrics["stale_prices"]) == ([], [])


def test_the_benchmark_carries_and_ends_delisted_members() -> None:
    prices = table("close", {"a": [10.0, N, 12.0, 12.0, 12.0], "b": [10.0, 11.0], "c": [N, N, N, 10.0, 20.0]})
    signal = table("value", {"a": [1.0] * 5})
    config: dict[str, Any] = {
        "start": "2020-01-01",
        "delisting_after": 0,
        "delisting_return": -0.5,
        "min_session_coverage": 0.0,
    }
    result = run(prices, [signal], settings(**config))
    # a has no close (0) and b rises; a brings its whole move and b ends; a alone; a and c, which had a close before.
    expected = [(0.0 + 0.1) / 2, (0.2 - 0.5) / 2, 0.0, (0.0 + 1.0) / 2]
    assert result.daily_returns["benchmark_return"].to_list() == pytest.approx(expected)


def test_a_named_benchmark_is_carried_from_before_the_range() -> None:
    prices = table("close", {"a": [1.0] * 5, "spy": [100.0, N, 110.0, N, N]})
    signal = table("value", {"a": [1.0] * 5})
    result = run(
        prices, [signal], settings(assets={"universe": ["a"], "benchmark": "spy"}, start=str(WEEKDAYS[1]))
    )
    assert result.daily_returns["benchmark_return"].to_list() == pytest.approx([0.1, 0.0, 0.0])
    assert result.metrics["benchmark_carried_sessions"] == 3
    late = table("close", {"a": [1.0] * 5, "spy": [N, N, 110.0]})
    with pytest.raises(NoDataInRange, match="spy has no close by the first session, 2020-01-01"):
        run(late, [signal], settings(assets={"universe": ["a"], "benchmark": "spy"}))


def test_only_members_of_the_day_are_chosen_and_leavers_are_sold() -> None:
    prices = table("close", {"a": [10.0] * 5, "b": [10.0] * 5, "c": [10.0] * 5})
    signal = table("value", {"a": [3.0] * 5, "b": [2.0] * 5, "c": [9.0] * 5})
    listed = members({"a": [0, 1], "b": range(5), "nobody": [0]})
    result = run(prices, [signal], settings(), membership=listed)
    trades = [(row["date"], row["entity"], row["trade_value"]) for row in result.trades.iter_rows(named=True)]
    assert trades == [(WEEKDAYS[1], "a", 1e6), (WEEKDAYS[3], "a", -1e6), (WEEKDAYS[3], "b", 1e6)]
    assert result.metrics["members_without_prices"] == 1
    assert "nobody" in said(result)


def test_days_without_a_row_of_the_membership_are_counted() -> None:
    prices, signal = table("close", {"a": [10.0] * 5}), table("value", {"a": [3.0] * 5})
    result = run(prices, [signal], settings(), membership=members({"a": [0, 2]}))
    assert result.metrics["decisions_without_members"] == 3
    assert "3 of 5 decisions" in said(result)
    with pytest.raises(UnknownEntity, match="membership_id"):
        run(prices, [signal], settings(), membership=members({"zz": [0]}))
    with pytest.raises(SchemaMismatch, match="membership_id: no column 'entity'"):
        run(prices, [signal], settings(), membership=members({"a": [0]}).rename({"entity": "name"}))


def test_without_a_start_the_range_begins_where_enough_can_be_chosen() -> None:
    prices = table("close", {"a": [10.0] * 40, "b": [10.0] * 40, "c": [10.0] * 40})
    signal = table(
        "value", {"a": [N] * 5 + [1.0] * 35, "b": [N] * 9 + [1.0] * 31, "c": [N] * 12 + [1.0] * 28}
    )
    for top_n, first in ((1, 5), (2, 9), (3, 12), (7, 12)):
        result = run(prices, [signal], settings(top_n=top_n))
        assert result.equity_curve["date"][0] == WEEKDAYS[first]
        assert result.metrics["sessions_before_start"] == first
        assert result.metrics["warmup_sessions"] == 0
    assert run(prices, [signal], settings(top_n=1, long_short=True)).equity_curve["date"][0] == WEEKDAYS[9]
    monthly = run(prices, [signal], settings(top_n=3, rebalance_frequency="monthly"))
    assert monthly.equity_curve["date"][0] == dt.date(2020, 1, 31)


def test_with_a_start_the_warm_up_counts_and_is_said() -> None:
    prices, signal = table("close", {"a": [10.0] * 40}), table("value", {"a": [N] * 5 + [1.0] * 35})
    result = run(prices, [signal], settings(start="2020-01-01"))
    assert (result.metrics["sessions"], result.metrics["warmup_sessions"]) == (40, 5)
    assert "5 of 40 sessions are before the first decision" in said(result)
    short = run(prices, [signal], settings(start=str(WEEKDAYS[4])))
    assert short.metrics["warmup_sessions"] == 1
    assert "before the first decision" not in said(short)


def test_a_signal_that_decides_nothing_fails() -> None:
    prices = table("close", {"a": [10.0] * 5})
    weekend = [dt.date(2020, 1, 4), dt.date(2020, 1, 5)]
    for signal in (
        table("value", {"a": [1.0, 1.0]}, weekend),
        table("value", {"zz": [1.0] * 5}),
        table("value", {"a": []}),
    ):
        with pytest.raises(PluginError) as refused:
            run(prices, [signal], settings())
        assert refused.value.type == "NoDecisions"
    with pytest.raises(PluginError) as refused:
        run(prices, [table("value", {"a": [1.0] * 5})], settings(long_short=True))
    assert refused.value.type == "NoDecisions", "one entity cannot be on both sides"


def test_signal_dates_that_match_no_session_are_counted() -> None:
    prices = table("close", {"a": [10.0] * 5})
    days = [*WEEKDAYS[:5], dt.date(2020, 1, 4), dt.date(2020, 1, 5)]
    result = run(prices, [table("value", {"a": [1.0] * 7, "zz": [1.0] * 7}, days)], settings())
    assert result.metrics["unmatched_signal_dates"] == 2
    assert "2 dates of the signals are no session" in said(result)


def test_weights_by_signal_are_the_distances_from_the_mean_of_all() -> None:
    prices = table("close", {name: [10.0] * 3 for name in "abcd"})
    signal = table("value", {"a": [4.0], "b": [3.0], "c": [1.0], "d": [0.0]})  # mean 2
    result = run(prices, [signal], settings(top_n=3, weighting="signal"))
    weights = dict(zip(result.trades["entity"], result.trades["weight_target"], strict=True))
    assert weights == pytest.approx({"a": 2 / 3, "b": 1 / 3}), "c is below the mean"
    even = table("value", {"a": [2.0], "b": [2.0], "c": [2.0], "d": [2.0]})
    assert run(prices, [even], settings(top_n=2, weighting="signal")).trades["weight_target"].to_list() == [
        0.5,
        0.5,
    ]
    both = run(prices, [signal], settings(top_n=2, weighting="signal", long_short=True))
    weights = dict(zip(both.trades["entity"], both.trades["weight_target"], strict=True))
    assert weights == pytest.approx({"a": 2 / 3, "b": 1 / 3, "c": -1 / 3, "d": -2 / 3})


def test_long_and_short_have_a_gross_exposure_of_one_each() -> None:
    prices = table("close", {"a": [10.0, 10.0, 12.0], "b": [10.0] * 3, "c": [10.0, 10.0, 9.0]})
    signal = table("value", {"a": [3.0], "b": [2.0], "c": [1.0]})
    result = run(prices, [signal], settings(top_n=5, long_short=True))  # k = 3 // 2
    assert dict(zip(result.trades["entity"], result.trades["weight_target"], strict=True)) == {
        "a": 1.0,
        "c": -1.0,
    }
    assert navs(result) == pytest.approx([1e6, 1e6, 1e6 * (1 + 0.2 + 0.1)])
    assert result.metrics["average_net_exposure"] == pytest.approx((0.0 + 0.0 + 0.3 / 1.3) / 3)


def test_short_positions_that_lose_everything_fail() -> None:
    prices = table("close", {"a": [10.0] * 3, "b": [10.0, 10.0, 40.0]})
    signal = table("value", {"a": [3.0], "b": [1.0]})
    with pytest.raises(PluginError, match="2020-01-03") as refused:
        run(prices, [signal], settings(long_short=True))
    assert refused.value.type == "CapitalLost"


def test_a_delisting_that_takes_everything_leaves_zero_and_no_failure() -> None:
    prices = table("close", {"a": [10.0] * 3, "b": [1.0] * 6})
    signal = table("value", {"a": [3.0] * 3, "b": [1.0] * 6})
    result = run(prices, [signal], settings(delisting_after=0, delisting_return=-1.0))
    assert navs(result)[3:] == [0.0, 0.0, 0.0]
    assert result.metrics["total_return"] == -1.0
    assert result.metrics["skipped_executions"] > 0
    assert result.daily_returns["return"].to_list() == [0.0, 0.0, -1.0, 0.0, 0.0]
    json_numbers = [value for value in result.metrics.values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in json_numbers)


def test_slippage_by_volume_is_the_share_of_the_session() -> None:
    """100,000 shares each: a tenth of the volume of a, all and more of b's, no volume of c and d."""
    prices = table("close", {name: [10.0] * 3 for name in "abcd"})
    volumes = table("volume", {"a": [1e6] * 3, "b": [5e3] * 3, "c": [0.0] * 3, "d": [N] * 3})
    joined = prices.join(volumes, on=["date", "entity"])
    signal = table("value", {name: [1.0] for name in "abcd"})
    config: dict[str, Any] = {"slippage_model": "volume", "slippage_rate": 0.2, "top_n": 4}
    result = run(joined, [signal], settings(**config))
    each = 250_000.0
    expected = {"a": 0.2 * (each / 10 / 1e6) * each, "b": 0.2 * each, "c": 0.0005 * each, "d": 0.0005 * each}
    assert dict(zip(result.trades["entity"], result.trades["slippage"], strict=True)) == pytest.approx(
        expected
    )
    assert result.metrics["trades_without_volume"] == 2
    assert "2 trades have no volume" in said(result)
    with pytest.raises(SchemaMismatch, match="no column 'volume'"):
        run(prices, [signal], settings(**config))


def test_what_is_not_positive_is_refused_where_it_is_a_session() -> None:
    with pytest.raises(SchemaMismatch, match="not positive"):
        run(table("close", {"a": [1.0, 0.0]}), [table("value", {"a": [1.0]})], settings())
    with pytest.raises(NoDataInRange, match="no session from 2030"):
        run(table("close", {"a": [1.0]}), [table("value", {"a": [1.0]})], settings(start="2030-01-01"))


def test_a_stray_date_after_the_last_session_close_is_the_last_close() -> None:
    """The prices have a close of a on a date that is no session: it ends a there, and at that price."""
    grid = np.array([[10.0, 1.0], [10.0, 1.0], [7.0, np.nan], [np.nan, 1.0]])
    dates, days = np.array([0, 1, 2, 3]), np.array([0, 1, 3])
    found = find_delistings(grid, dates, days, settings(delisting_after=0))
    assert found.sessions.tolist() == [2, -1]
    assert found.sales[2].prices.tolist() == [7.0]
