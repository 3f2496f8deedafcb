"""What user code is given."""

import datetime as dt

import polars as pl
import pytest

from optaic.plugins import DateRange, InputTable, MissingInput, Mode, PipelineContext


def test_an_input_is_read_once_and_only_when_used() -> None:
    reads: list[int] = []

    def read() -> pl.DataFrame:
        reads.append(1)
        return pl.DataFrame({"x": [1]})

    context = PipelineContext(inputs={"input": (InputTable("input", "prices", read),)})
    assert reads == []
    (table,) = context.tables("input")
    assert table.frame is table.frame
    assert reads == [1]


def test_a_missing_role_is_a_typed_error_that_names_the_given_ones() -> None:
    context = PipelineContext(inputs={"prices": (InputTable("prices", "p", pl.DataFrame),)})
    with pytest.raises(MissingInput, match=r"'input'.*prices"):
        context.tables("input")


def test_the_previous_version_is_offered_in_incremental_mode_only() -> None:
    previous = pl.DataFrame({"x": [1]})
    assert PipelineContext(previous_reader=lambda: previous).previous is previous
    assert PipelineContext(previous_reader=lambda: previous, mode=Mode.FULL).previous is None
    assert PipelineContext().previous is None


def test_a_date_range_includes_both_ends() -> None:
    first, last = dt.date(2020, 1, 2), dt.date(2020, 1, 3)
    assert first in DateRange(first, last)
    assert last in DateRange(first, last)
    assert dt.date(2020, 1, 4) not in DateRange(first, last)
    assert dt.date(1900, 1, 1) in DateRange(None, last)
    assert dt.date(2100, 1, 1) in DateRange(first, None)
