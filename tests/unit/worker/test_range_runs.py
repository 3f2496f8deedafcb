"""Refreshes of a range of dates and refreshes that delete: every kind of pipeline, in both stores."""

from __future__ import annotations

import datetime as dt
import itertools
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.plugins import (
    DateRange,
    DeletionRefused,
    Mode,
    NoDataInRange,
    Pipeline,
    PipelineContext,
    Store,
    VersionNotFound,
    load,
)
from optaic.run.v1 import run_pb2
from support.plugin_packages import install_code
from worker.computing import Output, compute
from worker.locations import FlowLocation
from worker.recipe import Component, Input, PipelineRecipe, StoredData

FIRST = dt.date(2024, 1, 1)
STORES = {
    "delta": "worker.builtin.delta_store:DeltaStore",
    "parquet": "worker.builtin.parquet_store:ParquetStore",
}
SIMPLE = Component("worker.builtin.simple_accessor:SimpleAccessor", {})
# From the third to the sixth of ten days.
MIDDLE = DateRange(FIRST + dt.timedelta(days=2), FIRST + dt.timedelta(days=5))


@pytest.fixture(autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    install_code(monkeypatch, tmp_path_factory.mktemp("site"), f"{__name__}:Everything")


def _rows(days: int = 10, shift: float = 0.0) -> pl.DataFrame:
    """`days` days of three entities."""
    dates = [FIRST + dt.timedelta(days=day) for day in range(days)]
    listed = [(date, entity, shift + date.day) for date in dates for entity in "abc"]
    return pl.DataFrame(
        listed, schema={"date": pl.Date, "entity": pl.String, "close": pl.Float64}, orient="row"
    )


def _changed() -> pl.DataFrame:
    """Everywhere other values, rows that are gone and rows that came: within the range and without."""
    kept = _rows(shift=100.0).filter(
        ~((pl.col("entity") == "b") & pl.col("date").dt.day().is_in([1, 4, 5, 9]))
    )
    new = [(FIRST + dt.timedelta(days=day), "new", 7.0) for day in (0, 3, 8, 12)]
    return pl.concat([kept, pl.DataFrame(new, schema=kept.schema, orient="row")])


class Everything(Pipeline):
    """A plugin that knows nothing of ranges: it returns its whole source, or what it had and what is new."""

    source: pl.DataFrame

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """All rows."""
        if context.previous is None:
            return self.source
        news = self.source.filter(pl.col("date") > context.previous["date"].max())
        return pl.concat([context.previous, news])


def _parquet(folder: Path, table: pl.DataFrame) -> Component:
    table.write_parquet(folder / "source.parquet")
    return Component("worker.builtin.file_source:FilePipeline", {"url": str(folder / "source.parquet")})


def _csv(folder: Path, table: pl.DataFrame) -> Component:
    table.write_csv(folder / "source.csv")
    return Component("worker.builtin.file_source:FilePipeline", {"url": str(folder / "source.csv")})


def _sql(folder: Path, table: pl.DataFrame, **options: Any) -> Component:
    place = folder / "source.sqlite"
    place.unlink(missing_ok=True)
    connection = sqlite3.connect(place)
    connection.execute("create table prices (date text, entity text, close real)")
    rows = table.with_columns(pl.col("date").dt.to_string()).rows()
    connection.executemany("insert into prices values (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    config = {"url": f"sqlite:///{place}", "table": "prices", **options}
    return Component("worker.builtin.sql_source:SqlPipeline", config)


def _sql_with_cursor(folder: Path, table: pl.DataFrame) -> Component:
    return _sql(folder, table, cursor="date")


def _plugin(folder: Path, table: pl.DataFrame) -> Component:
    del folder
    Everything.source = table
    return Component(f"{__name__}:Everything", {})


KINDS: dict[str, Callable[[Path, pl.DataFrame], Component]] = {
    "parquet file": _parquet,
    "csv file": _csv,
    "sql": _sql,
    "sql with a cursor": _sql_with_cursor,
    "plugin": _plugin,
}


class Flow:
    """One dataset's refreshes, each on top of the last one that completed."""

    def __init__(self, folder: Path, store: str) -> None:
        self.location = FlowLocation(str(folder / "data"), "acme", "prices", "refresh")
        self.store = Component(STORES[store], {})
        self.newest: Output | None = None

    def refresh(self, pipeline: Component, **changes: Any) -> Output:
        """Compute, and keep what came out as the next base."""
        recipe = PipelineRecipe(
            pipeline=pipeline, store=self.store, accessor=SIMPLE, inputs=(), mode=Mode.INCREMENTAL,
            date_range=DateRange(), data_date=None, timezone="UTC", base=self._base(), contract=None, macros={}, operators={},
            output_schema={}, guardrails=(), readers_hash="", base_readers_hash="", max_deleted_share=None,
            allow_deletion=False,
        )  # fmt: skip
        self.newest = compute(replace(recipe, **changes), self.location, "run", lambda *_: None)
        return self.newest

    @property
    def result(self) -> run_pb2.PipelineResult:
        """What the newest refresh says about rows."""
        assert self.newest is not None
        assert isinstance(self.newest.result, run_pb2.PipelineResult)
        return self.newest.result

    def _base(self) -> StoredData | None:
        if self.newest is None:
            return None
        return StoredData(self.store, SIMPLE, self.newest.uri, self.newest.physical_version)

    def read(self) -> pl.DataFrame:
        """The newest content."""
        assert self.newest is not None
        store = load(self.store.code_ref, Store)(self.store.config)
        return store.read(self.newest.uri, self.newest.physical_version).select("date", "entity", "close")


@pytest.fixture(params=sorted(STORES))
def flow(request: pytest.FixtureRequest, tmp_path: Path) -> Flow:
    return Flow(tmp_path, request.param)


def _sorted(table: pl.DataFrame) -> pl.DataFrame:
    return table.sort("date", "entity")


def _replaced(before: pl.DataFrame, now: pl.DataFrame, dates: DateRange) -> pl.DataFrame:
    """What the content is to be: of the range what the source has now, of the rest what was there."""
    parts = [
        table.filter(pl.col("date").map_elements(lambda day: day in dates, pl.Boolean) == is_inside)
        for table, is_inside in ((before, False), (now, True))
    ]
    return _sorted(pl.concat(parts))


def _counts(before: pl.DataFrame, now: pl.DataFrame) -> dict[str, int]:
    old, new = ({(date, entity): close for date, entity, close in table.rows()} for table in (before, now))
    return {
        "rows_inserted": len(new.keys() - old.keys()),
        "rows_updated": sum(old[key] != new[key] for key in new.keys() & old.keys()),
        "rows_deleted": len(old.keys() - new.keys()),
    }


RANGES = [MIDDLE, DateRange(MIDDLE.start, None), DateRange(None, MIDDLE.end)]


@pytest.mark.parametrize(("kind", "mode"), list(itertools.product(KINDS, Mode)))
def test_a_run_of_a_date_range_changes_only_rows_in_the_range(
    flow: Flow, tmp_path: Path, kind: str, mode: Mode
) -> None:
    before = _sorted(_rows())
    for dates in RANGES:
        flow.newest = None
        flow.refresh(KINDS[kind](tmp_path, before))
        output = flow.refresh(KINDS[kind](tmp_path, _changed()), date_range=dates, mode=mode)
        wanted = _replaced(before, _changed(), dates)
        assert flow.read().equals(wanted)
        counts = _counts(before, wanted)
        assert counts["rows_deleted"] > 0
        assert counts["rows_inserted"] > 0
        assert {name: output.metrics[name] for name in counts} == counts
        assert {name: getattr(flow.result, name) for name in counts} == counts
        assert output.metrics["rows"] == wanted.height
        assert output.last_data_date == str(wanted["date"].max())


def test_a_first_refresh_of_a_range_has_only_that(flow: Flow, tmp_path: Path) -> None:
    for kind, make in KINDS.items():
        flow.newest = None
        output = flow.refresh(make(tmp_path, _rows()), date_range=MIDDLE)
        assert flow.read().equals(_replaced(_rows(0), _rows(), MIDDLE)), kind
        assert output.metrics["rows_deleted"] == 0


def test_rows_fetched_counts_rows_from_the_source(flow: Flow, tmp_path: Path) -> None:
    for kind, rows in (("parquet file", 12), ("sql", 12), ("plugin", 30)):
        flow.newest = None
        flow.refresh(KINDS[kind](tmp_path, _rows()))
        output = flow.refresh(KINDS[kind](tmp_path, _rows()), date_range=MIDDLE)
        fetched = flow.result.rows_fetched
        assert fetched == output.metrics["rows_fetched"] == (30 if kind == "sql" else rows)
        assert output.metrics["rows_outside_range"] == (18 if kind == "plugin" else 0)
    flow.newest = None
    flow.refresh(_sql_with_cursor(tmp_path, _rows(9)))
    output = flow.refresh(_sql_with_cursor(tmp_path, _rows(10)))
    assert (flow.result.rows_fetched, flow.result.rows_inserted, output.metrics["rows"]) == (6, 3, 30)
    assert "not detected" in str(output.metrics["deletions"])


def test_the_prices_that_ship_with_the_product_take_a_range(flow: Flow) -> None:
    config = {"symbols": ["AAPL", "MSFT"], "start": "2020-01-02"}
    prices = Component("worker.builtin.prices:SP500Prices", config)
    flow.refresh(prices)
    whole = flow.read()
    narrow = Component("worker.builtin.prices:SP500Prices", {**config, "symbols": ["AAPL"]})
    dates = DateRange(dt.date(2021, 1, 1), dt.date(2021, 12, 31))
    flow.refresh(narrow, date_range=dates)
    wanted = whole.filter(~((pl.col("entity") == "MSFT") & (pl.col("date").dt.year() == 2021)))
    assert flow.read().equals(wanted)
    assert flow.result.rows_deleted == whole.height - wanted.height > 200


def test_an_expression_takes_a_range(flow: Flow, tmp_path: Path) -> None:
    def derive(source: pl.DataFrame, dates: DateRange) -> Output:
        upstream = Flow(tmp_path / str(source["close"].sum()), "delta")
        output = upstream.refresh(_parquet(tmp_path, source))
        data = StoredData(upstream.store, SIMPLE, output.uri, output.physical_version)
        given = Input("input", "prices", "prices", 1, output.digest, data)
        pipeline = Component(
            "worker.builtin.derivation:ExpressionPipeline",
            {"expression": "MEAN(close, 2)", "output": "close"},
        )
        return flow.refresh(pipeline, inputs=(given,), date_range=dates)

    (tmp_path / "x").mkdir()
    derive(_rows(), DateRange())
    before = flow.read()
    derive(_changed(), MIDDLE)
    ranged = flow.read()
    derive(_changed(), DateRange())
    assert ranged.equals(_replaced(before, flow.read(), MIDDLE)), "the first day looks back beyond the range"


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_that_is_gone_at_the_source_is_emptied_only_where_it_may_be(
    flow: Flow, tmp_path: Path, kind: str
) -> None:
    flow.refresh(KINDS[kind](tmp_path, _rows()))
    gone = KINDS[kind](tmp_path, _replaced(_rows(), _rows(0), MIDDLE))
    before = flow.newest
    with pytest.raises(NoDataInRange):
        flow.refresh(gone, date_range=MIDDLE)
    assert flow.newest is before
    flow.refresh(gone, date_range=MIDDLE, allow_deletion=True)
    assert flow.result.rows_deleted == 12
    assert flow.read().equals(_replaced(_rows(), _rows(0), MIDDLE))


def test_the_rest_of_a_range_run_is_read_by_the_next_one_without(flow: Flow, tmp_path: Path) -> None:
    """Days 9 and 10 are skipped by the range; a cursor that went on from day 12 would never see them."""
    flow.refresh(_sql_with_cursor(tmp_path, _rows(8)))
    later = _sql_with_cursor(tmp_path, _rows(12))
    flow.refresh(later, date_range=DateRange(FIRST + dt.timedelta(days=10), None))
    assert flow.read()["date"].n_unique() == 10
    flow.refresh(later, mode=Mode.FULL)  # as the recipe has it, see test_recipe_of_ranges
    assert flow.read()["date"].n_unique() == 12


@pytest.mark.parametrize("kind", ["parquet file", "sql", "plugin"])
def test_a_source_that_lost_most_of_its_keys_is_refused_and_nothing_changes(
    flow: Flow, tmp_path: Path, kind: str
) -> None:
    flow.refresh(KINDS[kind](tmp_path, _rows()))
    before, content = flow.newest, flow.read()
    lost = KINDS[kind](tmp_path, _rows(4))
    with pytest.raises(DeletionRefused, match="delete 18 of 30 keys") as refusal:
        flow.refresh(lost, max_deleted_share=0.5, mode=Mode.FULL)
    assert "--allow-deletion --reason" in str(refusal.value)
    assert flow.newest is before
    assert flow.read().equals(content)
    output = flow.refresh(lost, max_deleted_share=0.6, mode=Mode.FULL)
    assert flow.result.rows_deleted == output.metrics["rows_deleted"] == 18
    assert flow.read().equals(_sorted(_rows(4)))


def test_a_changed_store_counts_deletions_against_the_content_of_the_old_one(tmp_path: Path) -> None:
    for one, other in itertools.permutations(STORES):
        flow = Flow(tmp_path / one, one)
        (tmp_path / one).mkdir()
        flow.refresh(_parquet(tmp_path, _rows()))
        base = flow._base()
        flow.store = Component(STORES[other], {})
        flow.refresh(_parquet(tmp_path, _changed()), base=base, date_range=MIDDLE)
        wanted = _replaced(_rows(), _changed(), MIDDLE)
        assert flow.read().equals(wanted)
        counts = _counts(_rows(), wanted)
        assert {name: getattr(flow.result, name) for name in counts} == counts


def test_a_base_that_was_left_elsewhere_is_needed_by_a_range_only(flow: Flow, tmp_path: Path) -> None:
    flow.refresh(_parquet(tmp_path, _rows()))
    base = flow._base()
    assert base is not None
    lost = replace(base, uri=str(tmp_path / "nowhere"))
    with pytest.raises(VersionNotFound):
        flow.refresh(_parquet(tmp_path, _rows()), base=lost, date_range=MIDDLE)
    output = flow.refresh(_parquet(tmp_path, _rows()), base=lost, max_deleted_share=0.5)
    assert "not compared" in str(output.metrics["base"])


def test_a_refresh_says_which_source_it_has_read(flow: Flow, tmp_path: Path) -> None:
    component = _parquet(tmp_path, _rows(3))
    found = (tmp_path / "source.parquet").stat()
    assert flow.refresh(component).source_token == f"size {found.st_size} time {found.st_mtime_ns}"


def test_a_source_that_cannot_be_asked_is_read_all_the_same(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise OSError("no answer")

    monkeypatch.setattr(Everything, "probe", refuse)
    output = flow.refresh(_plugin(tmp_path, _rows(3)))
    assert output.source_token == ""
    assert output.metrics["source_token"] == "not taken: no answer"
