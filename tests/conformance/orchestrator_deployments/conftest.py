"""The grounds on which the suite runs: the fake, and a real Prefect server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from devstack.prefect import ensure_work_pool
from instance_service.ports import Deployments
from instance_service.prefect_adapter import PrefectDeployments
from support.counterparts import FakeDeployments

_POOL = "optaic"


@pytest.fixture(params=["fake", "prefect"])
async def deployments(request: pytest.FixtureRequest) -> AsyncIterator[Deployments]:
    """The port, by each of its implementations."""
    if request.param == "fake":
        yield FakeDeployments()
        return
    url = request.getfixturevalue("prefect_url")
    await ensure_work_pool(url, _POOL, "warm")
    adapter = PrefectDeployments(url, _POOL, 60)
    try:
        yield adapter
    finally:
        await adapter.close()
