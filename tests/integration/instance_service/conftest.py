"""The running service, for the tests of this folder."""

from collections.abc import AsyncIterator

import pytest

from devstack.postgres import Postgres
from support.instance_service import RunningInstanceService, instance_service


@pytest.fixture
async def service(postgres_server: Postgres, nats_url: str) -> AsyncIterator[RunningInstanceService]:
    """instance-service on a fresh database and broker."""
    del postgres_server
    async with instance_service(nats_url) as running:
        yield running
