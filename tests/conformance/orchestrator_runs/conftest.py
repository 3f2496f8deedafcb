"""The grounds on which the suite runs: the fake, and a real Prefect server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from run_service.prefect_adapter import PrefectOrchestrator
from support.orchestrator_runs import FakeGround, Ground, PrefectGround, settings_for
from support.prefect_api import prefect_api
from support.worker import running_prefect


@pytest.fixture(scope="module")
def prefect_url(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for the suite."""
    folder: Path = tmp_path_factory.mktemp("prefect")
    with running_prefect(postgres_server.host, postgres_server.admin_url, folder) as url:
        yield url


@pytest_asyncio.fixture(params=["fake", "prefect"])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """Each implementation in turn."""
    if request.param == "fake":
        yield FakeGround()
        return
    url = request.getfixturevalue("prefect_url")
    async with prefect_api(url) as api, PrefectOrchestrator(settings_for(url)) as orchestrator:
        yield PrefectGround(orchestrator, api)
