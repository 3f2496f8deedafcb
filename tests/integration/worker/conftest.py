"""What a worker talks to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.prefect_api import PrefectApi, prefect_api
from support.worker import World, running_world


@pytest.fixture
async def prefect(prefect_url: str) -> AsyncIterator[PrefectApi]:
    async with prefect_api(prefect_url) as api:
        yield api


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as running:
        yield running
