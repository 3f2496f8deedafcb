"""Rows of a database whose columns mix types: what becomes of them is said, or refused by column and row."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.plugins import (
    DateRange,
    Mode,
    OutOfRange,
    PipelineContext,
    PluginError,
    SchemaMismatch,
    UnparsableData,
)
from worker.builtin.sql_rows import make_table
from worker.builtin.sql_source import SqlPipeline
from worker.builtin.typed_sql_source import TypedSqlPipeline

_X = ("x", None, None, None, None, None, None)  # as drivers describe a column
BOTH = pytest.mark.parametrize("pipeline", [SqlPipeline, TypedSqlPipeline])


def _refresh(
    pipeline: type[SqlPipeline], folder: Path, values: Sequence[Any], **config: Any
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read a column without a type of its own, `x`, of SQLite; answer the table and the metrics."""
    path = folder / "source.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table px (date text, entity text, x, other)")
        rows = [(f"2024-01-{day:02}", "A", value, value) for day, value in enumerate(values, 1)]
        connection.executemany("insert into px values (?, ?, ?, ?)", rows)
    metrics: dict[str, Any] = {}
    context = PipelineContext(
        config={"url": f"sqlite:///{path}", "query": "select date, entity, x from px", **config}, inputs={}, mode=Mode.FULL,
        date_range=DateRange(), timezone="UTC", data_date=None, report=metrics.__setitem__,
    )  # fmt: skip
    return pipeline().run(context), metrics


@BOTH
@pytest.mark.parametrize(
    ("values", "texts", "row"),
    [
        ([1, None, "n/a"], ["1", None, "n/a"], "'n/a' in row 3 is a text"),
        (["n/a", 1.5], ["n/a", "1.5"], "1.5 in row 2 is a number"),
        ([1, "2"], ["1", "2"], "'2' in row 2 is a text"),
        ([2**53 + 1, 0.5, "x"], [str(2**53 + 1), "0.5", "x"], "'x' in row 3 is a text"),
    ],
)
def test_a_column_of_numbers_and_texts_becomes_texts_with_a_report(
    pipeline: type[SqlPipeline], tmp_path: Path, values: list[Any], texts: list[Any], row: str
) -> None:
    table, metrics = _refresh(pipeline, tmp_path, values)
    assert table["x"].to_list() == texts
    assert row in metrics["kept_as_text"]["x"]
    assert "all values are texts now" in metrics["kept_as_text"]["x"]


@BOTH
def test_whole_numbers_among_fractions_are_the_same_floats(
    pipeline: type[SqlPipeline], tmp_path: Path
) -> None:
    for values in ([1, 2.5], [2.5, None, 2**60], [1, None]):
        table, metrics = _refresh(pipeline, tmp_path, values)
        assert table["x"].to_list() == values
        assert metrics == {"rows_fetched": len(values)}


@pytest.mark.parametrize("large", [2**53 + 1, -(2**53) - 1, 2**63 - 1])
def test_a_number_that_a_float_would_alter_is_refused_unless_its_digits_are_kept(
    tmp_path: Path, large: int
) -> None:
    with pytest.raises(UnparsableData, match=r"column 'x': .*the value in row 2 would be another number"):
        _refresh(TypedSqlPipeline, tmp_path, [0.5, large])
    with pytest.raises(UnparsableData, match="another number"):
        _refresh(TypedSqlPipeline, tmp_path, [0.5, large], types={"x": "Float64"})
    table, metrics = _refresh(TypedSqlPipeline, tmp_path, [0.5, large], types={"x": "String"})
    assert table["x"].to_list() == ["0.5", str(large)]
    assert "kept_as_text" not in metrics
    _, metrics = _refresh(SqlPipeline, tmp_path, [0.5, large])
    assert f"{large} in row 2" in metrics["altered_by_numbers"]["x"]


@BOTH
def test_a_configured_type_or_a_column_of_dates_is_not_reported(
    pipeline: type[SqlPipeline], tmp_path: Path
) -> None:
    if pipeline is TypedSqlPipeline:
        table, metrics = _refresh(pipeline, tmp_path, [1, "2.5"], types={"x": "Float64"})
        assert table["x"].to_list() == [1.0, 2.5]
        assert "kept_as_text" not in metrics
    table, metrics = _refresh(
        pipeline, tmp_path, ["20240131", 20240201], dates=["date", "x"], date_format={"x": "%Y%m%d"}
    )
    assert table["x"].to_list() == [dt.date(2024, 1, 31), dt.date(2024, 2, 1)]
    assert "kept_as_text" not in metrics


@BOTH
def test_bytes_among_others_are_refused_where_the_column_is_wanted(
    pipeline: type[SqlPipeline], tmp_path: Path
) -> None:
    with pytest.raises(SchemaMismatch, match=r"column 'x' mixes types: row 1 has bytes and row 2 has a text"):
        _refresh(pipeline, tmp_path, [b"ab", "c"])
    chosen = {"date": "date", "entity": "entity"}
    table, _ = _refresh(pipeline, tmp_path, [b"ab", "c"], columns=chosen)
    assert table.columns == ["date", "entity"]


@BOTH
def test_a_column_name_that_differs_from_the_source_is_reported(
    pipeline: type[SqlPipeline], tmp_path: Path
) -> None:
    query = 'select date, entity, x, x, 1 as "" from px'
    table, metrics = _refresh(pipeline, tmp_path, [7], query=query)
    assert table.columns == ["date", "entity", "x", "x:1", "column_4"]
    assert metrics["columns_named"] == {
        "x:1": "another column of the query has the name 'x'",
        "column_4": "column 5 has no name at the source",
    }


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ([Decimal(1), Decimal("NaN")], UnparsableData, "the value in row 2 is not a decimal number"),
        ([Decimal("-Infinity")], UnparsableData, "the value in row 1 is not a decimal number"),
        ([Decimal("1e40")], OutOfRange, "the value in row 1 it needs more than 38 digits"),
        ([Decimal("1e30"), Decimal("1e-10")], OutOfRange, "in row 2 it needs more than 38 digits"),
        ([10**37, Decimal("0.01")], OutOfRange, "in row 2 it needs more than 38 digits"),
        ([1, 2**127], OutOfRange, "in row 2 has more than 64 bits"),
        ([-(2**200)], OutOfRange, "in row 1 has more than 64 bits"),
        ([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), 1], SchemaMismatch, "row 2 has a whole number"),
        ([dt.date(2024, 1, 1), "x"], SchemaMismatch, "row 2 has a text"),
        ([True, 1.5], SchemaMismatch, "row 1 has a Boolean"),
    ],
)
def test_values_that_form_no_column_are_refused_by_column_and_row(
    values: list[Any], error: type[PluginError], text: str
) -> None:
    with pytest.raises(error, match=r"px: column 'x'") as refusal:
        make_table([_X], [(value,) for value in values], (), "px")
    assert text in str(refusal.value)
    assert "polars" not in str(refusal.value)


def test_decimals_keep_all_their_digits() -> None:
    values = [Decimal("1.10"), 7, None, Decimal("12345678901234567890.123456789")]
    table = make_table([_X], [(value,) for value in values], (), "px").table
    assert table["x"].to_list() == values
    assert table.schema["x"].is_decimal()
