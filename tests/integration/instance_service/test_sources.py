"""How a file's URL may never be written is refused when an instance is created, and not only by its first run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from devstack.postgres import Postgres
from support.instance_service import RunningInstanceService, instance_service


@pytest.fixture
async def service(postgres_server: Postgres, nats_url: str) -> AsyncIterator[RunningInstanceService]:
    """The running service."""
    del postgres_server
    async with instance_service(nats_url) as running:
        yield running


async def test_a_chained_url_or_an_unknown_option_is_refused_at_creation(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    for config, field in (
        ({"url": "simplecache::https://a.example/b.csv"}, "config.url"),
        ({"url": "memory://b.csv"}, "config.url"),
        ({"url": "https://a.example/b.csv", "storage_options": {"cache_storage": "/x"}}, "cache_storage"),
    ):
        dataset = {"pipeline": {"definitionName": "file", "config": config}}
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.create({"projectId": project.project_id, "name": "x", "dataset": dataset})
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in str(refused.value.trailing_metadata()) + str(refused.value.details())
