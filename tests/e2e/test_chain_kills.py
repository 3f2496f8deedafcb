"""kill -9 of run-service while it brings a chain up to date: for somebody, for a scheduled time, and for a signal that follows.

Nothing is lost, and nothing is run twice. A kill counts if a run of the chain ends after it; after one that came too late the next come earlier.
`make test` has a kill of each kind, `make test-faults` twenty of each (`OPTAIC_CHAIN_KILLS`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
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
from support import campaigns
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE, eventually
from support.prefect_api import PrefectApi, prefect_api
from support.stack import RunningStack

pytestmark = pytest.mark.faults
_KILLS = campaigns.count("OPTAIC_CHAIN_KILLS", 1, 20)
_ROUNDS = 10 * _KILLS  # of each kind at most
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

    async def kill(self) -> dt.datetime:
        """End run-service as a crash would, and return when; its supervisor starts it again."""
        processes = await asyncio.to_thread(self.stack.processes)
        os.kill(processes["run-service"], signal.SIGKILL)
        return dt.datetime.now(dt.UTC)

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
    random, endpoints = campaigns.begin(), stack.endpoints
    async with (
        connected_client(stack) as client,
        prefect_api(endpoints.prefect_api, endpoints.prefect_login) as prefect,
    ):
        chain = Chain(stack, client, prefect, tmp_path / "source.parquet")
        await chain.create("chain_kills")
        seen, hits = Counter[str](), Counter[bool]()
        longest = dict.fromkeys((True, False), _LONGEST)
        rounds = 0
        while min(hits[True], hits[False]) < _KILLS:
            rounds += 1
            assert rounds <= _ROUNDS, f"the chain was up to date at most kills; hit: {hits}"
            for is_for_somebody in (True, False):
                chain.write(2 * rounds + is_for_somebody)
                await client.lineage.invalidate(chain.instances[0], reason="new content")
                moment = random.uniform(0, longest[is_for_somebody])
                label = f"round {rounds}, killed after {moment:.2f} s"
                names = ["raw", "doubled", "follows"]
                if is_for_somebody:
                    handle = await client.refresh(chain.instances[1], upstream=True)
                    await asyncio.sleep(moment)  # the moment of the kill
                    killed = await chain.kill()
                    ended = await handle.wait(timeout=PATIENCE)
                    assert ended.status == refresh_pb2.REFRESH_STATUS_COMPLETED, label
                else:
                    names.append("scheduled")
                    await chain.tick()
                    await asyncio.sleep(moment)  # the moment of the kill
                    killed = await chain.kill()
                await eventually(lambda names=names: chain.are_ready(*names), PATIENCE, label)  # type: ignore[misc]  # its default is its value
                seen.update(names)
                runs = await chain.runs()
                assert {name: len(found) for name, found in runs.items() if found} == dict(seen), label
                for found in runs.values():
                    assert {run.status for run in found} <= {run_pb2.RUN_STATUS_COMPLETED}, label
                read = runs["follows"][0].input_versions[0].version
                doubled = await client.status.get(chain.instances[1].instance_id)
                assert read == doubled.flows[0].version, label
                last = max(runs[name][0].end_time.ToDatetime(dt.UTC) for name in names)
                if last > killed:
                    hits[is_for_somebody] += 1
                else:
                    longest[is_for_somebody] = moment
        refreshes = [each for each in await client.refreshes.list() if _is_of(each, chain)]
        assert len(refreshes) == 2 * rounds
        assert {each.status for each in refreshes} == {refresh_pb2.REFRESH_STATUS_COMPLETED}
        assert sum(each.actor == "schedule" for each in refreshes) == rounds
        assert {run.trigger for run in (await chain.runs())["scheduled"]} == {run_pb2.RUN_TRIGGER_SCHEDULE}


def _is_of(refresh: refresh_pb2.Refresh, chain: Chain) -> bool:
    ids = {each.instance_id for each in chain.instances}
    return not ids.isdisjoint(refresh.selection.instance_ids)
