"""kill -9 at every moment around a write, wherever it goes: instances end as desired, and nothing is left or doubled."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import nats
import psycopg
import pytest
from google.protobuf import json_format
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from devstack import ports
from devstack.postgres import Postgres
from devstack.prefect import ensure_work_pool
from optaic.instance.v1.instance_pb2 import Instance, Project
from optaic.instance.v1.instance_service_pb2 import (
    CreateInstanceRequest,
    CreateProjectRequest,
    DeleteInstanceRequest,
    GetInstanceRequest,
    UpdateInstanceRequest,
)
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceStub
from optaic.lineage.v1.lineage_events_pb2 import LineageCleared
from servicekit.clock import SystemClock
from servicekit.events import headers_of, make_event
from servicekit.ids import new_id
from support.boundaries import FileGate, HttpGate, Moments, NatsGate, ServerGate, SqlGate
from support.definitions import model
from support.instance_service import instance_database
from support.killable import KillableService
from support.mlflow_api import MlflowApi, mlflow_api
from support.polling import eventually
from support.postgres import admin_url
from support.prefect_api import PrefectApi, prefect_api

pytestmark = pytest.mark.faults
_DEADLINE = 60.0
_SYSTEMS = {"postgres", "prefect", "mlflow", "files", "nats"}
# What is kept of instances that are gone; the data of each is to be removed once.
_LASTING = {
    *("request_replies", "consumed_events", "data_removals", "tenants"),
    *("audit_records", "audit_seals"),
}
_CRONS = ("0 6 * * 1-5", "30 7 * * 1-5")


@dataclass
class World:
    """The service behind its gates, and what stands beyond them."""

    service: KillableService
    moments: Moments
    instances: InstanceServiceStub
    events: JetStreamContext
    prefect: PrefectApi
    mlflow: MlflowApi
    workspace: Path
    database: psycopg.AsyncConnection[tuple[Any, ...]]
    project_id: str = ""
    read: int = 0  # of the stream of events
    count_rows: str = ""

    async def call(self, method: Callable[..., Any], request: Any) -> Any:
        """Call, and repeat the same call to who comes after one that died."""

        async def attempt() -> Any:
            try:
                return await method(request, wait_for_ready=True, timeout=_DEADLINE)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return None
                raise

        return await eventually(attempt, _DEADLINE)

    async def create(self, given: dict[str, Any], **fields: Any) -> Instance:
        instance = json_format.ParseDict(given, Instance())
        request = CreateInstanceRequest(instance=instance, request_id=new_id(), **fields)
        created: Instance = await self.call(self.instances.CreateInstance, request)
        return created

    async def update(self, instance_id: str, **given: Any) -> None:
        instance = json_format.ParseDict({"instanceId": instance_id, **given}, Instance())
        request = UpdateInstanceRequest(instance=instance, request_id=new_id())
        request.update_mask.paths.extend(given)
        await self.call(self.instances.UpdateInstance, request)

    async def clear_lineage(self, instance_id: str) -> None:
        """Say what lineage-service says once it has heard of the deletion."""

        async def is_heard() -> bool:
            subject = f"optaic.default.instance.v1.deletion_requested.{instance_id}"
            with contextlib.suppress(NotFoundError):
                await self.events.get_last_msg("INSTANCE_EVENTS", subject)
                return True
            return False

        await eventually(is_heard, _DEADLINE, "not published")
        message = LineageCleared(instance_id=instance_id)
        event = make_event("lineage", "default", message, "cleared", instance_id, SystemClock(), new_id)
        await self.events.publish(event.subject, event.payload, headers=headers_of(event))

    async def new_events(self) -> list[tuple[str, str, str]]:
        """Return (what happened, to which instance, event id) of what came into the stream since the last time."""
        found = []
        with contextlib.suppress(NotFoundError):
            while True:
                message = await self.events.get_msg(
                    "INSTANCE_EVENTS", seq=self.read + 1, subject="optaic.*.instance.v1.>", next=True
                )
                assert message.seq is not None
                assert message.headers is not None
                self.read = message.seq
                *_, happened, resource_id = str(message.subject).split(".")
                found.append((happened, resource_id, message.headers["ce-id"]))
        return found

    async def rows(self) -> set[tuple[Any, ...]]:
        """Return (table, how many rows it has) for each."""
        if not self.count_rows:
            query = "select table_name from information_schema.tables where table_schema = 'public'"
            tables = {str(row[0]) for row in await (await self.database.execute(query)).fetchall()} - _LASTING
            self.count_rows = " union all ".join(f"select '{one}', count(*) from {one}" for one in tables)  # noqa: S608 - names of tables
        return set(await (await self.database.execute(self.count_rows.encode())).fetchall())

    async def count(self, query: Any, *parameters: object) -> int:
        row = await (await self.database.execute(query, parameters)).fetchone()
        assert row is not None
        return int(row[0])

    async def has_published(self) -> bool:
        return await self.count("select count(*) from outbox") == 0

    async def is_settled(self, *instance_ids: str) -> bool:
        """Return whether all are ACTIVE with nothing left to do."""
        query = (
            "select count(*) from instances join reconciliations using (tenant_id, instance_id) "
            "where instance_id = any(cast(%s as uuid[])) and state = 'active' and due_time is null"
        )
        return await self.count(query, list(instance_ids)) == len(instance_ids)

    async def deployments(self, instance_id: str) -> list[Any]:
        query = {"deployments": {"tags": {"all_": [f"instance:{instance_id}"]}}}
        return list(await self.prefect.call("POST", "/deployments/filter", query))

    async def left(self) -> set[str]:
        """Return the names of all that outside systems hold, whoever's it is."""
        found = await self.prefect.call("POST", "/deployments/filter", {"limit": 200})
        experiments = await self.mlflow.live(".")
        folders = [path.name for path in self.workspace.iterdir()]
        return {item["name"] for item in [*found, *experiments]} | set(folders)


