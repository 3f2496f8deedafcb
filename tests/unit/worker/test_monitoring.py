"""A monitoring of a dataset, from the instance to its report, alerts and artifacts."""

import asyncio
import datetime as dt
import importlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.common.v1 import flow_pb2
from optaic.rules.monitoring import MonitoringSettings
from support.worker import World
from worker.execution import Outcome
from worker.monitoring.columns import judge_columns

REFRESH, MONITORING = flow_pb2.FLOW_KIND_REFRESH, flow_pb2.FLOW_KIND_MONITORING


@pytest.fixture(scope="module", autouse=True)
def _imported() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently uses what NumPy and others have deprecated
        importlib.import_module("worker.monitoring.report")
        yield


async def monitored(world: World, root: Path, config: dict[str, Any] | None = None, **parameters: Any) -> Any:
    """Refresh prices, monitor them, and return the run."""
    dataset = world.dataset()
    dataset.dataset.monitoring_enabled = True
    if config:
        for name, value in config.items():
            target = dataset.dataset.monitoring
            setattr(target if name in target.DESCRIPTOR.fields_by_name else target.thresholds, name, value)
    world.instances.put(dataset)
    refresh = world.runs.submit(dataset, REFRESH)
    ending = await world.execute(refresh, root)
    assert ending.outcome is Outcome.COMPLETED, refresh.error
    run = world.runs.submit(dataset, MONITORING, {"monitored": refresh})
    run.parameters.update(parameters)
    await world.execute(run, root)
    return run


async def test_a_dataset_is_compared_with_its_earlier_sessions(world: World, tmp_path: Path) -> None:
    run = await monitored(world, tmp_path, {"window_sessions": 20, "max_psi": 0.5})
    assert run.output_version.physical_version == run.run_id, run.error
    assert set(run.artifacts) == {"report", "snapshot", "column_metrics"}
    columns = pl.read_parquet(run.artifacts["column_metrics"])
    assert set(run.metrics["columns"]) == set(columns["column"])
    assert (run.metrics["current_sessions"], run.metrics["reference_sessions"]) == (20, 252)
    assert run.metrics["current_end"] == run.output_version.last_data_date == "2021-12-31"
    assert run.monitoring.report_uri == run.artifacts["report"]
    assert run.monitoring.drift_share == run.metrics["drift_share"]
    assert len(run.monitoring.alerts) == run.monitoring.alert_count == run.metrics["alerts"]
    drifted = {alert.column for alert in run.monitoring.alerts if alert.metric == "psi"}
    assert drifted == set(columns.filter(pl.col("psi") > 0.5)["column"])
    assert drifted
    report, told = await asyncio.to_thread(_read_report, run)
    assert "</html>" in report
    assert told == pytest.approx(dict(columns.select("column", "psi").iter_rows()))


def _read_report(run: Any) -> tuple[str, dict[str, float]]:
    """Return the page, and the drift of each column as Evidently reads it from the snapshot."""
    from evidently.core.serialization import SnapshotModel  # noqa: PLC0415 - it warns when it is imported

    snapshot = SnapshotModel.parse_obj(json.loads(Path(run.artifacts["snapshot"]).read_text()))
    assert snapshot.metadata["run_id"] == run.run_id
    prefix = "Value drift for "
    drift = {
        result.display_name.removeprefix(prefix): result.value
        for result in snapshot.metric_results.values()
        if result.display_name.startswith(prefix)
    }
    return Path(run.artifacts["report"]).read_text(), drift


async def test_nothing_after_the_data_date_is_read(world: World, tmp_path: Path) -> None:
    run = await monitored(world, tmp_path, {"window_sessions": 20}, data_date="2020-06-30")
    assert run.metrics["current_end"] == "2020-06-30", run.error
    assert run.is_partial_range
    same = await monitored(world, tmp_path, {"window_sessions": 20}, data_date="2021-12-31")
    assert same.metrics["current_end"] == "2021-12-31"
    assert not same.is_partial_range


async def test_too_few_sessions_fail_and_leave_nothing(world: World, tmp_path: Path) -> None:
    run = await monitored(world, tmp_path, {"window_sessions": 5000})
    assert run.error.type == "NoDataInRange"
    assert "monitoring.window_sessions" in run.error.message
    left = await asyncio.to_thread(lambda: list(tmp_path.rglob("*.html")))
    assert not left


async def test_the_same_monitoring_once_more_moves_nothing(world: World, tmp_path: Path) -> None:
    first, second = [await monitored(world, tmp_path / name) for name in ("one", "two")]
    assert first.output_version.digest == second.output_version.digest
    other = await monitored(world, tmp_path / "three", {"window_sessions": 21})
    assert other.output_version.digest != first.output_version.digest


def _report(table: pl.DataFrame) -> Any:
    from worker.monitoring.report import make_report  # noqa: PLC0415 - it takes seconds to import

    before, now = table[: table.height // 2], table[table.height // 2 :]
    settings = MonitoringSettings()
    columns = judge_columns(before, now, table.columns, settings)
    return make_report(before, now, columns, settings, {}, dt.date(2024, 1, 31))


def test_no_text_of_the_data_becomes_markup_of_the_page() -> None:
    evil = "</script><script>alert(1)</script>"
    report = _report(pl.DataFrame({evil: [1.0, 2.0] * 50, "sector": [evil, "b"] * 50}))
    assert "<script>alert" not in report.html
    assert "alert(1)" in report.html, "it is shown"


def test_a_report_shows_the_columns_that_moved_most_and_says_how_many_it_leaves_out() -> None:
    from worker.monitoring.report import MOST_COLUMNS  # noqa: PLC0415 - it takes seconds to import

    table = pl.DataFrame(
        {f"c{number}": [0.0, 1.0] * 10 + [0.0, 1.0 + number] * 10 for number in range(MOST_COLUMNS + 5)}
    )
    report = _report(table)
    assert report.notes == {
        "report_columns": MOST_COLUMNS,
        "report_columns_left_out": 5,
        "report_rows_left_out": 0,
    }


def test_a_table_without_anything_to_compare_has_no_report() -> None:
    assert _report(pl.DataFrame({"none": [None] * 10})) is None
