"""Each outside system fails in each way at each step: instances end ACTIVE or gone, with one counterpart each, or none."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
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
from instance_service.use_cases.instances import reading
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import DeleteInstanceRequest
from support.definitions import model, publish
from support.http_faults import Fault, HttpFaults
from support.instance_service import RunningInstanceService, instance_database, running
from support.mlflow_api import mlflow_api
from support.polling import eventually
from support.tls_context import shared_context

pytestmark = pytest.mark.faults
SYSTEMS = ("prefect", "mlflow", "evidently")
STEPS = ("create", "update", "delete")
FAULTS: tuple[Fault, ...] = ("down", "slow", "500", "lost")
_ROUNDS = 20
_TOGETHER = 10  # instances, each for a round: they share the calls, and what befalls them
_TIMEOUT = 5.0  # servers that share a busy machine with all their clients are not always quick
_EVIDENTLY_TIMEOUT = 1.0
_DEADLINE = 90.0
_DAILY = {"cron": {"expression": "0 6 * * *", "timezone": "UTC"}}
_T = TypeVar("_T")


class FaultyProjects(EvidentlyProjects):
    """The real adapter on a workspace that is struck like a server behind `HttpFaults`."""

    def __init__(self, workspace: Path) -> None:
        super().__init__(workspace, _EVIDENTLY_TIMEOUT)
        self._faults = HttpFaults("")
        self.strike = self._faults.strike
        self._healed = threading.Event()

    def heal(self) -> None:
        """Let everything pass, also what hangs."""
        self._faults.heal()
        self._healed.set()
        self._healed = threading.Event()

    @property
    def struck(self) -> int:
        return self._faults.struck

    async def _run(self, work: Callable[[], _T]) -> _T:
        fault = self._faults._next()
        if fault is None:
            return await super()._run(work)
        if fault == "slow":
            await super()._run(
                self._healed.wait
            )  # longer than the adapter has patience, in a thread of its own
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
        async with httpx.AsyncClient(
            base_url=self.prefect_url, timeout=30, trust_env=False, verify=shared_context()
        ) as client:
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
        urls = await stack.enter_async_context(instance_database())
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


def _cases() -> Sequence[tuple[str, str, Fault, int, random.Random]]:
    """Each with how many instances are at it together."""
    every = list(itertools.product(SYSTEMS, STEPS, FAULTS))
    if os.environ.get("OPTAIC_FAULTS") == "full":
        groups = range(_ROUNDS // _TOGETHER)
        return [(*case, _TOGETHER, random.Random(f"{case} {number}")) for number in groups for case in every]
    # Each fault, system and step once.
    some: list[tuple[str, str, Fault]] = [
        ("mlflow", "create", "lost"),
        ("prefect", "update", "500"),
        ("evidently", "delete", "slow"),
        ("mlflow", "delete", "down"),
    ]
    return [(*case, 1, random.Random(number)) for number, case in enumerate(some)]


async def test_instances_reach_their_desired_state_despite_every_failure(world: World) -> None:
    for number, (system, step, fault, together, rng) in enumerate(_cases()):
        began = time.monotonic()
        striker = world.strikers[system]
        # At least as many calls does each step make, the reads before the writes.
        calls = 1 if system == "evidently" else 1 + together
        after, times = rng.randrange(calls), rng.randint(1, 3)
        case = f"{system}, {step}, {fault}, after {after} calls, {times} times"
        strike = functools.partial(striker.strike, fault, after=after, times=times)
        names = [f"m{number}-{one}" for one in range(together)]
        await _live(world, names, case, {step: _striking(striker, strike, case)})
        print(f"{number:4} {time.monotonic() - began:5.1f} s  {case}, struck {striker.struck}", flush=True)  # noqa: T201 - the log of a campaign


@contextlib.contextmanager
def _striking(striker: HttpFaults | FaultyProjects, strike: Callable[[], None], case: str) -> Iterator[None]:
    """Strike a step, which is over when the block is; fail where nothing was hit until then."""
    strike()
    yield
    assert striker.struck, case
    striker.heal()


async def _live(
    world: World, names: Sequence[str], case: str, strikes: Mapping[str, AbstractContextManager[None]]
) -> None:
    """Lives from creation to deletion, side by side, and the beginning of others under the same names."""
    service = world.service
    given = [model(world.project_id, name, world.prices_id) for name in names]
    nothing = contextlib.nullcontext()

    with strikes.get("create", nothing):
        made = await asyncio.gather(*map(service.create, given))
        await _until_active(world, made, case)
    with strikes.get("update", nothing):
        await asyncio.gather(
            *(
                service.update(
                    one.instance_id, {"name": f"{one.name}x", "schedule": _DAILY}, "name", "schedule"
                )
                for one in made
            )
        )
        await _until_active(world, made, case)

    async def are_gone() -> bool:
        ids = [one.instance_id for one in made]
        return not await reading.load_instances(service.app.deps, "default", ids)

    with strikes.get("delete", nothing):
        for one in made:
            await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=one.instance_id))
            await service.clear_lineage(one.instance_id)
        await eventually(are_gone, _DEADLINE, case)
    for one in made:
        assert await world.counterparts(one.instance_id) == (0, 0, 0), case
    again = await asyncio.gather(*(service.create({**one, "name": f"{one['name']}x"}) for one in given))
    await _until_active(world, again, case)


async def _until_active(world: World, made: Sequence[Instance], case: str) -> None:
    """ACTIVE with one counterpart each, and nothing left to do."""
    service = world.service

    async def are_settled() -> bool:
        async with service.app.deps.database.read("default") as connection:
            return all([await queue.is_settled(connection, "default", one.instance_id) for one in made])

    await eventually(are_settled, _DEADLINE, case)
    for one in made:
        await service.until_active(one.instance_id)
        assert await world.counterparts(one.instance_id) == (3, 1, 1), case
