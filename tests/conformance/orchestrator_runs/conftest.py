"""The grounds on which the suite runs: the fake, and a real Prefect server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from run_service.prefect_adapter import PrefectOrchestrator
from support.orchestrator_runs import FakeGround, Ground, PrefectGround, settings_for
from support.prefect_api import prefect_api


@pytest_asyncio.fixture(params=["fake", "prefect"])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """Each implementation in turn."""
    if request.param == "fake":
        yield FakeGround()
        return
    url = request.getfixturevalue("prefect_url")
    async with prefect_api(url) as api, PrefectOrchestrator(settings_for(url)) as orchestrator:
        yield PrefectGround(orchestrator, api)
