"""Datasets that the last release wrote, refreshed with today's code: no version moves without a reason."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.plugins import DateRange, InvalidColumnName, Mode, Pipeline, PipelineContext, Store, load
from support import earlier_dataset
from support.earlier_release import check_out
from worker.computing import Output, compute
from worker.locations import FlowLocation
from worker.readers import add_zones
from worker.recipe import Component, PipelineRecipe, StoredData

LAST_RELEASE = "96cdd0f3c8e914fec918d6f9df21061a65beee4c"
STORES = {
    "delta": "worker.builtin.delta_store:DeltaStore",
    "parquet": "worker.builtin.parquet_store:ParquetStore",
}
FILE = "worker.builtin.file_source:FilePipeline"
SIMPLE = Component("worker.builtin.simple_accessor:SimpleAccessor", {})
DAYS = [dt.date(2024, 3, day) for day in range(29, 32)]  # London's clocks change on the last one


def _rows(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"date": DAYS, "entity": ["a", "b", "c"], **columns})


def _at(hour: int, zone: str | None, unit: Any = "us") -> pl.Series:
    times = pl.Series([dt.datetime.combine(day, dt.time(hour)) for day in DAYS], dtype=pl.Datetime(unit))
    return times.dt.replace_time_zone(zone)


# What a file holds, by name.
SAME: dict[str, Callable[[], pl.DataFrame]] = {
    "numbers": lambda: _rows(
        close=[1.5, -0.0, None], count=[1, None, 2**60], text=["x", "", None], is_on=[True, None, False]
    ),
    "narrow types": lambda: _rows(
        close=pl.Series([1.5, 2.5, 3.5], dtype=pl.Float32), count=pl.Series([1, 2, 3], dtype=pl.UInt8)
    ),
    "times without a zone": lambda: _rows(
        seen=_at(23, None), fine=_at(23, None, "ns"), coarse=_at(23, None, "ms")
    ),
    "times of UTC": lambda: _rows(seen=_at(23, "UTC")),
    "noon in London": lambda: _rows(seen=_at(12, "Europe/London")),
    "afternoon in New York": lambda: _rows(seen=_at(16, "America/New_York")),
    "noon in Kolkata": lambda: _rows(seen=_at(12, "Asia/Kolkata"), other=_at(12, "Europe/London")),
    "dates at noon of a zone": lambda: _rows(close=[1.0, 2.0, 3.0]).with_columns(
        date=_at(12, "Europe/London")
    ),
}
TWINS = "columns that differ in capitals"
MOVES: dict[str, Callable[[], pl.DataFrame]] = {
    "midnight in Tokyo": lambda: _rows(seen=_at(0, "Asia/Tokyo")),
    "dates at midnight in Tokyo": lambda: _rows(close=[1.0, 2.0, 3.0]).with_columns(
        date=_at(0, "Asia/Tokyo")
    ),
}
CSV = "date,entity,close,count,text\n2024-03-01,a,1.5,1,x\n2024-03-02,b,2,,\n2024-03-03,c,1e-05,3,TRUE\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Let the last release read and keep every case in every store."""
    folder = tmp_path_factory.mktemp("earlier")
    code = check_out(LAST_RELEASE, folder / "code")
    cases = {}
    twins = {TWINS: lambda: _rows(close=[1.0, 2.0, 3.0], Close=[4, 5, 6])}
    for name, make in (SAME | MOVES | twins).items():
        path = folder / f"{name}.parquet"
        make().write_parquet(path)
        cases[name] = {"pipeline": FILE, "config": {"url": str(path)}}
    (folder / "prices.csv").write_text(CSV)
    cases["a csv file"] = {"pipeline": FILE, "config": {"url": str(folder / "prices.csv")}}
    asked = {
        f"{store} {name}": {**case, "store": code_ref, "uri": str(folder / store / name / "refresh" / "data")}
        for store, code_ref in STORES.items()
        for name, case in cases.items()
        if (store, name) != ("delta", TWINS)  # it has never kept them
    }
    finished = subprocess.run(
        [sys.executable, "-P", earlier_dataset.__file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(code / part) for part in ("shared", "services"))},
        input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True, timeout=120,
    )  # fmt: skip
    told = json.loads(finished.stdout)
    return {name: {**case, **told[name]} for name, case in asked.items()}


