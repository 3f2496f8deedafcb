"""kill -9 of run-service while it brings a chain up to date: for somebody, for a scheduled time, and for a signal that follows.

Nothing is lost, and nothing is run twice. `make test` has a kill of each kind, `make test-faults` twenty of each (`OPTAIC_KILLS`). The
moments follow from a seed, which a failure prints.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from optaic.client import AsyncClient
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import refresh_pb2, run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE, eventually
from support.prefect_api import PrefectApi, prefect_api
from support.stack import RunningStack

pytestmark = pytest.mark.faults
_KILLS = int(os.environ.get("OPTAIC_KILLS", "20" if os.environ.get("OPTAIC_FAULTS") == "full" else "1"))
_SEED = 13
_LONGEST = 4.0  # seconds until the kill: by then a chain on a quiet machine is up to date


@dataclass
class Chain:
    """source -> raw -> doubled; below that a signal that follows by itself, and one whose scheduled times refresh."""

    stack: RunningStack
    client: AsyncClient
    prefect: PrefectApi
    source: Path
    instances: Sequence[instance_pb2.Instance] = ()

    async def create(self, name: str) -> None:
        project = await create_project(self.client, name)
        self.write(0)
        config = {"url": str(self.source)}
        raw = await create_dataset(self.client, project, "raw", "file", config)
        doubled = await self._derived(project, "doubled", raw)
        follows = await self._derived(project, "follows", doubled, auto_refresh={"mode": "all_upstreams"})
        # Of an interval of a week any whole second may be a scheduled time.
        schedule = {"interval": {"minutes": 10_080}, "upstream_policy": "refresh"}
        scheduled = await self._derived(project, "scheduled", doubled, schedule=schedule)
        self.instances = (raw, doubled, follows, scheduled)

    async def _derived(
        self, project: str, name: str, upstream: instance_pb2.Instance, **more: object
    ) -> instance_pb2.Instance:
        config = {"expression": "close * 2" if name == "doubled" else "value + 1"}
        upstreams = {"input": upstream.instance_id}
        return await create_dataset(
            self.client, project, name, "expression", config, upstreams=upstreams, **more
        )

    def write(self, number: int) -> None:
        """Write the source anew, with content that it has not had."""
        days = [dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in range(5)]
        pl.DataFrame({"date": days, "entity": "a", "close": float(number)}).write_parquet(self.source)

    async def tick(self) -> None:
        """Make a flow run as Prefect's clock does."""
        scheduled = self.instances[3]
        await self.prefect.trigger_at(
            dt.datetime.now(dt.UTC).replace(microsecond=0),
            scheduled.flows[0].prefect_deployment_id,
            tenant_id="default",
            instance_id=scheduled.instance_id,
            flow_kind="refresh",
        )

    async def kill(self) -> None:
        """End run-service as a crash would; its supervisor starts it again."""
        processes = await asyncio.to_thread(self.stack.processes)
        os.kill(processes["run-service"], signal.SIGKILL)

    async def runs(self) -> dict[str, list[run_pb2.Run]]:
        """Return the runs of each instance, newest first."""
        return {each.name: list(await self.client.runs.list(each)) for each in self.instances}

    async def are_ready(self, *names: str) -> bool:
        statuses = {
            each.name: (await self.client.status.get(each.instance_id)).status
            for each in self.instances
            if each.name in names
        }
        return set(statuses.values()) == {flow_pb2.STATUS_READY}


async def test_a_kill_loses_and_doubles_nothing_of_a_chain(stack: RunningStack, tmp_path: Path) -> None:
    rng, endpoints = random.Random(_SEED), stack.endpoints
    async with (
        connected_client(stack) as client,
        prefect_api(endpoints.prefect_api, endpoints.prefect_login) as prefect,
    ):
        chain = Chain(stack, client, prefect, tmp_path / "source.parquet")
        await chain.create("chain_kills")
        seen = Counter[str]()
        for number in range(1, 2 * _KILLS + 1):
            chain.write(number)
            await client.lineage.invalidate(chain.instances[0], reason="new content")
            moment = rng.uniform(0, _LONGEST)
            label = f"round {number} of seed {_SEED}, killed after {moment:.2f} s"
            if number % 2:
                handle = await client.refresh(chain.instances[1], upstream=True)
                await asyncio.sleep(moment)  # the moment of the kill
                await chain.kill()
                ended = await handle.wait(timeout=PATIENCE)
                assert ended.status == refresh_pb2.REFRESH_STATUS_COMPLETED, label
                names = ["raw", "doubled", "follows"]
            else:
                await chain.tick()
                await asyncio.sleep(moment)  # the moment of the kill
                await chain.kill()
                names = ["raw", "doubled", "follows", "scheduled"]
            await eventually(lambda names=names: chain.are_ready(*names), PATIENCE, label)  # type: ignore[misc]  # its default is its value
            seen.update(names)
            runs = await chain.runs()
            assert {name: len(found) for name, found in runs.items() if found} == dict(seen), label
            for found in runs.values():
                assert {run.status for run in found} <= {run_pb2.RUN_STATUS_COMPLETED}, label
            read = runs["follows"][0].input_versions[0].version
            assert read == (await client.status.get(chain.instances[1].instance_id)).flows[0].version, label
        refreshes = [each for each in await client.refreshes.list() if _is_of(each, chain)]
        assert len(refreshes) == 2 * _KILLS
        assert {each.status for each in refreshes} == {refresh_pb2.REFRESH_STATUS_COMPLETED}
        assert sum(each.actor == "schedule" for each in refreshes) == _KILLS
        assert {run.trigger for run in (await chain.runs())["scheduled"]} == {run_pb2.RUN_TRIGGER_SCHEDULE}


def _is_of(refresh: refresh_pb2.Refresh, chain: Chain) -> bool:
    ids = {each.instance_id for each in chain.instances}
    return not ids.isdisjoint(refresh.selection.instance_ids)
