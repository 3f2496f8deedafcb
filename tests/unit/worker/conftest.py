"""What a worker talks to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from support.sources import allowed
from support.worker import World, running_world


@pytest.fixture(autouse=True)
def _temporary_files_are_allowed() -> Iterator[None]:
    with allowed():
        yield


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as running:
        yield running
