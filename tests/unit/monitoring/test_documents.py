"""The page of runs explains each figure of a monitoring and states each default."""

import re
from dataclasses import asdict

import polars as pl
import pytest

from optaic.cli.runs import _show_alerts
from optaic.rules.monitoring import MOST_ALERTS, REFERENCE_SESSIONS, MonitoringSettings
from optaic.run.v1 import run_pb2
from support.contract import ROOT
from worker.monitoring import Labels, Subject, monitor
from worker.monitoring.columns import SCHEMA

SECTION = (ROOT / "docs/runs.md").read_text().partition("\n## Monitoring\n")[2].partition("\n## ")[0]
NAMES = set(re.findall(r"`([a-z_]+)`", SECTION))


def test_each_figure_is_explained() -> None:
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 4, 30), eager=True)
    table = pl.DataFrame({"date": days, "entity": "e", "value": range(len(days))})
    labels = Labels(table.select("date", "entity", pl.col("value").alias("target")), table)
    found = monitor(Subject(table, table["date"], ("date", "entity"), None, labels), MonitoringSettings())
    assert set(found.metrics) - {"warnings", "columns"} <= NAMES
    figures = {name for column in found.metrics["columns"].values() for name in column}  # type: ignore[attr-defined] # an object
    assert figures <= NAMES
    assert {"psi", "ks", "ks_p_value", "js", "missing_share", "outlier_share"} <= NAMES & set(SCHEMA)


@pytest.mark.parametrize(
    ("name", "default"),
    [(name, value) for name, value in asdict(MonitoringSettings()).items() if "_sessions" not in name],
)
def test_each_default_is_stated(name: str, default: float) -> None:
    (row,) = [line for line in SECTION.splitlines() if line.startswith(f"| `{name}` | `")]
    assert float(row.split("|")[3]) == default


def test_the_windows_and_limits_are_stated() -> None:
    assert f"`window_sessions` ({MonitoringSettings().window_sessions})" in SECTION
    assert f"the {REFERENCE_SESSIONS} sessions directly before" in SECTION
    assert f"At most {MOST_ALERTS} are listed" in SECTION


def test_the_command_line_shows_each_alert_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    alerts = [
        run_pb2.MonitoringAlert(metric="drift_share", value=0.75, threshold=0.5),
        run_pb2.MonitoringAlert(metric="psi", column="close", value=0.4, threshold=0.25),
    ]
    _show_alerts(run_pb2.MonitoringResult(alerts=alerts, alert_count=5))
    assert capsys.readouterr().out.splitlines() == [
        "alert: drift_share is 0.75, above 0.5",
        "alert: psi of close is 0.4, above 0.25",
        "alert: 3 more (column_metrics of the run has all)",
    ]
    _show_alerts(run_pb2.MonitoringResult())
    assert not capsys.readouterr().out
