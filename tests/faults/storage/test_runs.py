"""A run whose object store is away fails typed, in a bounded time, and has no version."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from optaic import storage
from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from support import campaigns
from support.http_faults import Fault, HttpFaults
from support.object_store import ObjectStore, installed, needs_server
from support.worker import World, running_world
from support.worker_peers import TENANT
from worker.execution import Outcome

pytestmark = [needs_server, pytest.mark.faults]
ROOT = "s3://optaic/data"
_EVER = 10**9


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as running:
        yield running


def settings(access: storage.Access, tmp_path: Path) -> dict[str, Any]:
    return {
        "s3_endpoint": access.endpoint,
        "s3_access_key_id": access.access_key_id,
        "s3_secret_access_key": access.secret_access_key,
        "s3_timeout_seconds": 5.0,
        "s3_patience_seconds": 2.0,
        "run_output_folder": str(tmp_path / "output"),
        "telemetry_folder": str(tmp_path / "telemetry"),
        "evidently_workspace": str(tmp_path / "evidently"),
    }


@pytest.mark.parametrize("store", ["delta", "parquet"] if campaigns.IS_FULL else ["delta"])
async def test_a_run_fails_while_the_store_refuses_and_the_next_one_completes(
    object_store: ObjectStore, world: World, tmp_path: Path, store: str
) -> None:
    fault: Fault = "503" if store == "delta" else "down"
    dataset = world.dataset(store=store)
    async with HttpFaults(object_store.endpoint) as proxy:
        access = object_store.access(TENANT, endpoint=proxy.url)
        given = settings(access, tmp_path)
        with installed(access):
            proxy.strike(fault, after=0, times=_EVER)
            failed = world.runs.submit(dataset, flow_pb2.FLOW_KIND_REFRESH)
            async with asyncio.timeout(120):
                ending = await world.execute(failed, ROOT, **given)
            assert ending.outcome is Outcome.FAILED, ending
            run = world.runs.find(failed.run_id)
            assert run.status == run_pb2.RUN_STATUS_FAILED
            assert run.error.type == "StoreUnavailable"
            assert not run.output_version.uri
            proxy.heal()
            completed = world.runs.submit(dataset, flow_pb2.FLOW_KIND_REFRESH)
            ending = await world.execute(completed, ROOT, **given)
            assert ending.outcome is Outcome.COMPLETED, ending
