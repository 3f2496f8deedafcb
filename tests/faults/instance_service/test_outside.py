"""Each outside system fails in each way at each step: instances end ACTIVE or gone, with one counterpart each, or none."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from devstack.postgres import Postgres
from devstack.prefect import ensure_work_pool
from instance_service.evidently_adapter import EvidentlyProjects
from instance_service.mlflow_adapter import MlflowExperiments
from instance_service.ports import OutsideUnavailableError
from instance_service.prefect_adapter import PrefectDeployments
from instance_service.store import queue
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import DeleteInstanceRequest
from support.definitions import model, publish
from support.http_faults import Fault, HttpFaults
from support.instance_service import RunningInstanceService, running
from support.mlflow_api import mlflow_api
from support.polling import eventually
from support.postgres import service_database

pytestmark = pytest.mark.faults
SYSTEMS = ("prefect", "mlflow", "evidently")
STEPS = ("create", "update", "delete")
FAULTS: tuple[Fault, ...] = ("down", "slow", "500", "lost")
_ROUNDS = 20
_TIMEOUT = 1.0
_T = TypeVar("_T")


class FaultyProjects(EvidentlyProjects):
    """The real adapter on a workspace that is struck like a server behind `HttpFaults`."""

    def __init__(self, workspace: Path) -> None:
        super().__init__(workspace, _TIMEOUT)
        self._faults = HttpFaults("")
        self.strike, self.heal = self._faults.strike, self._faults.heal

    @property
    def struck(self) -> int:
        return self._faults.struck

    async def _run(self, work: Callable[[], _T]) -> _T:
        fault = self._faults._next()
        if fault == "slow":
            await asyncio.sleep(_TIMEOUT)  # as long as the adapter has patience
        if fault is None:
            return await super()._run(work)
        if fault == "lost":
            await super()._run(work)
        raise OutsideUnavailableError("EvidentlyUnavailable", fault)


@dataclass
class World:
    """The service on real systems, all of which can be struck."""

    service: RunningInstanceService
    strikers: dict[str, HttpFaults | FaultyProjects]
    workspace: Path
    prefect_url: str
    mlflow_url: str
    project_id: str
    prices_id: str

    async def deployments(self, instance_id: str) -> int:
        """How many there are of an instance."""
        query = {"deployments": {"tags": {"all_": [f"instance:{instance_id}"]}}}
        async with httpx.AsyncClient(base_url=self.prefect_url, timeout=30, trust_env=False) as client:
            return len((await client.post("/deployments/filter", json=query)).raise_for_status().json())

    async def experiments(self, instance_id: str) -> int:
        """How many there are of an instance that are not archived."""
        async with mlflow_api(self.mlflow_url) as api:
            return len(await api.live(instance_id))

    async def counterparts(self, instance_id: str) -> tuple[int, int, int]:
        """How many deployments, experiments and projects there are of an instance."""
        projects = await asyncio.to_thread(lambda: list(self.workspace.glob(f"{instance_id}*/metadata.json")))
        return (await self.deployments(instance_id), await self.experiments(instance_id), len(projects))


@pytest.fixture
async def world(
    postgres_server: Postgres, nats_url: str, prefect_url: str, mlflow_url: str, tmp_path: Path
) -> AsyncIterator[World]:
    del postgres_server
    await ensure_work_pool(prefect_url, "optaic", "warm")
    async with contextlib.AsyncExitStack() as stack:
        urls = await stack.enter_async_context(service_database("instance", "instance_service"))
        prefect = await stack.enter_async_context(HttpFaults(prefect_url))
        mlflow = await stack.enter_async_context(HttpFaults(mlflow_url))
        deployments = PrefectDeployments(prefect.url, "optaic", _TIMEOUT)
        stack.push_async_callback(deployments.close)
        experiments = MlflowExperiments(mlflow.url, _TIMEOUT)
        stack.push_async_callback(experiments.close)
        projects = FaultyProjects(tmp_path)
        service = await stack.enter_async_context(
            # Drift is looked for rarely: what is repaired is repaired by those who were to do it.
            running(nats_url, urls, deployments, experiments, projects, drift_interval_seconds=3600)
        )
        project = await service.project()
        await publish(service, "linear")
        prices = await service.prices(project.project_id)
        await service.until_active(prices.instance_id)
        strikers: dict[str, Any] = {"prefect": prefect, "mlflow": mlflow, "evidently": projects}
        yield World(
            service, strikers, tmp_path, prefect_url, mlflow_url, project.project_id, prices.instance_id
        )


def _cases() -> Sequence[tuple[str, str, Fault, random.Random]]:
    every = list(itertools.product(SYSTEMS, STEPS, FAULTS))
    if os.environ.get("OPTAIC_FAULTS") == "full":
        return [(*case, random.Random(number)) for case in every for number in range(_ROUNDS)]
    # Each fault, system and step once.
    some: list[tuple[str, str, Fault]] = [
        ("mlflow", "create", "lost"),
        ("prefect", "update", "500"),
        ("evidently", "delete", "slow"),
        ("mlflow", "delete", "down"),
    ]
    return [(*case, random.Random(number)) for number, case in enumerate(some)]


async def test_whatever_fails_instances_end_as_desired(world: World) -> None:
    struck = 0
    for number, (system, step, fault, rng) in enumerate(_cases()):
        striker = world.strikers[system]
        after, times = rng.randrange(4), rng.randint(1, 3)
        case = f"{system}, {step}, {fault}, after {after} calls, {times} times"
        strike = functools.partial(striker.strike, fault, after=after, times=times)
        await _live(world, f"m{number}", case, {step: strike})
        struck += striker.struck
        striker.heal()
    assert struck


async def _live(world: World, name: str, case: str, strikes: Mapping[str, Callable[[], None]]) -> None:
    """A life from creation to deletion, and the beginning of another under the same name."""
    service = world.service
    given = model(world.project_id, name, world.prices_id)

    def nothing() -> None:
        """Let the step be."""

    strikes.get("create", nothing)()
    made = await service.create(given)
    await _until_active(service, made, case)
    strikes.get("update", nothing)()
    await service.update(made.instance_id, {"name": f"{name}x"}, "name")
    await _until_active(service, made, case)
    assert await world.counterparts(made.instance_id) == (3, 1, 1), case
    strikes.get("delete", nothing)()
    await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=made.instance_id))
    await service.clear_lineage(made.instance_id)
    again = await service.create({**given, "name": f"{name}x"})

    async def is_gone() -> bool:
        return await world.counterparts(made.instance_id) == (0, 0, 0)

    await eventually(is_gone, 60, case)
    await _until_active(service, again, case)
    assert await world.counterparts(again.instance_id) == (3, 1, 1), case


async def _until_active(service: RunningInstanceService, made: Instance, case: str) -> None:
    """ACTIVE, and nothing left to do."""

    async def is_settled() -> bool:
        async with service.app.environment.database.read("default") as connection:
            return await queue.is_settled(connection, "default", made.instance_id)

    await eventually(is_settled, 60, case)
    await service.until_active(made.instance_id)
