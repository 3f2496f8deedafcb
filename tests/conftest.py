"""Fixtures for all tests: the real servers."""

from collections.abc import Iterator

import pytest

from devstack.postgres import Postgres
from support.broker import NatsServer, nats_server
from support.postgres import running_postgres


@pytest.hookimpl(tryfirst=True)  # before the scheduler reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and all stories in one: they share a stack."""
    for item in items:
        group = "stories" if "e2e" in item.path.parts else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The session's PostgreSQL; take databases of it with `support.postgres.service_database`."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    """A NATS server of the test's own, which may kill it."""
    with nats_server() as server:
        yield server


@pytest.fixture
def nats_url(nats: NatsServer) -> str:
    """The address of the test's own NATS server."""
    return nats.url
