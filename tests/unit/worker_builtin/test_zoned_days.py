"""Days of instants, in every place that takes one: sources, stores, accessors, guardrails, panels, expressions."""

import datetime as dt
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from pyarrow import parquet as pq

from optaic.plugins import (
    Accessor,
    DateRange,
    GuardrailViolated,
    InputTable,
    PipelineContext,
    SchemaMismatch,
    Store,
    StoredVersion,
    UnparsableData,
)
from worker.backtest.panel import build_panel
from worker.backtest.settings import BacktestSettings
from worker.builtin.delta_store import DeltaStore
from worker.builtin.derivation import ExpressionPipeline
from worker.builtin.file_source import FilePipeline
from worker.builtin.parquet_store import ParquetStore
from worker.builtin.point_in_time_accessor import PointInTimeAccessor
from worker.builtin.simple_accessor import SimpleAccessor
from worker.builtin.typed_file_source import TypedFilePipeline
from worker.guardrails import Guardrail, check_guardrails

DAYS = [dt.date(2024, 3, 28), dt.date(2024, 4, 2), dt.date(2024, 7, 1), dt.date(2024, 7, 2)]
CLOCKS = [("Europe/London", 0), ("Asia/Tokyo", 0), ("America/New_York", 20), ("Asia/Kathmandu", 0)]
STORES: dict[str, Callable[..., Store]] = {"delta": DeltaStore, "parquet": ParquetStore}


def at(zone: str, hour: int) -> list[dt.datetime]:
    return [dt.datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(zone)) for day in DAYS]


def bars(zone: str, hour: int) -> pl.DataFrame:
    table = {"date": at(zone, hour), "entity": ["a"] * len(DAYS), "close": [1.0, 2.0, 3.0, 4.0]}
    return pl.DataFrame(table, schema_overrides={"date": pl.Datetime("us", zone)})


def read_file(path: Path, timezone: str = "UTC", **config: object) -> pl.DataFrame:
    return FilePipeline().run(PipelineContext(config={"url": str(path), **config}, timezone=timezone))


class InMemory(Store):
    def __init__(self, table: pl.DataFrame) -> None:
        super().__init__()
        self._table = table

    def write(self, table: pl.DataFrame, base_version: str | None, uri: str) -> StoredVersion:
        raise NotImplementedError

    def read(self, uri: str, physical_version: str) -> pl.DataFrame:
        del uri, physical_version
        return self._table


@pytest.mark.parametrize(("zone", "hour"), CLOCKS)
def test_a_parquet_file_keeps_the_days_of_its_zone(tmp_path: Path, zone: str, hour: int) -> None:
    bars(zone, hour).write_parquet(tmp_path / "bars.parquet")
    assert read_file(tmp_path / "bars.parquet")["date"].to_list() == DAYS
    until = read_file(tmp_path / "bars.parquet", as_of="2024-07-01")
    assert until["date"].to_list() == DAYS[:3]


@pytest.mark.parametrize("offset", ["+05:45", "-03:30", "+0530", "-08:00", "+14:00"])
def test_a_parquet_file_keeps_the_days_of_an_offset(tmp_path: Path, offset: str) -> None:
    sign = -1 if offset[0] == "-" else 1
    clock = dt.timezone(sign * dt.timedelta(hours=int(offset[1:3]), minutes=int(offset[-2:])))
    times = [dt.datetime(day.year, day.month, day.day, tzinfo=clock) for day in DAYS]
    table = pa.table({"date": pa.array(times, pa.timestamp("us", offset)), "entity": ["a"] * len(DAYS)})
    pq.write_table(table, tmp_path / "bars.parquet")
    assert read_file(tmp_path / "bars.parquet")["date"].to_list() == DAYS


def test_an_offset_that_would_be_lost_is_refused_unless_the_column_is_unused(tmp_path: Path) -> None:
    known = pa.array([0], pa.timestamp("us", "+05:45"))
    table = pa.table({"date": [dt.date(2024, 1, 2)], "entity": ["a"], "known": known})
    pq.write_table(table, tmp_path / "bars.parquet")
    with pytest.raises(SchemaMismatch, match=r"'known' has a zone .*Asia/Kathmandu"):
        read_file(tmp_path / "bars.parquet")
    days = read_file(tmp_path / "bars.parquet", dates=["date", "known"])
    assert days["known"].to_list() == [dt.date(1970, 1, 1)]
    assert read_file(tmp_path / "bars.parquet", columns={"date": "date", "entity": "entity"}).width == 2


