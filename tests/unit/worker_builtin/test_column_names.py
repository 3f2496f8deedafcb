"""Names of columns that a store or a message cannot carry."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import polars as pl
import pytest

from optaic.plugins import InvalidColumnName, PipelineContext
from worker.builtin.column_names import check_column_names
from worker.builtin.file_source import FilePipeline
from worker.builtin.typed_file_source import TypedFilePipeline


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no\0te", "NUL"),
        ("\0", "NUL"),
        ("", "no name"),
        ("half \ud83d", "surrogate"),
        ("x" * 1001, "1001 characters"),
    ],
)
def test_a_name_that_cannot_be_carried_is_refused_with_its_place(name: str, said: str) -> None:
    with pytest.raises(InvalidColumnName, match=re.escape(said)) as refusal:
        check_column_names(["date", "entity", name])
    assert "column 3" in str(refusal.value)
    str(refusal.value).encode()


def test_all_such_names_are_reported_together() -> None:
    with pytest.raises(InvalidColumnName, match=r"column 1 .*; column 3"):
        check_column_names(["", "fine", "a\0"])


@pytest.mark.parametrize("name", ["a b", " ", "é", "😀", "a\nb", "a.b", "%", "x" * 1000, "\u2028", "\uffff"])
def test_every_other_name_is_taken(name: str) -> None:
    check_column_names([name])


@pytest.mark.parametrize("pipeline", [FilePipeline, TypedFilePipeline])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("name", ["", "*", "^x$", "Date"])
def test_a_column_with_an_invalid_name_is_refused_only_if_it_is_selected(
    tmp_path: Path, pipeline: type[FilePipeline], ending: str, name: str
) -> None:
    table = pl.DataFrame({name: [0], "date": [dt.date(2024, 1, 2)], "entity": ["a"]})
    place = tmp_path / f"a.{ending}"
    if ending == "csv":
        table.write_csv(place)
    else:
        table.write_parquet(place)
    with pytest.raises(InvalidColumnName, match=r"columns? 1"):
        check_column_names(pipeline().run(PipelineContext(config={"url": str(place)})).columns)
    chosen = {"url": str(place), "columns": {"date": "date", "entity": "entity"}}
    assert pipeline().run(PipelineContext(config=chosen)).rows() == [(dt.date(2024, 1, 2), "a")]
