"""Reading a part of a version."""

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from optaic.plugins import SchemaMismatch, VersionNotFound
from worker.builtin.delta_store import DeltaStore
from worker.builtin.simple_accessor import SimpleAccessor

DAYS = [dt.date(2020, 1, day) for day in (1, 2, 3)]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    table = pl.DataFrame(
        [(day, entity, 1.0, 2) for day in DAYS for entity in "ab"],
        schema={"date": pl.Date, "entity": pl.String, "close": pl.Float64, "volume": pl.Int64},
        orient="row",
    )
    place = str(tmp_path / "data")
    DeltaStore().write(table, None, place)
    return place


def test_a_read_without_filters_returns_the_whole_table(uri: str) -> None:
    assert SimpleAccessor().read(DeltaStore(), uri, "0").shape == (6, 4)


def test_columns_entities_and_dates_select(uri: str) -> None:
    accessor, store = SimpleAccessor(), DeltaStore()
    assert accessor.read(store, uri, "0", columns=["volume"]).columns == ["date", "entity", "volume"]
    assert accessor.read(store, uri, "0", columns=["date", "close"]).columns == ["date", "entity", "close"]
    assert accessor.read(store, uri, "0", entities=["b"])["entity"].to_list() == ["b"] * 3
    assert accessor.read(store, uri, "0", entities=[]).is_empty()
    cut = accessor.read(store, uri, "0", start=DAYS[1], end=DAYS[1])
    assert cut["date"].unique().to_list() == [DAYS[1]]


def test_entities_that_are_whole_numbers_are_chosen_by_their_names(tmp_path: Path) -> None:
    table = pl.DataFrame({"date": DAYS, "entity": [7, 8, 7], "close": [1.0, 2.0, 3.0]})
    DeltaStore().write(table, None, str(tmp_path / "data"))
    for wanted in (["7"], [7]):
        found = SimpleAccessor().read(DeltaStore(), str(tmp_path / "data"), "0", entities=wanted)  # type: ignore[arg-type] # plugins may
        assert found["close"].to_list() == [1.0, 3.0]


def test_missing_data_is_a_typed_error(uri: str) -> None:
    with pytest.raises(SchemaMismatch, match="price"):
        SimpleAccessor().read(DeltaStore(), uri, "0", columns=["price"])
    with pytest.raises(VersionNotFound):
        SimpleAccessor().read(DeltaStore(), uri, "5")
