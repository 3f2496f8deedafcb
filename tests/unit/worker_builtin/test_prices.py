"""The pipeline over the real data set."""

import datetime as dt

import polars as pl
import pytest
from skfolio.datasets import load_sp500_dataset

from optaic.plugins import DateRange, InvalidConfig, NoDataInRange, PipelineContext, UnknownEntity
from worker.builtin.prices import SP500Prices


def run(config: dict[str, object], date_range: DateRange | None = None) -> pl.DataFrame:
    return SP500Prices().run(PipelineContext(config=config, date_range=date_range or DateRange()))


def test_everything_is_there_by_default() -> None:
    table = run({})
    wide = load_sp500_dataset()
    assert table.schema == {"date": pl.Date, "entity": pl.String, "close": pl.Float64}
    assert (table.height, table["date"].n_unique(), table["entity"].n_unique()) == (166_260, 8_313, 20)
    assert (table["date"].min(), table["date"].max()) == (dt.date(1990, 1, 2), dt.date(2022, 12, 28))
    assert table.equals(table.sort("date", "entity"))
    for date, entity, close in table.sample(50, seed=1).iter_rows():
        assert close == wide.loc[str(date), entity]


def test_a_later_as_of_date_only_adds_rows() -> None:
    before, after = run({"as_of": "2021-12-31"}), run({"as_of": "2022-12-28"})
    assert before["date"].max() == dt.date(2021, 12, 31)
    assert after.filter(pl.col("date") <= dt.date(2021, 12, 31)).equals(before)
    assert after.height - before.height == 249 * 20
    assert run({"as_of": "2099-01-01"}).equals(after)


def test_prices_are_filtered_by_symbols_and_dates() -> None:
    table = run(
        {"symbols": ["XOM", "AAPL"], "start": "2020-01-01", "end": "2020-01-10", "as_of": "2020-01-08"}
    )
    assert table["entity"].unique().sort().to_list() == ["AAPL", "XOM"]
    assert table["date"].unique().sort().to_list() == [dt.date(2020, 1, day) for day in (2, 3, 6, 7, 8)]
    assert run({"symbols": []}).height == 166_260
    narrowed = run({"start": "2019-01-01"}, DateRange(dt.date(2020, 1, 3), dt.date(2020, 1, 6)))
    assert narrowed["date"].unique().sort().to_list() == [dt.date(2020, 1, 3), dt.date(2020, 1, 6)]


def test_an_unknown_symbol_is_named_with_a_suggestion() -> None:
    with pytest.raises(UnknownEntity, match=r"APPL.*did you mean AAPL") as caught:
        run({"symbols": ["MSFT", "APPL"]})
    assert caught.value.type == "UnknownEntity"


@pytest.mark.parametrize(
    "config",
    [
        {"start": "2023-01-01"},
        {"end": "1989-12-31"},
        {"start": "2020-01-04", "end": "2020-01-05"},
        {"as_of": "1980-01-01"},
        {"start": "2020-02-01", "end": "2020-01-01"},
    ],
)
def test_a_range_without_sessions_is_a_typed_error(config: dict[str, object]) -> None:
    with pytest.raises(NoDataInRange, match="1990-01-02 to 2022-12-28"):
        run(config)


@pytest.mark.parametrize("config", [{"as_of": "soon"}, {"symbols": "AAPL"}, {"start": 5}, {"symbols": [1]}])
def test_a_malformed_setting_is_a_typed_error(config: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        run(config)
