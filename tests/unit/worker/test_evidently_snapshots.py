"""Snapshots of monitorings in Evidently's workspace: each once, in its own project only, and nothing that is no report."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from instance_service.evidently_adapter import EvidentlyProjects
from instance_service.ports import MonitoringProject
from optaic.common.v1 import flow_pb2
from optaic.rules.counterparts import counterpart_name
from optaic.run.v1 import run_pb2
from servicekit.ids import new_id
from support.worker import World
from support.worker_peers import TENANT
from worker.execution import Outcome
from worker.peers import connect_peers
from worker.telemetry import evidently_adapter, make_telemetry
from worker.telemetry.debts import Debt, GoneError, UnreachableError
from worker.telemetry.evidently_adapter import EvidentlySnapshots, ProjectMissingError

REFRESH, MONITORING = flow_pb2.FLOW_KIND_REFRESH, flow_pb2.FLOW_KIND_MONITORING
EMPTY: dict[str, Any] = {
    "report": {"items": []}, "name": None, "timestamp": "2024-01-31T00:00:00", "metadata": {}, "tags": [],
    "metric_results": {}, "top_level_metrics": [], "widgets": [], "tests_widgets": [],
}  # fmt: skip
# What Evidently itself finds in a project.
_READ = """
import json, sys
from evidently.ui.workspace import Workspace
workspace = Workspace.create(sys.argv[1])
runs = workspace.list_runs(sys.argv[2])
models = [workspace.get_run(sys.argv[2], each) for each in runs]
drift = {
    result.display_name: result.value
    for model in models
    for result in model.metric_results.values()
    if result.display_name.startswith("Value drift for ")
}
print(json.dumps({"runs": [str(each) for each in runs], "metadata": [each.metadata for each in models], "drift": drift}))
"""


async def make_project(workspace: Path, instance_id: str, tenant: str = TENANT) -> None:
    """Make the project of an instance, as instance-service does."""
    name = counterpart_name(tenant, instance_id)
    await EvidentlyProjects(workspace, 10).ensure([MonitoringProject(name, "prices", new_id())])


def write(folder: Path, content: object, instance_id: str = "") -> Debt:
    """Return the debt of a run that has written a snapshot."""
    file = folder / "snapshot.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    files = {"snapshot": str(file)}
    return Debt(TENANT, instance_id or new_id(), new_id(), "evidently", "token", {}, files)


def read_snapshots(workspace: Path) -> list[Any]:
    return [json.loads(path.read_text()) for path in workspace.glob("*/snapshots/*")]


def replace_by_link(file: Path, target: Path) -> None:
    file.unlink()
    file.symlink_to(target)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


@pytest.fixture
def deliverer(workspace: Path) -> EvidentlySnapshots:
    return EvidentlySnapshots(workspace, 10)


def list_snapshots(workspace: Path) -> list[str]:
    return sorted(path.name for path in workspace.glob("*/snapshots/*"))


async def test_a_snapshot_is_there_once_however_often_it_is_delivered(
    workspace: Path, deliverer: EvidentlySnapshots, tmp_path: Path
) -> None:
    debt = write(tmp_path, {**EMPTY, "metadata": {"instance_id": "of another"}, "tags": ["x"]})
    await make_project(workspace, debt.instance_id)
    for _ in range(3):
        await deliverer.deliver(debt)
    assert list_snapshots(workspace) == [f"{debt.run_id}.json"]
    (found,) = read_snapshots(workspace)
    assert found["metadata"] == {"instance_id": debt.instance_id, "run_id": debt.run_id}
    assert found["tags"] == []
    await deliverer.withdraw(debt)
    await deliverer.withdraw(debt)
    assert list_snapshots(workspace) == []


@pytest.mark.parametrize("ending", ["deliver", "withdraw"])
async def test_a_draft_of_a_killed_worker_goes_with_the_next_attempt(
    ending: str,
    workspace: Path,
    deliverer: EvidentlySnapshots,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    debt, other = write(tmp_path, EMPTY), new_id()
    await make_project(workspace, debt.instance_id)
    with monkeypatch.context() as patch:
        patch.setattr(evidently_adapter, "_remove_drafts", lambda _: None)  # as if killed before
        patch.setattr(Path, "replace", _die)
        with pytest.raises(UnreachableError):
            await deliverer.deliver(debt)
    (draft,) = list_snapshots(workspace)
    assert draft.startswith(f".{debt.run_id}-")
    theirs = workspace / debt.instance_id / "snapshots" / f".{other}-x"
    theirs.touch()
    await getattr(deliverer, ending)(debt)
    theirs.unlink()
    assert list_snapshots(workspace) == ([f"{debt.run_id}.json"] if ending == "deliver" else [])


def _die(*_: object) -> None:
    raise OSError("killed")


async def test_a_workspace_that_is_away_is_tried_again(tmp_path: Path) -> None:
    debt = write(tmp_path, EMPTY)
    away = EvidentlySnapshots(tmp_path / "workspace", 10)
    with pytest.raises(UnreachableError):
        await away.deliver(debt)
    assert not (tmp_path / "workspace").exists(), "it is never created"


async def test_only_the_project_of_the_instance_is_written(
    workspace: Path, deliverer: EvidentlySnapshots, tmp_path: Path
) -> None:
    debt = write(tmp_path, EMPTY)
    with pytest.raises(ProjectMissingError):
        await deliverer.deliver(debt)
    await make_project(workspace, debt.instance_id, "another-tenant")
    with pytest.raises(ProjectMissingError):
        await deliverer.deliver(debt)
    assert list_snapshots(workspace) == []
    long_ago = time.time() - 3 * 24 * 3600
    os.utime(debt.files["snapshot"], (long_ago, long_ago))
    with pytest.raises(GoneError, match="has no project"):
        await deliverer.deliver(debt)


@pytest.mark.parametrize(
    "content",
    [
        "no JSON", "[]", {}, {**EMPTY, "more": 1}, "[" * 100_000,
        {**EMPTY, "widgets": [{"type": "evidently.cli.main"}]},
        {**EMPTY, "metric_results": {"m": {"type": "os.path.join"}}},
        {**EMPTY, "metric_results": {"m": {"deeper": [{"type": "evidently:other:Thing"}]}}},
    ],
)  # fmt: skip
async def test_what_is_no_report_never_gets_there(
    workspace: Path, deliverer: EvidentlySnapshots, tmp_path: Path, content: Any
) -> None:
    debt = write(tmp_path, content)
    await make_project(workspace, debt.instance_id)
    with pytest.raises(GoneError):
        await deliverer.deliver(debt)
    assert list_snapshots(workspace) == []


async def test_no_link_of_user_code_is_followed(
    workspace: Path, deliverer: EvidentlySnapshots, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(EMPTY))
    debt = write(tmp_path, EMPTY)
    replace_by_link(Path(debt.files["snapshot"]), secret)
    await make_project(workspace, debt.instance_id)
    with pytest.raises((GoneError, UnreachableError)):
        await deliverer.deliver(debt)
    assert list_snapshots(workspace) == []


async def test_a_monitoring_completes_without_evidently_which_gets_its_report_later(
    world: World, tmp_path: Path
) -> None:
    dataset = world.dataset()
    refresh = world.runs.submit(dataset, REFRESH)
    await world.execute(refresh, tmp_path)
    run = world.runs.submit(dataset, MONITORING, {"monitored": refresh})
    assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED, run.error
    assert list(run.telemetry_pending) == ["evidently"]
    assert run.status == run_pb2.RUN_STATUS_COMPLETED
    settings = world.settings(tmp_path)
    settings.evidently_workspace.mkdir()
    await make_project(settings.evidently_workspace, dataset.instance_id)
    async with connect_peers(settings) as peers:
        assert await make_telemetry(settings).sweep(peers)
    assert not run.telemetry_pending
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        _READ,
        str(settings.evidently_workspace),
        dataset.instance_id,
    ]
    read = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout)
    assert found["runs"] == [run.run_id]
    assert found["metadata"] == [{"instance_id": dataset.instance_id, "run_id": run.run_id}]
    columns: Any = run.metrics["columns"]
    assert found["drift"] == pytest.approx(
        {f"Value drift for {name}": columns[name]["psi"] for name in columns}
    )
    at_once = world.runs.submit(dataset, MONITORING, {"monitored": refresh})
    await world.execute(at_once, tmp_path)
    assert not at_once.telemetry_pending
    assert list_snapshots(settings.evidently_workspace) == sorted(
        [f"{run.run_id}.json", f"{at_once.run_id}.json"]
    )