def test_instants_of_a_file_without_a_zone_use_the_zone_of_the_dataset(tmp_path: Path) -> None:
    """Spark and DuckDB write instants without saying whose."""
    stream = io.BytesIO()
    pq.write_table(bars("Asia/Tokyo", 0).to_arrow(), stream, store_schema=False)
    (tmp_path / "bars.parquet").write_bytes(stream.getvalue())
    assert read_file(tmp_path / "bars.parquet", "Asia/Tokyo")["date"].to_list() == DAYS
    in_utc = [day - dt.timedelta(days=1) for day in DAYS]
    assert read_file(tmp_path / "bars.parquet")["date"].to_list() == in_utc


def test_a_column_with_a_zone_keeps_it_regardless_of_the_dataset(tmp_path: Path) -> None:
    bars("UTC", 0).write_parquet(tmp_path / "bars.parquet")
    assert read_file(tmp_path / "bars.parquet", "America/New_York")["date"].to_list() == DAYS
    naive = bars("UTC", 0).with_columns(pl.col("date").dt.replace_time_zone(None))
    naive.write_parquet(tmp_path / "naive.parquet")
    assert read_file(tmp_path / "naive.parquet", "America/New_York")["date"].to_list() == DAYS


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
@pytest.mark.parametrize(("zone", "hour"), CLOCKS)
def test_a_store_returns_the_zone_and_derives_the_last_day_from_it(
    tmp_path: Path, make: Callable[..., Store], zone: str, hour: int
) -> None:
    uri, store, table = str(tmp_path / "data"), make(), bars(zone, hour)
    stored = store.write(table, None, uri)
    assert stored.last_data_date == DAYS[-1]
    assert make().read(uri, stored.physical_version).equals(table)
    assert make().read(uri, stored.physical_version).schema == table.schema
    again = store.write(table, stored.physical_version, uri)
    assert (again.physical_version, again.rows_updated) == (stored.physical_version, 0)
    in_utc = store.write(
        table.with_columns(pl.col("date").dt.convert_time_zone("UTC")), None, str(tmp_path / "utc")
    )
    assert in_utc.digest == stored.digest
    grown = pl.concat([table, table.with_columns(entity=pl.lit("b"))])
    extended = store.write(grown, stored.physical_version, uri)
    assert (extended.rows_inserted, extended.rows_updated) == (len(DAYS), 0)
    assert make().read(uri, extended.physical_version).schema == table.schema


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_a_column_may_move_to_another_zone(tmp_path: Path, make: Callable[..., Store]) -> None:
    uri, store, first = str(tmp_path / "data"), make(), bars("Europe/London", 0)
    base = store.write(first, None, uri).physical_version
    moved = pl.concat([first, first.with_columns(entity=pl.lit("b"))]).with_columns(
        pl.col("date").dt.convert_time_zone("Asia/Tokyo")
    )
    stored = store.write(moved, base, uri)
    assert (stored.rows_inserted, stored.rows_updated) == (len(DAYS), 0)
    assert store.read(uri, stored.physical_version).schema == moved.schema
    assert store.read(uri, base).schema == first.schema


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_the_same_instants_in_another_zone_are_stored_again_as_equal_content(
    tmp_path: Path, make: Callable[..., Store]
) -> None:
    """An older version keeps its days, the newer one has those of the other zone."""
    uri, store, first = str(tmp_path / "data"), make(), bars("UTC", 0)
    base = store.write(first, None, uri)
    moved = first.with_columns(pl.col("date").dt.convert_time_zone("America/New_York"))
    stored = store.write(moved, base.physical_version, uri)
    assert (stored.digest, stored.rows_inserted, stored.rows_updated) == (base.digest, 0, 0)
    assert stored.physical_version != base.physical_version
    assert (base.zones, stored.zones) == ({"date": "UTC"}, {"date": "America/New_York"})
    assert store.read(uri, base.physical_version).schema == first.schema
    assert store.read(uri, stored.physical_version).schema == moved.schema
    again = store.write(moved, stored.physical_version, uri)
    assert again.physical_version == stored.physical_version


