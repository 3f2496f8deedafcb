"""A worker looks now and then whether data is to be removed, until it stops; a look that fails is not the last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from support.polling import eventually
from worker.children import Forkserver
from worker.config import Settings
from worker.housekeeping import remove_leftovers


class FakeChild:
    """Has ended already."""

    async def wait(self) -> int:
        """Say so."""
        return 0


class FakeForkserver:
    """Counts what it is asked to run; the first time it has no process to give."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []

    async def run(self, *given: Any) -> FakeChild:
        """Run nothing."""
        self.given.append(given)
        if len(self.given) == 1:
            raise OSError("no process")
        return FakeChild()


def settings(tmp_path: Path, seconds: float) -> Settings:
    return Settings(
        instance_address="unused",
        run_address="unused",
        data_root=str(tmp_path),
        data_removal_interval_seconds=seconds,
    )


async def test_it_looks_again_and_again_until_it_stops(tmp_path: Path) -> None:
    forkserver, stop = FakeForkserver(), asyncio.Event()
    keeping = asyncio.create_task(
        remove_leftovers(settings(tmp_path, 0.01), cast("Forkserver", forkserver), stop)
    )
    await eventually(lambda: len(forkserver.given) > 2)
    stop.set()
    await asyncio.wait_for(keeping, 10)
    assert {given[1:] for given in forkserver.given} == {("INFO",)}


@pytest.mark.parametrize("seconds", [1.0, 3600.0])
async def test_a_worker_that_stops_at_once_has_not_looked(tmp_path: Path, seconds: float) -> None:
    forkserver, stop = FakeForkserver(), asyncio.Event()
    stop.set()
    await asyncio.wait_for(
        remove_leftovers(settings(tmp_path, seconds), cast("Forkserver", forkserver), stop), 10
    )
    assert forkserver.given == []
