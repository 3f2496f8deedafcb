"""What a refresh of a range does when the columns of its source are not what they were: real runs, over every store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.refreshed_datasets import (
    DAYS,
    STORES,
    CsvSource,
    Dataset,
    OldCsvSource,
    ParquetSource,
    Source,
    SqlSource,
    told,
)
from support.worker import World

SOURCES = [Source, ParquetSource, CsvSource, OldCsvSource, SqlSource]
DAY: dict[str, Any] = {"start": str(DAYS[2]), "end": str(DAYS[2])}


@pytest.fixture(params=SOURCES, ids=lambda source: source.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    made: Source = request.param(tmp_path)
    return made


@pytest.fixture(params=sorted(STORES))
def dataset(request: pytest.FixtureRequest, source: Source, tmp_path: Path) -> Dataset:
    world = World()  # nothing of it is served
    instance = world.dataset(definition=source.definition, store=request.param, **source.config())
    return Dataset(world, tmp_path, request.param, instance)


async def test_whole_numbers_widen_where_the_range_has_fractions(dataset: Dataset, source: Source) -> None:
    source.write(close=[1, 2, 3])
    await dataset.completes()
    source.write(close=[10.0, 20.0, 2.5])
    run = await dataset.completes(**DAY)
    assert dataset.table()["close"].to_list() == [1.0, 2.0, 2.5]
    assert dataset.types() == {"close": pl.Float64}
    assert list(run.pipeline.columns_retyped) == ["close: Int64 to Float64"]
    assert told(run)["columns_retyped"] == ["close: Int64 to Float64"]
    assert (run.pipeline.rows_inserted, run.pipeline.rows_updated, run.pipeline.rows_deleted) == (0, 1, 0)
    source.write(close=[10, 20, 7])
    run = await dataset.completes(**DAY)
    assert dataset.table()["close"].to_list() == [1.0, 2.0, 7.0]
    assert not run.pipeline.columns_retyped


async def test_a_whole_number_outside_the_range_never_becomes_another(
    dataset: Dataset, source: Source
) -> None:
    source.write(close=[2**53 + 1, 2, 3])
    await dataset.completes()
    source.write(close=[1.0, 2.0, 2.5])
    await dataset.fails("SchemaMismatch", "column 'close'", "outside", "without a range", **DAY)


async def test_a_new_column_is_absent_outside_the_range(dataset: Dataset, source: Source) -> None:
    source.write(close=[1, 2, 3])
    await dataset.completes()
    source.write(close=[1.0, 2.0, 2.5], volume=[7, 8, 9])
    run = await dataset.completes(**DAY)
    assert dataset.table().drop("date", "entity").rows() == [(1.0, None), (2.0, None), (2.5, 9)]
    assert told(run)["columns_new_in_range"] == ["volume"]


async def test_a_column_without_values_in_the_range_keeps_its_type(dataset: Dataset, source: Source) -> None:
    source.write(close=[1, 2, 3], note=["a", "b", "c"])
    await dataset.completes()
    source.write(close=[None] * 3, note=[None] * 3)
    await dataset.completes(**DAY)
    assert dataset.types() == {"close": pl.Int64, "note": pl.String}
    assert dataset.table()["close"].to_list() == [1, 2, None]
