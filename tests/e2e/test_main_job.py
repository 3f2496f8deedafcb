"""The main job as `make demo` runs it: it completes, it is recorded, and it can be interrupted anywhere."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from support.demo import start_demo
from support.polling import PATIENCE

PNG = b"\x89PNG\r\n\x1a\n"


def living_below(folder: Path) -> list[str]:
    """Command lines of processes that name the folder, or work in it."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if str(folder) in line or str(folder) in process.cwd():
                found.append(line)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_the_main_job_passes_all_its_checks(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    output, _ = demo.communicate(timeout=400)  # a minute, unless the machine is busy
    assert demo.returncode == 0, output
    summary = json.loads((tmp_path / "build/demo/summary.json").read_text())
    assert set(summary["statuses"].values()) == {"READY"}
    runs = summary["runs"]
    first = ["sp500_prices", "momentum_12_1", "momentum_backtest"]
    built = [
        "momentum_preview",
        *("next_month", "next_month", "sp500_prices", "next_month"),
        *("min_cvar", "optimized_backtest"),
    ]
    refreshed = ["vendor_prices", "vendor_returns", "vendor_momentum"]
    assert [run["instance"] for run in runs] == [*first, *first, *built, *refreshed, *refreshed]
    assert [refresh["status"] for refresh in summary["refreshes"]] == ["COMPLETED"] * 2
    for refresh in summary["refreshes"]:
        flows = [(flow["instance"], flow["status"]) for flow in refresh["flows"]]
        assert flows == [(name, "COMPLETED") for name in refreshed[:2]]
    assert {"RefreshSubmitted", "RefreshEnded"} <= set(summary["events"])
    assert any(each.startswith("vendor_prices: overdue") for each in summary["findings"])
    assert {run["status"] for run in runs} == {"COMPLETED"}
    assert {run["kind"] for run in runs} == {
        *("PIPELINE", "BACKTEST", "EXPERIMENT", "TRAINING", "INFERENCE", "MONITORING"),
        "PORTFOLIO_OPTIMIZATION",
    }
    assert all(run["metrics"] and run["artifacts"] for run in runs)
    assert runs[5]["input_versions"] == {"sp500_prices": 2, "momentum_12_1": 2}
    assert {"mean_coverage", "ic_mean_21", "quintile_returns_21"} <= set(runs[6]["metrics"])
    assert {"data", "preview", "preview_sample"} == set(runs[6]["artifacts"])
    assert runs[8]["metrics"]["in_sample_rows"] == 0
    assert {"next_month", "sp500_prices"} <= set(runs[12]["input_versions"])
    assert runs[-1]["input_versions"] == {"vendor_returns": 2}
    assert {"total_return", "sharpe_ratio", "max_drawdown", "turnover"} <= set(summary["metrics"])
    assert [instance["kind"] for instance in summary["instances"]] == [
        *("DATASET", "SIGNAL", "BACKTEST", "EXPERIMENT", "MODEL", "PORTFOLIO_OPTIMIZER", "BACKTEST"),
        *("DATASET", "DATASET", "SIGNAL"),
    ]
    assert {instance["state"] for instance in summary["instances"]} == {"ACTIVE"}
    assert all(
        flow["prefect_deployment_id"] for instance in summary["instances"] for flow in instance["flows"]
    )
    (model,) = (instance for instance in summary["instances"] if instance["kind"] == "MODEL")
    assert [flow["kind"] for flow in model["flows"]] == ["TRAINING", "INFERENCE", "MONITORING"]
    assert model["mlflow_experiment_id"]
    assert model["evidently_project_id"]
    assert summary["events"]["RunCompleted"] == len(runs)
    assert summary["events"]["InstanceCreated"] >= 3
    assert {"equity_curve", "trades", "weights_history", "daily_returns"} <= set(summary["artifacts"])
    assert (tmp_path / "build/demo/equity_curve.png").read_bytes().startswith(PNG)
    assert living_below(tmp_path) == []


def test_the_main_job_passes_over_tls(tmp_path: Path) -> None:
    """Services, worker, client and NATS know each other by certificates; without one nobody is admitted."""
    demo = start_demo(tmp_path, OPTAIC_TLS="true")
    output, _ = demo.communicate(timeout=400)  # a minute, unless the machine is busy
    assert demo.returncode == 0, output
    summary = json.loads((tmp_path / "build/demo/summary.json").read_text())
    assert set(summary["statuses"].values()) == {"READY"}
    assert {run["status"] for run in summary["runs"]} == {"COMPLETED"}
    assert summary["events"]["RunCompleted"] == len(summary["runs"])
    logs = tmp_path / ".state/demo/logs"
    assert "broker connected" in (logs / "run-service.log").read_text()
    assert "TLS required for client connections" in (logs / "nats.log").read_text()
    assert living_below(tmp_path) == []


@pytest.mark.parametrize("seconds", [0.7, 2.5, 9.0])
def test_an_interrupt_at_any_point_leaves_nothing_running(tmp_path: Path, seconds: float) -> None:
    demo = start_demo(tmp_path)
    try:
        # Not a wait for something: the point in time is what the case is about.
        demo.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(demo.pid, signal.SIGINT)
    demo.communicate(timeout=PATIENCE)
    assert demo.returncode != 0
    deadline = time.monotonic() + 30
    while living_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)  # between two looks, up to the deadline
    assert living_below(tmp_path) == []