@pytest.fixture
async def world(
    postgres_server: Postgres, nats_url: str, prefect_url: str, mlflow_url: str, tmp_path: Path
) -> AsyncIterator[World]:
    del postgres_server
    await ensure_work_pool(prefect_url, "optaic", "warm")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        urls = await stack.enter_async_context(instance_database())
        name = urls["database_url"].rpartition("/")[2]
        database = await stack.enter_async_context(
            await psycopg.AsyncConnection.connect(admin_url(name), autocommit=True)
        )

        async def let_leases_end() -> None:
            """Be after the time for which the dead process had claimed work."""
            await database.execute("update reconciliations set due_time = now() where due_time > now()")

        def kill() -> None:
            service.kill()

        moments = Moments(kill)
        gates: list[ServerGate] = [
            SqlGate(urls[key], moments) for key in ("database_url", "database_infra_url")
        ]
        gates += [
            NatsGate(nats_url, moments),
            HttpGate("prefect", prefect_url, moments),
            HttpGate("mlflow", mlflow_url, moments),
        ]
        files = await stack.enter_async_context(FileGate(moments))
        app, infra, broker, prefect, mlflow = [(await stack.enter_async_context(gate)).url for gate in gates]
        port = ports.find_free()
        environment = {
            "DATABASE_URL": app,
            "DATABASE_INFRA_URL": infra,
            "DATABASE_OWNER_URL": urls["database_owner_url"],
            "NATS_URL": broker,
            "PREFECT_API_URL": prefect,
            "MLFLOW_URL": mlflow,
            "EVIDENTLY_WORKSPACE": str(workspace),
            "LISTEN": f"127.0.0.1:{port}",
            "RECONCILE_INTERVAL_SECONDS": "0.1",
            "DRIFT_INTERVAL_SECONDS": "3600",  # what is repaired is repaired by those who were to do it
        }
        service = KillableService(
            {f"OPTAIC_{key}": value for key, value in environment.items()},
            files.port,
            tmp_path,
            let_leases_end,
        )
        client = await nats.connect(nats_url)
        stack.push_async_callback(client.close)
        jetstream = client.jetstream()
        await jetstream.add_stream(name="LINEAGE_EVENTS", subjects=["optaic.*.lineage.v1.>"])
        await service.start()
        stack.push_async_callback(service.stop)
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        )
        world = World(
            service,
            moments,
            InstanceServiceStub(channel),
            jetstream,
            await stack.enter_async_context(prefect_api(prefect_url)),
            await stack.enter_async_context(mlflow_api(mlflow_url)),
            workspace,
            database,
        )
        request = CreateProjectRequest(project=Project(name="research"))
        world.project_id = (await world.call(world.instances.CreateProject, request)).project_id
        yield world


def _schedule(cron: str) -> dict[str, Any]:
    return {"cron": {"expression": cron, "timezone": "UTC"}}


def _prices(world: World, cron: str) -> dict[str, Any]:
    pipeline = {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}
    return {
        "projectId": world.project_id,
        "name": "prices",
        "dataset": {"pipeline": pipeline},
        "schedule": _schedule(cron),
    }


