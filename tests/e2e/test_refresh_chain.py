"""A researcher changes a source, and one command brings the chain below it up to date."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import refresh_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE, eventually
from support.stack import RunningStack

from .test_command_line import optaic


def _write(path: Path, shift: float) -> None:
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in range(10)]
    rows = [(day, entity, shift + number) for number, day in enumerate(days) for entity in "abc"]
    pl.DataFrame(rows, schema=["date", "entity", "close"], orient="row").write_csv(path)


async def test_one_command_brings_a_chain_up_to_date(stack: RunningStack, tmp_path: Path) -> None:
    source = tmp_path / "source.csv"
    _write(source, 0.0)
    async with connected_client(stack) as client:
        project = await create_project(client, "chain")
        raw = await create_dataset(client, project, "chain_raw", "file", {"url": str(source)})
        chain = [raw]
        for name, expression in (("chain_doubled", "close * 2"), ("chain_ranked", "RANK(value)")):
            upstreams = {"input": chain[-1].instance_id}
            config = {"expression": expression}
            chain.append(
                await create_dataset(client, project, name, "expression", config, upstreams=upstreams)
            )

        async def are_ready() -> bool:
            found = {each.instance_id: each.status for each in await client.status.list(project=project)}
            return all(found.get(each.instance_id) == flow_pb2.STATUS_READY for each in chain)

        planned = optaic(stack, "refresh", "chain_ranked", "--project", project, "--upstream", "--plan")
        assert planned.returncode == 0, planned.stderr
        assert [line.split("/")[0].strip() for line in planned.stdout.splitlines()] == [
            "chain_raw",
            "chain_doubled",
            "chain_ranked",
        ]
        refreshed = optaic(stack, "refresh", "chain_ranked", "--project", project, "--upstream")
        assert refreshed.returncode == 0, refreshed.stderr
        assert "COMPLETED" in refreshed.stdout
        await eventually(are_ready, PATIENCE)

        _write(source, 100.0)
        await (await client.runs.submit(raw)).wait(timeout=PATIENCE)
        handle = await client.refresh(chain[-1], upstream=True)
        ended = await handle.wait(timeout=PATIENCE)
        assert ended.status == refresh_pb2.REFRESH_STATUS_COMPLETED
        assert [flow.instance_name for flow in await handle.flows()] == ["chain_doubled", "chain_ranked"]
        await eventually(are_ready, PATIENCE)
        assert (await client.data.read(chain[1]))["value"].min() == 200.0

        source.unlink()
        await client.lineage.invalidate(raw, reason="the file is gone")
        failed = optaic(stack, "refresh", "chain_raw", "--project", project, "--downstream")
        assert failed.returncode == 9
        assert "1 failed, 2 blocked" in failed.stderr
        assert "FAILED" in failed.stdout
        (newest, *_) = await client.refreshes.list(statuses=["failed"])
        _write(source, 100.0)
        resumed = optaic(stack, "refreshes", "resume", newest.refresh_id)
        assert resumed.returncode == 0, resumed.stderr
        await eventually(are_ready, PATIENCE)
