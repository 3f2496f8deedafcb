"""Data of deleted instances, from their end in instance-service to the worker that removes it; the clock is ours."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import polars as pl
import pytest

from devstack.postgres import Postgres
from instance_service.grpc_api import DataRemovalServicer, DefinitionServicer
from optaic import storage
from optaic.definition.v1.definition_service_pb2_grpc import add_DefinitionServiceServicer_to_server
from optaic.instance.v1.data_removal_service_pb2 import (
    ClaimDataRemovalRequest,
    DataRemoval,
    ListDataRemovalsRequest,
)
from optaic.instance.v1.data_removal_service_pb2_grpc import (
    DataRemovalServiceStub,
    add_DataRemovalServiceServicer_to_server,
)
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import DeleteInstanceRequest, GetInstanceRequest
from optaic.rules.data_removals import CLAIM
from servicekit.auth import make_authenticator
from servicekit.server import Server
from servicekit.settings import ServiceSettings
from support.clock import FakeClock
from support.guardians import Guardians
from support.identities import caller, token_of, tokens_file
from support.instance_service import TENANT, RunningInstanceService, instance_service
from support.object_store import ObjectStore, installed, needs_server
from support.polling import eventually
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore
from worker.config import Settings
from worker.data_sweep import sweep
from worker.locations import FlowLocation

WEEK = 7 * 86400.0
TOKEN = token_of("executor", TENANT)
TABLE = pl.DataFrame({"date": [dt.date(2024, 1, 2)], "entity": ["AAPL"], "close": [1.0]})


class World:
    """instance-service, a door to it whose clock is moved, and the folder in which a worker keeps data."""

    def __init__(self, service: RunningInstanceService, root: Path, clock: FakeClock, address: str) -> None:
        self.service = service
        self.root = root
        self.clock = clock
        self.guardians = Guardians()
        self.address = address
        self.data_root = str(root)
        self.more: dict[str, Any] = {}  # settings of the worker

    def settings(self) -> dict[str, str]:
        """Return a worker's settings."""
        return {
            "instance_address": self.address,
            "run_address": "127.0.0.1:1",
            "executor_token": TOKEN,
            "tenants": json.dumps([TENANT]),
            "data_root": self.data_root,
            "run_output_folder": str(self.root.parent / "run-output"),
        }

    async def sweep(self) -> int:
        """Do what a worker does now and then."""
        return await sweep(
            Settings.model_validate({**self.settings(), **self.more, "tenants": (TENANT,)}),
            self.guardians.start,
        )

    async def create(self, name: str, store: str) -> Instance:
        """Create a dataset and what its runs have kept."""
        project = await self.service.project(name)
        dataset = {
            "pipeline": {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}},
            "store": {"definitionName": store},
        }
        made = await self.service.create({"projectId": project.project_id, "name": name, "dataset": dataset})
        uri = FlowLocation(self.data_root, TENANT, made.instance_id, "refresh").data_uri
        {"delta": DeltaStore, "parquet": ParquetStore}[store]().write(TABLE, None, uri)
        return made

    async def delete(self, instance: Instance) -> None:
        """Delete an instance; return when it is gone."""
        request = DeleteInstanceRequest(instance_id=instance.instance_id)
        await self.service.instances.DeleteInstance(request)
        await self.service.clear_lineage(instance.instance_id)

        async def is_gone() -> Any:
            try:
                await self.service.instances.GetInstance(GetInstanceRequest(instance_id=instance.instance_id))
            except grpc.aio.AioRpcError as error:
                return error.code() == grpc.StatusCode.NOT_FOUND
            return False

        await eventually(is_gone)

    async def removals(self) -> list[DataRemoval]:
        """Return what is still there."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = ListDataRemovalsRequest()
            answer = await DataRemovalServiceStub(channel).ListDataRemovals(
                request, metadata=caller("viewer", TENANT)
            )
            return list(answer.data_removals)

    async def claim(self) -> DataRemoval:
        """Take a removal, as a worker that dies before it has said what became of it."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = ClaimDataRemovalRequest()
            answer = await DataRemovalServiceStub(channel).ClaimDataRemoval(
                request, metadata=caller("executor", TENANT)
            )
            claimed: DataRemoval = answer.data_removal
            return claimed

    def folder(self, instance: Instance) -> Path:
        """Return where the data of an instance lies."""
        return self.root / TENANT / instance.instance_id


@asynccontextmanager
async def door(service: RunningInstanceService, clock: FakeClock) -> AsyncIterator[str]:
    """Serve what a worker calls, by another clock."""
    environment = replace(service.app.deps, clock=clock, data_grace_seconds=WEEK)
    settings = ServiceSettings(
        database_url="unused",
        database_owner_url="unused",
        database_infra_url="unused",
        tokens_file=tokens_file(),
        shutdown_grace_seconds=0,
    )
    servicers: list[Any] = [
        (
            add_DataRemovalServiceServicer_to_server,
            DataRemovalServicer(environment),
            "optaic.instance.v1.DataRemovalService",
        ),
        (
            add_DefinitionServiceServicer_to_server,
            DefinitionServicer(environment),
            "optaic.definition.v1.DefinitionService",
        ),
    ]
    server = Server(settings, "door", "optaic.test", servicers, make_authenticator(settings))
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop()


@pytest.fixture
async def world(postgres_server: Postgres, nats_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """The services, and an empty data root."""
    del postgres_server
    root = tmp_path / "data"
    root.mkdir()
    clock = FakeClock(dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1))
    async with instance_service(nats_url) as service, door(service, clock) as address:
        running = World(service, root, clock, address)
        yield running
        await running.guardians.wait()


