"""A tenant has at most as many instances, and stores at most as many bytes, as it may."""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from instance_service.store.usage import Usage, get_usage
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import CreateInstanceRequest, DeleteInstanceRequest
from servicekit.status import from_rpc_error
from support.identities import Signed, caller
from support.instance_service import RunningInstanceService, instance_service
from support.polling import eventually

pytestmark = pytest.mark.usefixtures("postgres_server")
_STORED = sa.text("""
    select (select count(*) from instances where owner_instance_id is null), (
        select sum(octet_length(snapshot)) from (
            select snapshot from instance_revisions union all select snapshot from definition_versions
            union all select snapshot from projects union all select snapshot from role_bindings
        ) as stored
    )
""")


@asynccontextmanager
async def limited(nats_url: str, **limits: int) -> AsyncIterator[RunningInstanceService]:
    """Run the service with tokens and limits; its client is a maintainer of the tenant `default`."""
    async with instance_service(nats_url, auth="tokens", **limits) as service:
        stub: Any = Signed(service.instances, caller("maintainer"))
        yield replace(service, instances=stub)


async def usage(service: RunningInstanceService) -> Usage:
    """Return what is counted; compare it with what is there."""
    async with service.app.deps.database.read("default") as connection:
        counted = await get_usage(connection, "default")
        instances, stored = (await connection.execute(_STORED)).one()
    assert counted == Usage(instances, int(stored))
    return counted


async def reasons(*calls: Any) -> Counter[str]:
    """Return how many of the calls were refused, by their reason."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(
        from_rpc_error(each).reason if isinstance(each, grpc.aio.AioRpcError) else type(each).__name__
        for each in results
    )


async def test_instances_created_at_once_are_admitted_up_to_the_limit(nats_url: str) -> None:
    async with limited(nats_url, tenant_instances=5) as service:
        project = await service.project()
        created = await reasons(*(service.prices(project.project_id, f"prices{n}") for n in range(40)))
        assert created == {"Instance": 5, "TOO_MANY_INSTANCES": 35}
        assert (await usage(service)).instances == 5


async def test_a_deleted_instance_makes_room(nats_url: str) -> None:
    async with limited(nats_url, tenant_instances=1) as service:
        project = await service.project()
        prices = await service.prices(project.project_id)
        assert await reasons(service.prices(project.project_id, "second")) == {"TOO_MANY_INSTANCES": 1}
        renamed = await service.update(prices.instance_id, {"name": "renamed"}, "name")
        await service.instances.DeleteInstance(
            DeleteInstanceRequest(instance_id=prices.instance_id, etag=renamed.etag)
        )
        await service.clear_lineage(prices.instance_id)

        async def is_gone() -> bool:
            return (await usage(service)).instances == 0

        await eventually(is_gone)
        await service.prices(project.project_id, "second")


async def test_validate_only_is_refused_alike_and_counts_nothing(nats_url: str) -> None:
    async with limited(nats_url, tenant_instances=1) as service:
        project = await service.project()
        before = await usage(service)
        given = Instance(project_id=project.project_id, name="x")
        given.dataset.pipeline.definition_name = "sp500_prices"
        request = CreateInstanceRequest(instance=given, validate_only=True)
        await service.instances.CreateInstance(request)
        assert await usage(service) == before
        await service.prices(project.project_id)
        assert await reasons(service.instances.CreateInstance(request)) == {"TOO_MANY_INSTANCES": 1}


async def test_what_a_tenant_stores_is_bounded(nats_url: str) -> None:
    async with limited(nats_url, tenant_stored_bytes=200_000) as service:
        project = await service.project()
        before = await usage(service)
        assert before.bytes < 200_000, "the built-in definitions fit"
        prices = await service.prices(project.project_id)
        refused: Counter[str] = Counter()
        for number in range(100):
            refused = await reasons(
                service.update(prices.instance_id, {"description": f"{number:05}" * 800}, "description")
            )
            if "TOO_MUCH_STORED" in refused:
                break
        assert refused == {"TOO_MUCH_STORED": 1}
        assert 190_000 < (await usage(service)).bytes <= 200_000
        assert await reasons(service.prices(project.project_id, "x", description="y" * 4_000)) == {
            "TOO_MUCH_STORED": 1
        }


async def test_what_was_stored_before_the_counting_is_counted(nats_url: str) -> None:
    migration = importlib.import_module("instance_service.migrations.202611281045_usage")
    async with limited(nats_url, tenant_instances=1) as service:
        project = await service.project()
        await service.prices(project.project_id)
        before = await usage(service)
        engine = sa.create_engine(service.owner_url, poolclass=sa.NullPool)
        with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
            migration.downgrade()
            migration.upgrade()
        assert await usage(service) == before
        assert await reasons(service.prices(project.project_id, "second")) == {"TOO_MANY_INSTANCES": 1}
