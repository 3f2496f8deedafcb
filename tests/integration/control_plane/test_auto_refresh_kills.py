"""kill -9 of a replica of run-service while it lets a flow follow its upstream flow: another replica does, and once.

`make test` has a kill at each moment, `make test-faults` twenty (`OPTAIC_AUTO_REFRESH_KILLS`).
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from run_service.store import auto_refreshes
from support import campaigns
from support.boundaries import Moments, SqlGate
from support.clock import MovingClock
from support.control_plane import control_plane
from support.follower import Follower
from support.following import COMPLETED, World
from support.polling import eventually

pytestmark = pytest.mark.faults
_KILLS = campaigns.count("OPTAIC_AUTO_REFRESH_KILLS", 1, 20)
_CLAIM_SECONDS = 2.0
# The flow is claimed by one statement, and the decision is stored with the run by one transaction.
_MOMENTS: dict[str, Callable[[str], bool]] = {
    "claimed": lambda moment: (
        "auto_refreshes" in moment and "runs" not in moment and moment.endswith(", done")
    ),
    "decided": lambda moment: (
        "auto_refreshes" in moment and "runs" in moment and not moment.endswith(", done")
    ),
    "submitted": lambda moment: "auto_refreshes" in moment and "runs" in moment and moment.endswith(", done"),
}


class _Chosen:
    """The moment at which the next process dies, whichever of the two reaches it."""

    def __init__(self) -> None:
        self.is_reached: Callable[[str], bool] | None = None


class _SharedMoments(Moments):
    """The moments of one of the processes."""

    def __init__(self, chosen: _Chosen, kill: Callable[[], None]) -> None:
        super().__init__(kill)
        self._chosen_moment = chosen

    async def reach(self, moment: str) -> None:
        is_reached = self._chosen_moment.is_reached
        if is_reached is not None and is_reached(moment):
            self._chosen_moment.is_reached = None
            self._kill()
            raise ConnectionAbortedError(moment)


@pytest_asyncio.fixture
async def world(
    postgres_server: Postgres, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """The control plane, whose own run-service lets no flow follow another."""
    del postgres_server

    async def claim_nothing(*_: Any) -> list[auto_refreshes.FlowKey]:
        return []

    monkeypatch.setattr(auto_refreshes, "claim_flows", claim_nothing)
    async with control_plane(nats_url, {"run": {"clock": MovingClock(), "lease_seconds": 10**8}}) as plane:
        project = await plane.instance.project(f"kills-{uuid.uuid4().hex[:8]}")
        yield World(plane, project.project_id)
        assert await plane.dead_letters() == []


@contextlib.asynccontextmanager
async def _replicas(world: World, chosen: _Chosen, folder: Path) -> AsyncIterator[Sequence[Follower]]:
    """Run two replicas of run-service, each behind gates of its own before the database."""
    settings, clock = world.run.app.deps.settings, world.run.clock
    assert isinstance(clock, MovingClock)
    async with contextlib.AsyncExitStack() as stack:
        replicas: list[Follower] = []
        for number in range(2):
            moments = _SharedMoments(chosen, lambda number=number: replicas[number].kill())  # type: ignore[misc]  # its default is its value
            urls = {}
            for name in ("database_url", "database_infra_url"):
                gate = await stack.enter_async_context(SqlGate(getattr(settings, name), moments))
                urls[name] = gate.url
            changes = {
                **urls,
                "listen": "127.0.0.1:0",
                "auto_refresh_interval_seconds": 0.1,
                "auto_refresh_claim_seconds": _CLAIM_SECONDS,
            }
            replica = Follower(settings.model_copy(update=changes), clock, folder / f"replica_{number}")
            replicas.append(replica)
            stack.push_async_callback(replica.stop)
            await replica.start()
        yield replicas


async def test_a_kill_between_decision_and_run_leaves_the_change_to_another_replica(
    world: World, tmp_path: Path
) -> None:
    prices = await world.prices()
    await world.refresh(prices)
    chosen = _Chosen()
    async with _replicas(world, chosen, tmp_path) as replicas:
        derived = await world.following(prices)
        await world.follow(derived)
        await world.plane.rest()
        for number in range(1, _KILLS + 1):
            for name, is_reached in _MOMENTS.items():
                label = f"{name}, kill {number}"
                before = len(await world.runs_of(derived))
                chosen.is_reached = is_reached
                moved = await world.refresh(prices)
                await world.follow(derived)
                await world.plane.rest()
                assert chosen.is_reached is None, label
                runs = await world.runs_of(derived)
                assert len(runs) == before + 1, label
                assert runs[-1].status == COMPLETED, label
                assert runs[-1].input_versions[0].digest == moved.output_version.digest, label
                assert (await world.state(derived)).status == flow_pb2.STATUS_READY, label
                for replica in replicas:
                    await replica.start()
        await eventually(world.is_settled, 30, "a flow is still due")
        assert len(await world.runs_of(derived)) == 1 + _KILLS * len(_MOMENTS)
