"""Reading what was known on a date, and reading one column; over both stores."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaic.plugins import InvalidConfig, SchemaMismatch, Store, StoredVersion
from worker.builtin.delta_store import DeltaStore
from worker.builtin.field_accessor import FieldAccessor
from worker.builtin.parquet_store import ParquetStore
from worker.builtin.point_in_time_accessor import PointInTimeAccessor

DAYS = [dt.date(2020, 1, day) for day in range(1, 8)]
KEYS = ["date", "entity", "knowledge_date"]
# Earnings of two quarters: first reports, later corrections.
REPORTS = pl.DataFrame(
    [
        (DAYS[0], "a", DAYS[2], 1.0),
        (DAYS[0], "a", DAYS[4], 1.1),
        (DAYS[0], "b", DAYS[3], 2.0),
        (DAYS[1], "a", DAYS[6], 3.0),
    ],
    schema={"date": pl.Date, "entity": pl.String, "knowledge_date": pl.Date, "eps": pl.Float64},
    orient="row",
)


class InMemory(Store):
    """Holds one table."""

    def __init__(self, table: pl.DataFrame) -> None:
        super().__init__()
        self._table = table

    def write(self, table: pl.DataFrame, base_version: str | None, uri: str) -> StoredVersion:
        raise NotImplementedError

    def read(self, uri: str, physical_version: str) -> pl.DataFrame:
        del uri, physical_version
        return self._table


def known(as_of: dt.date | None, table: pl.DataFrame = REPORTS, **config: object) -> pl.DataFrame:
    given = {**({} if as_of is None else {"as_of": as_of.isoformat()}), **config}
    return PointInTimeAccessor(given).read(InMemory(table), "", "")


@pytest.mark.parametrize("make", [DeltaStore, ParquetStore])
def test_each_date_has_the_value_that_was_known_on_it(make: Callable[..., Store], tmp_path: Path) -> None:
    store = make({"keys": KEYS})
    version = store.write(REPORTS, None, str(tmp_path / "data")).physical_version
    expected = {1: [], 2: [1.0], 3: [1.0, 2.0], 4: [1.1, 2.0], 5: [1.1, 2.0], 6: [1.1, 2.0, 3.0]}
    for day, values in expected.items():
        accessor = PointInTimeAccessor({"as_of": DAYS[day].isoformat()})
        assert accessor.read(store, str(tmp_path / "data"), version)["eps"].to_list() == values


def test_without_a_date_the_newest_knowledge_counts() -> None:
    assert known(None)["eps"].to_list() == [1.1, 2.0, 3.0]


_values = st.integers(-(2**63), 2**63 - 1)


@given(
    rows=st.lists(
        st.tuples(st.sampled_from(DAYS), st.sampled_from("ab"), st.sampled_from(DAYS), _values),
        unique_by=lambda row: row[:3],
    ),
    as_of=st.sampled_from(DAYS),
)
def test_point_in_time_read_equals_a_row_by_row_computation(
    rows: list[tuple[dt.date, str, dt.date, int]], as_of: dt.date
) -> None:
    table = pl.DataFrame(rows, schema={**{k: REPORTS.schema[k] for k in KEYS}, "eps": pl.Int64}, orient="row")
    expected: dict[tuple[dt.date, str], tuple[dt.date, int]] = {}
    for date, entity, knowledge, value in rows:
        if knowledge <= as_of and knowledge >= expected.get((date, entity), (dt.date.min, 0))[0]:
            expected[date, entity] = (knowledge, value)
    found = known(as_of, table)
    assert {(row[0], row[1]): (row[2], row[3]) for row in found.iter_rows()} == expected
    assert found.height == len(expected)


def test_selection_applies_to_the_values_known_at_the_time() -> None:
    accessor = PointInTimeAccessor()
    found = accessor.read(InMemory(REPORTS), "", "", columns=["eps"], entities=["a"], end=DAYS[0])
    assert found.rows() == [(DAYS[0], "a", 1.1)]


def test_names_and_keys_can_be_configured() -> None:
    table = REPORTS.rename({"knowledge_date": "published", "entity": "firm"})
    assert known(DAYS[3], table, knowledge_column="published", keys=["firm"])["eps"].to_list() == [1.0, 2.0]


@pytest.mark.parametrize(
    "table",
    [
        REPORTS.drop("knowledge_date"),
        REPORTS.with_columns(knowledge_date=pl.lit("2020-01-01")),
        REPORTS.with_columns(knowledge_date=pl.lit(None, pl.Date)),
        REPORTS.drop("entity"),
    ],
    ids=["no column", "a text", "unknown", "no key"],
)
def test_data_without_knowledge_dates_is_refused(table: pl.DataFrame) -> None:
    with pytest.raises(SchemaMismatch):
        known(DAYS[3], table)


def test_a_time_of_knowledge_counts_for_its_whole_day() -> None:
    table = REPORTS.with_columns(pl.col("knowledge_date").dt.combine(dt.time(23, 59)))
    assert known(DAYS[2], table)["eps"].to_list() == [1.0]


def test_a_field_comes_with_its_keys() -> None:
    store = InMemory(REPORTS)
    assert FieldAccessor({"field": "eps"}).read(store, "", "").columns == ["date", "entity", "eps"]
    renamed = FieldAccessor({"field": "eps", "output": "value"}).read(store, "", "", entities=["b"])
    assert renamed.rows() == [(DAYS[0], "b", 2.0)]
    assert FieldAccessor({"field": "entity"}).read(store, "", "").columns == ["date", "entity"]


def test_a_field_that_is_not_there_is_a_typed_error() -> None:
    with pytest.raises(SchemaMismatch, match="close"):
        FieldAccessor({"field": "close"}).read(InMemory(REPORTS), "", "")
    with pytest.raises(SchemaMismatch, match="knowledge_date"):
        FieldAccessor({"field": "eps"}).read(InMemory(REPORTS), "", "", columns=["knowledge_date"])
    with pytest.raises(InvalidConfig, match="field"):
        FieldAccessor()
    with pytest.raises(InvalidConfig, match="output"):
        FieldAccessor({"field": "eps", "output": "date"})