async def _live(world: World, chosen: int) -> str:
    """Two lives from creation to deletion, with a kill at the chosen moment; return the moment, if it was reached."""
    await eventually(world.has_published, _DEADLINE, "not published")
    before = await world.rows()
    world.moments.begin(chosen)
    prices = (await world.create(_prices(world, _CRONS[0]))).instance_id
    given = model(world.project_id, "ridge", prices, definitionName="ridge")
    ridge = (await world.create(given)).instance_id
    await eventually(lambda: world.is_settled(prices, ridge), _DEADLINE, "not created")
    await _check(world, prices, ridge, _CRONS[0], "ridge")
    await world.update(prices, schedule=_schedule(_CRONS[1]))
    await world.update(ridge, name="lasso")
    await eventually(lambda: world.is_settled(prices, ridge), _DEADLINE, "not updated")
    await _check(world, prices, ridge, _CRONS[1], "lasso")
    request = DeleteInstanceRequest(instance_id=prices, cascade=True, request_id=new_id())
    await world.call(world.instances.DeleteInstance, request)
    for instance_id in (ridge, prices):
        await world.clear_lineage(instance_id)

    async def is_gone() -> bool:
        return await world.rows() == before

    try:
        await eventually(is_gone, _DEADLINE)
    except AssertionError as error:
        raise AssertionError(f"rows are left: {sorted(await world.rows() - before)}") from error
    moment = world.moments.end()
    await _check_gone(world, prices, ridge)
    # The name is free.
    await world.create(_prices(world, _CRONS[0]), validate_only=True)
    return moment


async def _check(world: World, prices: str, ridge: str, cron: str, name: str) -> None:
    """One counterpart for each, as desired, and known to its instance."""
    found = [
        await world.call(world.instances.GetInstance, GetInstanceRequest(instance_id=instance_id))
        for instance_id in (prices, ridge)
    ]
    deployments = [await world.deployments(instance_id) for instance_id in (prices, ridge)]
    assert [len(group) for group in deployments] == [1, 3]
    assert [item["schedule"]["cron"] for item in deployments[0][0]["schedules"]] == [cron]
    assert [{flow.prefect_deployment_id for flow in one.flows} for one in found] == [
        {item["id"] for item in group} for group in deployments
    ]
    (experiment,) = await world.mlflow.live(ridge)
    assert experiment["name"] == f"{name}.{ridge}"
    assert found[1].model.mlflow_experiment_id == experiment["experiment_id"]
    assert found[1].model.evidently_project_id == ridge
    assert [path.name for path in world.workspace.iterdir() if not path.name.startswith(".")] == [ridge]
    assert f'"name": "{name}"' in (world.workspace / ridge / "metadata.json").read_text()


async def _check_gone(world: World, prices: str, ridge: str) -> None:
    for instance_id in (prices, ridge):
        assert await world.deployments(instance_id) == []
    assert await world.mlflow.live(ridge) == []
    assert [path.name for path in world.workspace.iterdir() if not path.name.startswith(".")] == []
    query = "select count(*) from data_removals where instance_id = any(cast(%s as uuid[]))"
    assert await world.count(query, [prices, ridge]) == 2
    events = await world.new_events()
    assert max(Counter(events).values()) == 1
    happened = Counter((what, instance_id) for what, instance_id, _ in events)
    assert {one for _, one in happened} == {prices, ridge}
    for what in ("created", "updated", "deletion_requested", "deleted"):
        assert [happened[what, instance_id] for instance_id in (prices, ridge)] == [1, 1], (what, happened)


def _some(moments: list[str]) -> Iterator[int]:
    """Choose one moment of each system; not an acknowledgement, of which the broker takes half a minute to despair."""
    rng = random.Random(3)
    for system in sorted(_SYSTEMS):
        yield rng.choice([at for at, moment in enumerate(moments, 1) if moment.startswith(f"{system}:")])


async def test_killed_at_any_moment_instances_end_as_desired(world: World) -> None:
    left = await world.left()
    assert await _live(world, 0) == ""
    rehearsed = list(world.moments.passed)
    assert {moment.partition(":")[0] for moment in rehearsed} >= _SYSTEMS
    is_full = os.environ.get("OPTAIC_FAULTS") == "full"
    for chosen in itertools.count(1) if is_full else _some(rehearsed):
        began = time.monotonic()
        moment = await _live(world, chosen)
        print(f"{chosen:4} {time.monotonic() - began:5.1f} s  {moment}")  # noqa: T201 - the log of a campaign
        if not moment:
            assert is_full, f"{chosen} was not reached"
            assert chosen > len(rehearsed) / 2
            break
    # What a kill left half made in the workspace goes as soon as it is old enough that nobody is at work on it.
    for path in world.workspace.iterdir():
        os.utime(path, (0, 0))
    world.service.kill()

    async def is_clean() -> bool:
        return await world.left() <= left

    await eventually(is_clean, _DEADLINE, "something is left")
