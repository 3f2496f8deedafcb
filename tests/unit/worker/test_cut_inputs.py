"""A run that is to read nothing after a day does not see what is dated, or became known, later."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from worker.builtin.delta_store import DeltaStore
from worker.computing.inputs import has_later, open_input, open_inputs
from worker.recipe import Component, Input, StoredData

DAYS = [dt.date(2024, 1, day) for day in (2, 3, 4)]
STORE = Component("worker.builtin.delta_store:DeltaStore", config={})
SIMPLE = Component("worker.builtin.simple_accessor:SimpleAccessor", config={})


def _store(folder: Path, table: pl.DataFrame, accessor: Component = SIMPLE, **config: Any) -> Input:
    stored = DeltaStore(config).write(table, None, str(folder / "data"))
    store = Component(STORE.code_ref, config=config)
    return Input("input", "x", "", 1, "", StoredData(store, accessor, stored.uri, stored.physical_version))


PRICES = pl.DataFrame({"date": DAYS, "entity": "a", "close": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_dates_after_the_day_are_not_read(count: int, tmp_path: Path) -> None:
    given = _store(tmp_path, PRICES)
    until = DAYS[count - 1] if count else DAYS[0] - dt.timedelta(days=1)
    assert_frame_equal(open_input(given, until).frame, PRICES.head(count))
    (table,) = open_inputs([given], until)["input"]
    assert table.frame.height == count
    assert has_later([given], until) is (count < len(DAYS))


def test_without_a_day_everything_is_read(tmp_path: Path) -> None:
    given = _store(tmp_path, PRICES)
    assert_frame_equal(open_input(given).frame, PRICES)
    assert not has_later([given], None)


@pytest.mark.parametrize(("until", "values"), [(DAYS[1], [1.0]), (DAYS[2], [9.0])])
def test_what_became_known_later_is_not_read(until: dt.date, values: list[float], tmp_path: Path) -> None:
    reports = pl.DataFrame(
        {"date": DAYS[0], "entity": "a", "known": [DAYS[1], DAYS[2]], "eps": [1.0, 9.0]},
    )
    accessor = Component(
        "worker.builtin.point_in_time_accessor:PointInTimeAccessor", config={"knowledge_column": "known"}
    )
    given = _store(tmp_path, reports, accessor, keys=["date", "entity", "known"])
    assert open_input(given, until).frame["eps"].to_list() == values
