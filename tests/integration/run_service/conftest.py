"""Fixtures with a run-service for each test; the loops do not run, so that tests execute their steps one by one."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from support.run_service import RunningRunService, run_service
from support.workshop import Workshop


@pytest_asyncio.fixture
async def service(postgres_server: Postgres, nats_url: str) -> AsyncIterator[RunningRunService]:
    """The service without loops."""
    del postgres_server
    async with run_service(nats_url) as running:
        yield running


@pytest_asyncio.fixture
async def live_service(postgres_server: Postgres, nats_url: str) -> AsyncIterator[RunningRunService]:
    """The service with its relay, consumers and loops."""
    del postgres_server
    async with run_service(nats_url, has_loops=True) as running:
        yield running


@pytest.fixture
def workshop(service: RunningRunService) -> Workshop:
    """The service without loops, and a worker."""
    return Workshop(service)