@pytest.mark.parametrize("store", ["delta", "parquet"])
async def test_data_is_removed_after_the_grace_period_and_not_before(world: World, store: str) -> None:
    kept, gone = await world.create("kept", store), await world.create("gone", store)
    assert await world.sweep() == 0
    await world.delete(gone)
    assert [each.name for each in await world.removals()] == ["gone"]
    world.clock.advance(WEEK - 120)
    assert await world.sweep() == 0
    assert any(world.folder(gone).rglob("*.parquet"))
    world.clock.advance(120)
    assert await world.sweep() == 1
    assert not world.folder(gone).exists()
    assert any(world.folder(kept).rglob("*.parquet"))
    assert await world.removals() == []
    assert await world.sweep() == 0


@needs_server
async def test_all_data_in_an_object_store_is_removed_and_that_of_no_other(
    world: World, object_store: ObjectStore
) -> None:
    """Versions, artifacts, tracebacks and models; not those of a living instance, or of another tenant's folder of that name."""
    access = object_store.access(TENANT)
    world.data_root = "s3://optaic/data"
    world.more = {
        "s3_endpoint": access.endpoint,
        "s3_access_key_id": access.access_key_id,
        "s3_secret_access_key": access.secret_access_key,
    }
    with installed(access):
        kept, gone = await world.create("kept", "delta"), await world.create("gone", "delta")
        for made in (kept, gone):
            flow = FlowLocation(world.data_root, TENANT, made.instance_id, "training")
            flow.write_output("r1", "traceback.txt", "Traceback")
            storage.write(f"{flow.outputs_uri('r1')}model/deep/file", bytes(9_000_000))
            DeltaStore().write(TABLE, None, flow.data_uri)
            ParquetStore().write(TABLE, None, flow.data_uri)
        folders = {made.name: f"{world.data_root}/{TENANT}/{made.instance_id}" for made in (kept, gone)}
        before = sorted(each.path for each in storage.list_files(folders["kept"]))
    other = f"{world.data_root}/beta/{gone.instance_id}/refresh/data/file"
    with installed(object_store.access("beta")):
        storage.write(other, b"of another tenant")
    with installed(access):
        await world.delete(gone)
        assert await world.sweep() == 0
        assert len(list(storage.list_files(folders["gone"]))) == len(before)
        world.clock.advance(WEEK)
        assert await world.sweep() == 1
        assert await world.removals() == []
        assert list(storage.list_files(folders["gone"])) == []
        assert sorted(each.path for each in storage.list_files(folders["kept"])) == before
    with installed(object_store.access("beta")):
        assert storage.read(other) == b"of another tenant"


async def test_a_worker_that_dies_loses_nothing_and_doubles_nothing(world: World) -> None:
    gone = await world.create("gone", "delta")
    await world.delete(gone)
    world.clock.advance(WEEK)
    assert (await world.claim()).instance_id == gone.instance_id  # dies before it removes anything
    assert await world.sweep() == 0
    assert world.folder(gone).exists()
    world.clock.advance(CLAIM.total_seconds())
    assert (await world.claim()).attempts == 2
    next(world.folder(gone).rglob("*.parquet")).unlink()  # dies in the middle
    world.clock.advance(CLAIM.total_seconds())
    assert await world.sweep() == 1
    assert not world.folder(gone).exists()
    assert await world.removals() == []


async def test_a_failed_removal_is_reported_and_succeeds_later(world: World) -> None:
    gone, alive = await world.create("gone", "parquet"), await world.create("alive", "parquet")
    link = world.folder(alive) / "refresh" / str(uuid.UUID(int=1))
    link.symlink_to(world.folder(gone) / "refresh" / "data")
    await world.delete(gone)
    world.clock.advance(WEEK)
    assert await world.sweep() == 1
    (found,) = await world.removals()
    assert (found.attempts, found.problem.partition(":")[0]) == (1, "CannotRemove")
    assert str(link) in found.problem
    assert any(world.folder(gone).rglob("*.parquet"))
    assert await world.sweep() == 0  # not again at once
    link.unlink()
    world.clock.advance(60)
    assert await world.sweep() == 1
    assert not world.folder(gone).exists()
    assert await world.removals() == []


async def test_a_sweep_does_nothing_while_the_service_is_away(world: World) -> None:
    world.address = "127.0.0.1:1"
    assert await world.sweep() == 0


# What the executor does beside runs, until the folder that is named is gone.
_KEEP_HOUSE = """
import asyncio, pathlib, sys
from worker.children import Forkserver
from worker.config import Settings
from worker.guardians import Guardians
from worker.housekeeping import keep_house

async def main():
    stop, forkserver = asyncio.Event(), Forkserver([])
    await forkserver.start()
    keeping = asyncio.create_task(keep_house(Settings(), Guardians(forkserver).start, stop))
    while pathlib.Path(sys.argv[1]).exists():
        await asyncio.sleep(0.1)
    stop.set()
    await keeping
    await forkserver.stop()

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("is_executor", [False, True])
async def test_a_worker_looks_in_a_process_of_its_own(world: World, *, is_executor: bool) -> None:
    gone = await world.create("gone", "delta")
    await world.delete(gone)
    world.clock.advance(WEEK)
    arguments = ["-m", "worker.data_sweep"]
    if is_executor:
        program = world.root.parent / "executor.py"  # a forkserver's children import it
        program.write_text(_KEEP_HOUSE, encoding="utf-8")
        arguments = [str(program), str(world.folder(gone))]
    settings = {**world.settings(), "data_removal_interval_seconds": "0.2"}
    environment = {f"OPTAIC_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, said.decode()
    assert not world.folder(gone).exists(), said.decode()
    # Its last word comes after the folder has gone.
    assert await eventually(lambda: _is_none(world))


async def _is_none(world: World) -> bool:
    return await world.removals() == []
