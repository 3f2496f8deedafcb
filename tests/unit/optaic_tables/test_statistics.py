"""Statistics of the columns of a table, in one pass."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.tables.statistics import summarize
from optaic.tables.table import Group, Selection, Table, TableFile
from support.tables import never, prices


def in_pieces(table: pl.DataFrame, rows: int) -> Table:
    """Return a table that is read in pieces of so many rows."""

    def group(start: int) -> Group:
        piece = table.slice(start, rows)
        return Group(
            piece.height, {}, lambda wanted: iter([piece.select(n for n in piece.columns if n in wanted)])
        )

    groups = [group(start) for start in range(0, table.height, rows)]
    return Table(table.clear(), [TableFile({}, lambda: contextlib.nullcontext(groups))], table.height)


def of(table: pl.DataFrame, rows: int = 3) -> dict[str, dict[str, Any]]:
    found = summarize(in_pieces(table, rows), Selection(), 10**9, never)
    assert found["isComplete"]
    assert found["rows"] == found["scannedRows"] == found["totalRows"] == table.height
    return {column["name"]: column for column in found["columns"]}


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.none() | st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=40),
    rows=st.integers(1, 11),
)
def test_statistics_in_pieces_are_those_of_the_whole(values: list[float | None], rows: int) -> None:
    table = pl.DataFrame({"v": values}, schema={"v": pl.Float64})
    found = of(table, rows)["v"]
    known = table["v"].drop_nulls()
    numbers = known.filter(known.is_not_nan())
    assert (found["count"], found["nulls"]) == (len(known), table["v"].null_count())
    assert found["nans"] == len(known) - len(numbers)
    assert (found["distinct"], found["distinctIsApproximate"]) == (known.n_unique(), False)
    assert found.get("min") == numbers.min()
    assert found.get("max") == numbers.max()
    mean, std = numbers.mean(), numbers.std()
    assert ("mean" in found, "std" in found) == (mean is not None, std is not None)
    if isinstance(mean, float):
        assert found["mean"] == pytest.approx(mean, abs=1e-9)
    if isinstance(std, float):
        assert found["std"] == pytest.approx(std, abs=1e-6)


def test_columns_of_every_type_have_what_their_type_has() -> None:
    table = prices(3).with_columns(
        flag=pl.col("close") > 1, nested=pl.concat_list("close"), nothing=pl.lit(None), big=pl.lit("x" * 500)
    )
    found = of(table)
    assert (found["date"]["min"], found["date"]["max"]) == ("2020-01-01", "2020-01-03")
    assert "mean" not in found["date"]
    assert (found["entity"]["min"], found["entity"]["max"], found["entity"]["distinct"]) == ("A", "B", 2)
    assert (found["flag"]["min"], found["flag"]["max"]) == (False, True)
    assert set(found["nested"]) == {"name", "type", "count", "nulls"}
    assert (found["nothing"]["count"], found["nothing"]["nulls"]) == (0, 6)
    assert found["big"]["min"].endswith("(500 characters)")


def test_many_distinct_values_are_estimated_and_it_is_said_so() -> None:
    table = pl.DataFrame({"v": range(200_000)})
    found = of(table, 10_000)["v"]
    assert found["distinctIsApproximate"]
    assert math.isclose(found["distinct"], 200_000, rel_tol=0.1)


def test_what_was_not_scanned_is_said() -> None:
    table = in_pieces(prices(50), 10)
    found = summarize(table, Selection(), 30, never)
    assert (found["isComplete"], found["scannedRows"], found["totalRows"]) == (False, 30, 100)
    found = summarize(table, Selection(), 10**9, lambda: True)
    assert (found["isComplete"], found["scannedRows"]) == (False, 10)
    assert summarize(table, Selection(), 100, never)["isComplete"]
