"""What a refresh does when its source's columns are not what they were: real runs, over every store."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from optaic.definition.v1.definition_pb2 import DefinitionVersion
from support.refreshed_datasets import (
    STORES,
    CsvSource,
    CursorSource,
    Dataset,
    OldCsvSource,
    OldCursorSource,
    OldParquetSource,
    ParquetSource,
    Source,
    SqlSource,
    told,
)
from support.worker import World

SOURCES = [
    Source,
    ParquetSource,
    OldParquetSource,
    CsvSource,
    OldCsvSource,
    SqlSource,
    CursorSource,
    OldCursorSource,
]


@pytest.fixture
def world() -> World:
    return World()  # nothing of it is served


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=SOURCES, ids=lambda source: source.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    made: Source = request.param(tmp_path)
    return made


@pytest.fixture
def dataset(world: World, source: Source, store: str, tmp_path: Path) -> Dataset:
    instance = world.dataset(definition=source.definition, store=store, **source.config())
    return Dataset(world, tmp_path, store, instance)


async def test_a_new_column_is_accepted_and_reported(dataset: Dataset, source: Source) -> None:
    source.write(close=[1.5, 2.5])
    await dataset.completes()
    source.write(close=[1.5, 2.5, 3.5], volume=[None, None, 500])
    run = await dataset.completes()
    assert dataset.table()["volume"].to_list() == [None, None, 500]
    assert list(run.pipeline.columns_added) == ["volume"]
    assert told(run)["columns_added"] == ["volume"]
    assert (run.pipeline.rows_inserted, run.pipeline.rows_updated) == (1, 0)


async def test_a_column_that_is_gone_is_refused_until_a_full_refresh(
    dataset: Dataset, source: Source
) -> None:
    source.write(close=[1.5, 2.5], volume=[5, 6])
    await dataset.completes()
    source.write(close=[1.5, 2.5])
    await dataset.fails("SchemaMismatch", "column 'volume' (Int64) no longer exists", "mode FULL")
    run = await dataset.completes(full=True)
    assert dataset.types() == {"close": pl.Float64}
    assert list(run.pipeline.columns_removed) == ["volume"]


async def test_a_column_of_another_type_is_refused(dataset: Dataset, source: Source) -> None:
    source.write(close=[1.5, 2.5])
    await dataset.completes()
    source.write(close=["soon", "later"])
    if source.definition == "file" and isinstance(source, CsvSource):
        await dataset.fails("UnparsableData", "'close' is Float64, and the value in row 2", "repin_types")
        await dataset.fails("UnparsableData", "'close' is Float64", full=True)
        await dataset.completes(full=True, repin_types=True)
    else:
        await dataset.fails("SchemaMismatch", "column 'close' was Float64 and is String now", "mode FULL")
        await dataset.completes(full=True)
    assert dataset.last is not None
    assert list(dataset.last.pipeline.columns_retyped) == ["close: Float64 to String"]
    assert dataset.table()["close"].to_list() == ["soon", "later"]


async def test_whole_numbers_widen_and_stay_so(dataset: Dataset, source: Source) -> None:
    source.write(close=[1, 2])
    await dataset.completes()
    assert dataset.types() == {"close": pl.Int64}
    source.write(close=[1.0, 2.5])
    run = await dataset.completes()
    assert list(run.pipeline.columns_retyped) == ["close: Int64 to Float64"]
    assert dataset.table()["close"].to_list() == [1.0, 2.5]
    source.write(close=[1, 3])
    run = await dataset.completes()
    assert dataset.types() == {"close": pl.Float64}
    assert not run.pipeline.columns_retyped
    assert run.pipeline.rows_updated == 1


async def test_a_column_without_values_is_kept_and_gets_its_type_when_they_come(
    dataset: Dataset, source: Source
) -> None:
    source.write(close=[1.5, 2.5], note=[None, None])
    await dataset.completes()
    # The type of no value is a number's, except in the present CSV, where it always was a text's.
    unseen = pl.String if isinstance(source, OldCsvSource) else pl.Float64
    assert dataset.types() == {"close": pl.Float64, "note": unseen}
    source.write(close=[1.5, 2.5, 3.5], note=[None, None, "x"])
    run = await dataset.completes()
    assert dataset.table()["note"].to_list() == [None, None, "x"]
    assert (run.pipeline.rows_inserted, run.pipeline.rows_updated) == (1, 0)
    source.write(close=[1.5, 2.5, 3.5], note=[None, None, None])
    await dataset.completes()
    assert dataset.types() == {"close": pl.Float64, "note": pl.String}


async def test_columns_may_change_with_the_configuration(dataset: Dataset, source: Source) -> None:
    source.write(close=[1.5, 2.5], volume=[5, 6])
    await dataset.completes()
    dataset.configure(columns={"date": "date", "entity": "entity", "volume": "close"})
    if source.definition == "shown":
        source.write(volume=[1.5, 2.5])
    if isinstance(source, OldCursorSource):  # it says to refresh in full
        await dataset.completes(full=True)
    else:
        await dataset.completes()
    assert dataset.types() == {"volume": pl.Float64}
    assert dataset.table()["volume"].to_list() == [1.5, 2.5]


async def test_the_same_rows_make_no_new_version(dataset: Dataset, source: Source) -> None:
    source.write(close=[1.5, 2.5], note=[None, None])
    first = await dataset.completes()
    again = await dataset.completes()
    assert again.output_version == first.output_version
    assert (again.pipeline.rows_inserted, again.pipeline.rows_updated) == (0, 0)


async def test_a_schema_may_forbid_new_columns(world: World, store: str, tmp_path: Path) -> None:
    source = CursorSource(tmp_path)
    content = world.definitions.content.setdefault("sql", DefinitionVersion())
    content.output_schema.update(
        {"properties": {"date": {}, "entity": {}, "close": {}}, "additionalProperties": False}
    )
    dataset = Dataset(world, tmp_path, store, world.dataset(definition="sql", store=store, **source.config()))
    source.write(close=[1.5])
    await dataset.completes()
    source.write(close=[1.5, 2.5], volume=[5, 6])
    await dataset.fails("SchemaMismatch", "column 4 is not in the schema")


@pytest.fixture
def csv(tmp_path: Path) -> CsvSource:
    return CsvSource(tmp_path)


@pytest.fixture
def prices(world: World, csv: CsvSource, store: str, tmp_path: Path) -> Dataset:
    return Dataset(world, tmp_path, store, world.dataset(definition="file", store=store, **csv.config()))


async def test_types_are_pinned_at_the_first_refresh_and_anew_with_other_options(
    prices: Dataset, csv: CsvSource
) -> None:
    csv.write(close=["1.5", "2.5"], code=["007", "8"])
    run = await prices.completes()
    assert told(run)["types_guessed"] == {"close": "Float64", "code": "String"}
    assert "'007'" in told(run)["kept_as_text"]["code"]
    csv.write(close=["1.5", "NA"], code=["7", "8"])
    await prices.fails("UnparsableData", "column 'close' is Float64", "the value in row 3", "null_values")
    await prices.fails("UnparsableData", "the value in row 3", full=True)
    prices.configure(null_values=["NA"])
    run = await prices.completes()
    assert prices.types() == {"close": pl.Float64, "code": pl.Int64}
    assert told(run)["columns_retyped"] == ["code: String to Int64"]
    csv.write(close=["1.5", "NA"], code=["007", "8"])
    await prices.fails("UnparsableData", "column 'code' is Int64", "the value in row 2")
    await prices.completes(full=True, repin_types=True)
    assert prices.types() == {"close": pl.Float64, "code": pl.String}


async def test_a_text_stays_a_text_although_all_are_numbers_now(prices: Dataset, csv: CsvSource) -> None:
    csv.write(code=["007", "8"])
    await prices.completes()
    csv.write(code=["7", "8"])
    run = await prices.completes()
    assert prices.types() == {"code": pl.String}
    assert told(run)["types_held"] == {"code": "String"}


async def test_another_file_or_range_changes_no_type(prices: Dataset, csv: CsvSource) -> None:
    csv.write(close=["1.5", "2.5"])
    await prices.completes()
    csv.path = csv.path.with_name("another")
    csv.write(close=["1.5", "soon"])
    prices.configure(url=str(csv.path), start="2024-01-01")
    await prices.fails("UnparsableData", "the value in row 3")


async def test_options_that_find_the_same_content_pin_it_too(prices: Dataset, csv: CsvSource) -> None:
    csv.write(close=["1.5", "2.5"])
    first = await prices.completes()
    prices.configure(null_values=["-"])
    again = await prices.completes()
    assert again.output_version == first.output_version
    csv.write(close=["1.5", "soon"])
    await prices.fails("UnparsableData", "the value in row 3")


async def test_a_given_type_is_not_widened(prices: Dataset, csv: CsvSource) -> None:
    prices.configure(types={"close": "Int64"})
    csv.write(close=["1", "2"])
    await prices.completes()
    csv.write(close=["1", "2.5"])
    await prices.fails("UnparsableData", "column 'close' is Int64, and the value in row 3")


@pytest.mark.parametrize("definition", ["sql", "sql 1.1.0"])
async def test_new_and_old_rows_go_together(
    world: World, store: str, tmp_path: Path, definition: str
) -> None:
    """Incremental rows are merged: whole numbers among others, none at all, or a column that is new."""
    source = CursorSource(tmp_path)
    dataset = Dataset(
        world, tmp_path, store, world.dataset(definition=definition, store=store, **source.config())
    )
    source.write(close=[1, 2], note=[None, None])
    await dataset.completes()
    source.write(close=[1, 2, 2.5], note=[None, None, None])
    await dataset.completes()
    source.write(close=[1, 2, 2.5, 4], note=[None, None, None, "x"], volume=[9, 9, None, 9])
    run = await dataset.completes()
    assert dataset.table().drop("date", "entity").rows() == [
        (1.0, None, None),  # what was read before is not read again
        (2.0, None, None),
        (2.5, None, None),
        (4.0, "x", 9),
    ]
    assert (run.pipeline.rows_inserted, run.pipeline.rows_updated) == (1, 0)
    source.write(close=[2**53 + 1, 2, 2.5, 4, 2**53 + 1], note=[None] * 5, volume=[None] * 5)
    await dataset.fails("SchemaMismatch", "column 'close'", "mode FULL")


async def test_sql_columns_may_be_given_types(world: World, store: str, tmp_path: Path) -> None:
    source = SqlSource(tmp_path)
    dataset = Dataset(world, tmp_path, store, world.dataset(definition="sql", store=store, **source.config()))
    dataset.configure(types={"code": "String", "close": "Float64", "note": "String"})
    source.write(close=["1.5", "2"], code=[7, 8], note=[None, None])
    run = await dataset.completes()
    assert dataset.table().drop("date", "entity").rows() == [(1.5, "7", None), (2.0, "8", None)]
    assert told(run)["types_given"] == {"code": "String", "close": "Float64", "note": "String"}
    source.write(close=["1.5", "n/a"], code=[7, 8], note=[None, None])
    await dataset.fails(
        "UnparsableData", "px: column 'close' is Float64, and the value in row 2 is not a number"
    )
    dataset.configure(cursor="date", types={"date": "Date"})
    await dataset.fails("InvalidConfig", "types.date: must not name the cursor column")


async def test_derived_columns_may_change_with_their_inputs(world: World, store: str, tmp_path: Path) -> None:
    (tmp_path / "upstream").mkdir()
    upstream_source, source = Source(tmp_path / "upstream"), Source(tmp_path)
    upstream = Dataset(
        world, tmp_path, store, world.dataset(definition="shown", store=store, **upstream_source.config())
    )
    upstream_source.write(close=[1.5])
    await upstream.completes()
    derived = Dataset(
        world, tmp_path, store, world.dataset(definition="shown", store=store, **source.config())
    )
    derived.inputs = {"input": upstream.last}
    source.write(close=[1.5, 2.5], volume=[1, 2])
    await derived.completes()
    source.write(close=["a", "b"], other=[1, 2])
    run = await derived.completes()
    assert derived.types() == {"close": pl.String, "other": pl.Int64}
    changes = (run.pipeline.columns_added, run.pipeline.columns_removed, run.pipeline.columns_retyped)
    assert [list(found) for found in changes] == [["other"], ["volume"], ["close: Float64 to String"]]


async def test_numbers_that_an_earlier_release_made_of_texts_stay_until_a_full_refresh(
    world: World, store: str, tmp_path: Path
) -> None:
    source = OldCsvSource(tmp_path)
    dataset = Dataset(
        world, tmp_path, store, world.dataset(definition="file 1.1.0", store=store, **source.config())
    )
    source.write(close=["1.5", "7.0"])
    first = await dataset.completes()
    source.write(close=["1.5", "007"])
    again = await dataset.completes()
    assert again.output_version == first.output_version
    assert "'007'" in told(again)["altered_by_numbers"]["close"]
    await dataset.completes(full=True)
    assert dataset.table()["close"].to_list() == ["1.5", "007"]