def test_a_delta_version_of_an_older_release_has_the_zone_of_the_dataset(tmp_path: Path) -> None:
    uri = str(tmp_path / "data")
    kept = bars("Asia/Tokyo", 0).with_columns(pl.col("date").dt.convert_time_zone("UTC"))
    kept.write_delta(uri)
    store = DeltaStore()
    assert store.read(uri, "0").equals(kept)
    assert store.write(kept, "0", uri).physical_version == "0"  # nothing moves by itself
    store.timezone = "Asia/Tokyo"
    assert SimpleAccessor().read(store, uri, "0", start=DAYS[2], end=DAYS[2]).height == 1


def test_a_parquet_version_of_an_older_release_has_the_zone_of_the_dataset(tmp_path: Path) -> None:
    kept = bars("Asia/Tokyo", 0).with_columns(pl.col("date").dt.convert_time_zone("UTC"))
    stored = ParquetStore().write(kept, None, str(tmp_path))
    version = "0" * 64
    # As it was written then: called by its digest alone, without a word of zones.
    folder = (tmp_path / stored.physical_version).rename(tmp_path / version)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["zones"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    store = ParquetStore()
    assert store.read(str(tmp_path), version).equals(kept)
    assert store.write(kept, version, str(tmp_path)).physical_version == version
    store.timezone = "Asia/Tokyo"
    found = SimpleAccessor().read(store, str(tmp_path), version, start=DAYS[2], end=DAYS[2])
    assert found["close"].to_list() == [3.0]


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
@pytest.mark.parametrize(("zone", "hour"), [*CLOCKS, ("America/New_York", 0), ("Pacific/Kiritimati", 23)])
def test_as_of_uses_days_of_the_columns_zone(
    tmp_path: Path, make: Callable[..., Store], zone: str, hour: int
) -> None:
    keys = ["date", "entity", "knowledge_date"]
    table = bars(zone, hour).rename({"date": "knowledge_date"}).with_columns(date=pl.lit(dt.date(2024, 1, 1)))
    stored = make({"keys": keys}).write(table, None, str(tmp_path / "data"))
    for number, day in enumerate(DAYS):
        for as_of, expected in ((day, number + 1), (day - dt.timedelta(days=1), number)):
            accessor = PointInTimeAccessor({"as_of": as_of.isoformat()})
            found = accessor.read(make({"keys": keys}), stored.uri, stored.physical_version)
            # The close counts what is known: the number of the newest row that is.
            newest = found["close"].max() if found.height else 0
            assert newest == expected, as_of


@pytest.mark.parametrize("accessor", [SimpleAccessor(), PointInTimeAccessor({"knowledge_column": "date"})])
@pytest.mark.parametrize(("zone", "hour"), CLOCKS)
def test_a_selection_of_dates_uses_days_of_the_columns_zone(accessor: Accessor, zone: str, hour: int) -> None:
    found = accessor.read(InMemory(bars(zone, hour)), "", "", start=DAYS[1], end=DAYS[2])
    assert found["close"].to_list() == [2.0, 3.0]


@pytest.mark.parametrize(("zone", "hour"), CLOCKS)
def test_guardrails_use_days_of_the_columns_zone(zone: str, hour: int) -> None:
    known = bars(zone, hour).with_columns(knowledge_date=pl.col("date"), date=pl.Series(DAYS))
    timely = Guardrail("known", "point_in_time", {}, blocks=True)
    assert check_guardrails(known, [timely], as_of=DAYS[-1]) == {}
    with pytest.raises(GuardrailViolated, match="1 rows that became known only after 2024-07-01"):
        check_guardrails(known, [timely], as_of=DAYS[-2])
    fresh = Guardrail("fresh", "freshness", {"max_age_days": 0}, blocks=True)
    assert check_guardrails(bars(zone, hour), [fresh], as_of=DAYS[-1]) == {}
    with pytest.raises(GuardrailViolated, match="1 days before"):
        check_guardrails(bars(zone, hour), [fresh], as_of=DAYS[-1] + dt.timedelta(days=1))


@pytest.mark.parametrize(("zone", "hour"), CLOCKS)
def test_a_backtest_has_sessions_on_days_of_the_columns_zone(zone: str, hour: int) -> None:
    signal = bars(zone, hour).rename({"close": "value"})
    settings = BacktestSettings.from_spec({"date_range": {"start": "2024-04-02", "end": "2024-07-01"}})
    panel = build_panel(bars(zone, hour), [signal], settings)
    assert panel.dates == DAYS[1:3]
    assert panel.signal.ravel().tolist() == [2.0, 3.0]


@pytest.mark.parametrize(("zone", "hour"), CLOCKS)
def test_an_expression_is_cut_to_days_and_joins_instants_of_several_zones(zone: str, hour: int) -> None:
    other = (
        bars(zone, hour).with_columns(pl.col("date").dt.convert_time_zone("UTC")).rename({"close": "open"})
    )
    tables = (
        InputTable("input", "here", lambda: bars(zone, hour)),
        InputTable("input", "there", lambda: other),
    )
    context = PipelineContext(
        config={"expression": "close - open"},
        inputs={"input": tables},
        date_range=DateRange(DAYS[1], DAYS[2]),
    )
    found: Any = ExpressionPipeline().run(context)
    assert found["value"].to_list() == [0.0, 0.0]
    assert found["date"].to_list() == at(zone, hour)[1:3]


@pytest.mark.parametrize(
    ("zone", "hour"), [("Asia/Tokyo", 0), ("America/New_York", 20), ("Europe/London", 0)]
)
def test_times_with_offsets_in_a_csv_file_have_the_days_of_the_dataset(
    tmp_path: Path, zone: str, hour: int
) -> None:
    lines = [f"{day},a,{moment.isoformat()}" for day, moment in zip(DAYS, at(zone, hour), strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["date,entity,knowledge_date", *lines]) + "\n")
    context = PipelineContext(
        config={"url": str(tmp_path / "a.csv"), "types": {"knowledge_date": "Datetime"}}, timezone=zone
    )
    table = TypedFilePipeline().run(context)
    assert table["knowledge_date"].to_list() == at(zone, hour)
    accessor = PointInTimeAccessor({"as_of": "2024-07-01"})
    assert accessor.read(InMemory(table), "", "")["date"].to_list() == DAYS[:3]


def test_a_time_that_is_to_be_a_date_is_the_midnight_of_its_zone(tmp_path: Path) -> None:
    table = bars("America/New_York", 0).with_columns(seen="date", date=pl.Series(DAYS))
    table.write_parquet(tmp_path / "a.parquet")
    config = {"url": str(tmp_path / "a.parquet"), "types": {"seen": "Date"}}
    assert TypedFilePipeline().run(PipelineContext(config=config))["seen"].to_list() == DAYS
    # In UTC the next midnight: a date of UTC would say tomorrow.
    table.with_columns(pl.Series("seen", at("America/New_York", 20))).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UnparsableData, match="seen"):
        TypedFilePipeline().run(PipelineContext(config=config))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize(
    ("zone", "first"), [("America/Sao_Paulo", "2018-11-04T01:00"), ("Africa/Cairo", "2024-04-26T01:00")]
)
def test_a_day_without_a_midnight_begins_later(tmp_path: Path, zone: str, first: str, unit: Any) -> None:
    start = dt.datetime.fromisoformat(first).replace(tzinfo=ZoneInfo(zone))
    config = {"url": str(tmp_path / "a.parquet"), "types": {"seen": "Date"}}

    def read(moment: dt.datetime) -> pl.DataFrame:
        seen = pl.Series("seen", [moment], pl.Datetime(unit, zone))
        pl.DataFrame({"date": [start], "entity": ["a"], "seen": seen}).write_parquet(tmp_path / "a.parquet")
        return TypedFilePipeline().run(PipelineContext(config=config))

    assert read(start)["seen"].to_list() == [start.date()]
    for later in (dt.timedelta(milliseconds=1), dt.timedelta(minutes=1), dt.timedelta(hours=1)):
        with pytest.raises(UnparsableData, match="seen"):
            read(start + later)


def test_dates_that_are_kept_as_categories_are_read_as_texts(tmp_path: Path) -> None:
    days = [str(day) for day in DAYS]
    for kind in (pl.Categorical(), pl.Enum(days)):
        table = pl.DataFrame({"date": pl.Series(days, dtype=kind), "entity": ["a"] * len(days)})
        table.write_parquet(tmp_path / "a.parquet")
        assert read_file(tmp_path / "a.parquet")["date"].to_list() == DAYS
