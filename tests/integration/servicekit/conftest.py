"""The sample service's database and broker."""

from collections.abc import AsyncIterator

import pytest

from devstack.postgres import Postgres
from integration.servicekit.sample import SAMPLE_PACKAGE, make_settings
from servicekit.database import Database
from servicekit.settings import ServiceSettings
from support.broker import NatsServer
from support.postgres import service_database


@pytest.fixture
async def urls(postgres_server: Postgres) -> AsyncIterator[dict[str, str]]:  # noqa: ARG001 - it must run
    async with service_database("sample", SAMPLE_PACKAGE) as found:
        yield found


@pytest.fixture
def settings(urls: dict[str, str]) -> ServiceSettings:
    return make_settings(**urls)


@pytest.fixture
def broker_settings(urls: dict[str, str], nats: NatsServer) -> ServiceSettings:
    return make_settings(**urls, nats_url=nats.url)


@pytest.fixture
async def database(settings: ServiceSettings) -> AsyncIterator[Database]:
    database = Database(settings)
    yield database
    await database.close()
