"""A worker looks now and then whether data is to be removed, until it stops; a look that fails is not the last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support.polling import eventually
from worker.config import Settings
from worker.guardian import Line
from worker.housekeeping import keep_house


class FakeSweep:
    """Counts its calls; the first fails."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []

    async def __call__(self, *given: Any) -> int:
        """Remove nothing."""
        self.given.append(given)
        if len(self.given) == 1:
            raise OSError("no process")
        return 0


async def start_guardian() -> Line:
    raise NotImplementedError


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> FakeSweep:
    fake = FakeSweep()
    monkeypatch.setattr("worker.housekeeping.sweep", fake)
    return fake


def settings(tmp_path: Path, seconds: float) -> Settings:
    return Settings(
        instance_address="127.0.0.1:1",
        run_address="127.0.0.1:1",
        executor_token="unused",
        data_root=str(tmp_path),
        data_removal_interval_seconds=seconds,
    )


async def test_it_looks_again_and_again_until_it_stops(tmp_path: Path, sweep: FakeSweep) -> None:
    stop = asyncio.Event()
    keeping = asyncio.create_task(keep_house(settings(tmp_path, 0.01), start_guardian, stop))
    await eventually(lambda: len(sweep.given) > 2)
    stop.set()
    await asyncio.wait_for(keeping, 10)
    assert {given[1] for given in sweep.given} == {start_guardian}


async def test_all_sweeps_of_leftovers_share_what_is_known_and_are_told_to_stop(
    tmp_path: Path, sweep: FakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    del sweep
    stop = asyncio.Event()
    given: list[dict[str, Any]] = []

    async def sweep_leftovers(_: Settings, **named: Any) -> None:
        given.append(named)
        if len(given) == 2:
            stop.set()

    monkeypatch.setattr("worker.housekeeping.sweep_leftovers", sweep_leftovers)
    sweeping = settings(tmp_path, 0.01).model_copy(update={"leftover_sweep_interval_seconds": 0.01})
    await asyncio.wait_for(keep_house(sweeping, start_guardian, stop), 10)
    assert [each["stop"] for each in given] == [stop, stop]
    assert given[0]["memory"] is given[1]["memory"]


@pytest.mark.parametrize("seconds", [1.0, 3600.0])
async def test_a_worker_that_stops_at_once_has_not_looked(
    tmp_path: Path, seconds: float, sweep: FakeSweep
) -> None:
    stop = asyncio.Event()
    stop.set()
    await asyncio.wait_for(keep_house(settings(tmp_path, seconds), start_guardian, stop), 10)
    assert sweep.given == []
