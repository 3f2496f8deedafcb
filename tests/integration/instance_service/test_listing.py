"""What a page of instances costs the database: what is on it, not what there is."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bench.population import Template, multiply, name_of
from devstack.postgres import Postgres
from instance_service.store.listing import Selection, page_of
from optaic.instance.v1.instance_service_pb2 import PauseInstanceRequest
from support.definitions import experiment, publish
from support.explain import Explain, rows_read
from support.instance_service import TENANT, RunningInstanceService, instance_service
from support.postgres import admin_url

_MANY, _FEW, _PAGE = 3_000, 5, 20


@pytest.fixture
async def service(postgres_server: Postgres, nats_url: str) -> AsyncIterator[RunningInstanceService]:
    """A service that does not look for the deployments that copies do not have."""
    del postgres_server
    async with instance_service(nats_url, drift_interval_seconds=3600) as running:
        yield running


@pytest.fixture
async def needle(service: RunningInstanceService) -> dict[str, str]:
    """Many datasets and, in a project of their own, a few paused experiments; what the few are found by."""
    await publish(service, "BLEND")
    large, small = await service.project(), await service.project("small")
    prices = await service.prices(large.project_id, f"{name_of(0)}.prices", labels={"team": "a"}, owner="ann")
    given = experiment(small.project_id, f"{name_of(0)}.few", prices.instance_id)
    few = await service.create(given | {"labels": {"team": "b"}, "owner": "bob"})
    await service.instances.PauseInstance(PauseInstanceRequest(instance_id=few.instance_id))
    await multiply(
        admin_url(service.owner_url.rpartition("/")[2]),
        [Template(prices.instance_id, _MANY), Template(few.instance_id, _FEW)],
    )
    return {"project_id": small.project_id, "definition_id": few.definition_id}


async def test_a_page_of_a_list_reads_only_its_own_rows(
    service: RunningInstanceService, needle: dict[str, str]
) -> None:
    position = (name_of(5_000_000), "00000000-0000-0000-0000-000000000000")
    selections: list[dict[str, Any]] = [
        {},
        {"kinds": ["dataset", "experiment"]},
        {"states": ["active", "degraded", "paused"]},
        {"labels": {"team": "a"}},
        {"kinds": ["experiment"]},
        {"kinds": ["pipeline"]},
        {"states": ["paused"]},
        {"owner": "bob"},
        {"labels": {"team": "b"}},
        {"labels": {"team": "nobody"}},
        {"definition_id": needle["definition_id"]},
        {"project_id": needle["project_id"]},
        {"definition_id": needle["definition_id"], "labels": {"team": "b"}, "kinds": ["experiment", "model"]},
    ]
    for selection in selections:
        for after in (None, position):
            query = page_of(TENANT, Selection(**selection), after, _PAGE)
            async with service.app.deps.database.read(TENANT) as connection:
                plan = (await connection.execute(Explain(query))).scalar_one()[0]["Plan"]
            # Every row goes through a handful of nodes; all instances would be thousands.
            assert rows_read(plan) <= 12 * _PAGE, (selection, after, plan)
