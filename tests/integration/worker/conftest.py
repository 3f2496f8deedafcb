"""A real Prefect server for this folder, and worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from devstack.postgres import Postgres
from support.prefect_api import PrefectApi, prefect_api
from support.worker import World, running_prefect, running_world


@pytest.fixture(scope="module")
def prefect_url(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("prefect")
    with running_prefect(postgres_server.host, postgres_server.admin_url, folder) as url:
        yield url


@pytest.fixture
async def prefect(prefect_url: str) -> AsyncIterator[PrefectApi]:
    async with prefect_api(prefect_url) as api:
        yield api


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as running:
        yield running
