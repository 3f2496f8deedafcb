"""The services that stand behind the gateway of these tests: all four, or run-service alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from devstack.postgres import Postgres
from support.broker import NatsAccounts
from support.control_plane import ControlPlane, control_plane
from support.methods import CONTRACTS
from support.run_service import RunningRunService, run_service


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def plane(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[ControlPlane]:
    del postgres_server
    settings = {service: {"auth": "tokens", "tenant_calls_per_second": 0} for service in CONTRACTS}
    async with control_plane(nats_accounts.take(), settings) as running:
        yield running


@pytest_asyncio.fixture
async def service(
    postgres_server: Postgres, nats_url: str, tmp_path: Path
) -> AsyncIterator[RunningRunService]:
    """run-service alone, whose data lies in the test's folder."""
    del postgres_server
    async with run_service(nats_url, data_root=str(tmp_path)) as running:
        yield running
