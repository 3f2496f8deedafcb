"""The secret of the object store is another one than when the worker started: runs go on with the one that its file has now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optaic import storage
from optaic.common.v1 import flow_pb2
from support.object_store import ObjectStore, installed, needs_server
from support.worker import World, running_world
from support.worker_peers import TENANT
from worker import execution
from worker.execution import Outcome
from worker.manifest import list_artifacts

pytestmark = needs_server
ROOT = "s3://optaic/data"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as running:
        yield running


def settings(access: storage.Access, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "secret"
    file.write_text(f"{access.secret_access_key}\n")
    return {
        "s3_endpoint": access.endpoint,
        "s3_access_key_id": access.access_key_id,
        "s3_secret_access_key_file": file,
        "run_output_folder": str(tmp_path / "output"),
        "telemetry_folder": str(tmp_path / "telemetry"),
        "evidently_workspace": str(tmp_path / "evidently"),
    }


async def test_the_worker_s_own_process_reads_and_writes_with_the_secret_of_now(
    object_store: ObjectStore, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = object_store.access(TENANT)
    given, former = settings(access, tmp_path), replace(access, secret_access_key="of the worker's start")
    used = []

    def listed(artifacts: Any, outputs_uri: str) -> Any:
        used.append(storage.current().secret_access_key)
        return list_artifacts(artifacts, outputs_uri)

    monkeypatch.setattr(execution, "list_artifacts", listed)
    completed = world.runs.submit(world.dataset(), flow_pb2.FLOW_KIND_REFRESH)
    failed = world.runs.submit(
        world.dataset(definition="probe", behaviour="raise"), flow_pb2.FLOW_KIND_REFRESH
    )
    with installed(former):
        assert (await world.execute(completed, ROOT, **given)).outcome is Outcome.COMPLETED, completed.error
        assert used == [access.secret_access_key]
        storage.install(former)
        await world.execute(failed, ROOT, **given)
        assert b"Error" in storage.read(world.runs.find(failed.run_id).error.trace_uri)
