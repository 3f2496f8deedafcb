"""The main job gives the same in an object store as in files: each run's metrics and versions, and the bytes of its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.campaigns import IS_FULL
from support.contract import ROOT
from support.object_store import needs_server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    needs_server,
    pytest.mark.skipif(not IS_FULL, reason="it runs the whole demo twice: OPTAIC_FAULTS=full"),
]
_SAME = ("instance", "kind", "status", "run_number", "input_versions", "output_digest")
# Files that differ between two runs with the same input, wherever they lie: they name their run, or a time.
_OF_THEIR_RUN = ("training", "model", "mlflow_model", "snapshot", "report")
_METRICS_OF_THEIR_RUN = ("model_run_id", "predictions_of_training", "prediction_seconds")
_DIGITS = 9  # a sum over several threads may differ in the last ones


def _run_demo(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the demo in a folder, and return its summary."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPTAIC_START_TIMEOUT_SECONDS": "360"},
        capture_output=True,
        text=True,
        timeout=900,  # a minute, unless the machine is busy
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads((folder / "build/demo/summary.json").read_text())
    return summary


def _rounded(value: Any) -> Any:
    """Return a value of JSON with its numbers rounded."""
    match value:
        case float():
            return float(f"{value:.{_DIGITS}g}")
        case list():
            return [_rounded(each) for each in value]
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
    return value


def _describe(run: dict[str, Any]) -> dict[str, Any]:
    """Return what a run with the same input gives again, with the SHA-256 of its files."""
    files, metrics = run["sha256"], run["metrics"]
    return {
        **{name: run[name] for name in _SAME},
        "metrics": _rounded({name: metrics[name] for name in metrics if name not in _METRICS_OF_THEIR_RUN}),
        "names": sorted(files),
        "sha256": {name: files[name] for name in files if name.partition("/")[0] not in _OF_THEIR_RUN},
    }


def _compare(in_files: dict[str, Any], in_store: dict[str, Any]) -> None:
    for one, other in zip(in_files["runs"], in_store["runs"], strict=True):
        assert _describe(one) == _describe(other)
        assert one["output_digest"] or one["sha256"], one["instance"]
    assert _rounded(in_files["metrics"]) == _rounded(in_store["metrics"])
    assert set(in_store["statuses"].values()) == {"READY"}


def test_the_demo_in_an_object_store_equals_the_demo_in_files(tmp_path: Path) -> None:
    in_files = _run_demo(tmp_path / "files")
    in_store = _run_demo(tmp_path / "store", "--object-store", "seaweedfs")
    uris = [uri for run in in_store["runs"] for uri in run["artifacts"].values()]
    assert {uri.partition("default/")[0] for uri in uris} == {"s3://optaic/data/"}
    assert not (tmp_path / "store/.state/demo/data").exists(), "nothing lies in files"
    _compare(in_files, in_store)
