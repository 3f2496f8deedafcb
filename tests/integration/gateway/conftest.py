"""The four services that stand behind the gateway of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from devstack.postgres import Postgres
from support.broker import NatsAccounts
from support.control_plane import ControlPlane, control_plane
from support.methods import CONTRACTS


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def plane(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[ControlPlane]:
    del postgres_server
    settings = {service: {"auth": "tokens", "tenant_calls_per_second": 0} for service in CONTRACTS}
    async with control_plane(nats_accounts.take(), settings) as running:
        yield running