def _refresh(case: dict[str, Any], base: StoredData | None = None, **config: Any) -> Output:
    """Today's first refresh of what the last release left."""
    store = Component(case["store"], {})
    recipe = PipelineRecipe(
        pipeline=Component(case["pipeline"], {**case["config"], **config}), store=store, accessor=SIMPLE, inputs=(),
        mode=Mode.INCREMENTAL, date_range=DateRange(), data_date=None, timezone="UTC",
        base=base or StoredData(store, SIMPLE, case["uri"], case["physical_version"], digest=case["digest"]), contract=None, macros={}, operators={},
        output_schema={}, guardrails=(), readers_hash="readers", base_readers_hash="readers", max_deleted_share=None,
        allow_deletion=False,
    )  # fmt: skip
    data = Path(case["uri"])
    location = FlowLocation(
        str(data.parents[3]), data.parents[2].name, data.parents[1].name, data.parents[0].name
    )
    return compute(recipe, location, "run", lambda *_: None)


@pytest.mark.parametrize("name", [*SAME, "a csv file"])
@pytest.mark.parametrize("store", STORES)
def test_the_first_refresh_moves_no_version(
    written: dict[str, dict[str, Any]], store: str, name: str
) -> None:
    case = written[f"{store} {name}"]
    output = _refresh(case)
    assert output.former_digest == case["digest"]
    assert output.readers_hash == output.base_readers_hash
    counts = {name: output.metrics[name] for name in ("rows_inserted", "rows_updated", "rows_deleted")}
    assert set(counts.values()) == {0}, counts


@pytest.mark.parametrize("store", STORES)
def test_rows_filed_a_day_early_are_moved(written: dict[str, dict[str, Any]], store: str) -> None:
    seen = _refresh(written[f"{store} midnight in Tokyo"])
    assert seen.former_digest == written[f"{store} midnight in Tokyo"]["digest"]
    assert seen.readers_hash == add_zones("readers", {"seen": "Asia/Tokyo"}, "UTC") != seen.base_readers_hash
    dates = _refresh(written[f"{store} dates at midnight in Tokyo"])
    assert dates.former_digest != written[f"{store} dates at midnight in Tokyo"]["digest"]
    assert dates.last_data_date == "2024-03-31"


def test_stored_columns_that_differ_only_in_case_stay_valid(
    written: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    case = written[f"parquet {TWINS}"]
    output = _refresh(case)
    assert (output.former_digest, output.physical_version) == (case["digest"], case["physical_version"])
    table = pl.read_parquet(case["config"]["url"]).with_columns(close=pl.lit(9.0))
    table.write_parquet(tmp_path / "later.parquet")
    changed = _refresh(case, url=str(tmp_path / "later.parquet"))
    content = load(case["store"], Store)({}).read(changed.uri, changed.physical_version)
    assert content.sort("date").equals(table.select(content.columns))
    table.with_columns(CLOSE=pl.lit(1)).write_parquet(tmp_path / "later.parquet")
    with pytest.raises(InvalidColumnName, match="3 and 5 differ only in capital letters"):
        _refresh(case, url=str(tmp_path / "later.parquet"))
    fresh = written["parquet numbers"]
    with pytest.raises(InvalidColumnName, match="3 and 4 differ only in capital letters"):
        _refresh(fresh, url=case["config"]["url"])


def test_a_pipeline_reads_column_names_that_differ_only_in_case(written: dict[str, dict[str, Any]]) -> None:
    case = written[f"parquet {TWINS}"]
    table = load(case["pipeline"], Pipeline)().run(PipelineContext(config=case["config"]))
    assert isinstance(table, pl.DataFrame)
    assert {"close", "Close"} <= set(table.columns)
