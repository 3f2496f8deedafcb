"""The grounds on which the suite runs: the fake, and a real Prefect server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from devstack.prefect import ensure_work_pool
from instance_service.ports import Deployments
from instance_service.prefect_adapter import PrefectDeployments
from support.counterparts import FakeDeployments
from support.prefect_api import prefect_api

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


@pytest.fixture
async def edit(
    request: pytest.FixtureRequest, deployments: Deployments
) -> AsyncIterator[Callable[[str, str, dict[str, Any]], Awaitable[object]]]:
    """Changes a deployment, by name and id, as a user of Prefect does; in the fake it is then just not as desired."""
    if isinstance(deployments, FakeDeployments):

        async def edit_fake(name: str, _deployment_id: str, _changes: dict[str, Any]) -> None:
            deployments.edit(name, tags=())

        yield edit_fake
        return
    async with prefect_api(request.getfixturevalue("prefect_url")) as api:
        yield lambda _, deployment_id, changes: api.call("PATCH", f"/deployments/{deployment_id}", changes)
