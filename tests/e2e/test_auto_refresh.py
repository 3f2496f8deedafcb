"""A researcher refreshes a dataset; the signal above it and the backtest follow by themselves."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl

from optaic.client import AsyncClient
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE, eventually
from support.stack import RunningStack

FIRST = dt.date(2024, 1, 1)


def _write(path: Path, days: int) -> None:
    rows = [
        (FIRST + dt.timedelta(days=day), entity, 100.0 + day * (index + 1))
        for day in range(days)
        for index, entity in enumerate("abc")
    ]
    pl.DataFrame(rows, schema=["date", "entity", "close"], orient="row").write_csv(path)


async def _followed(client: AsyncClient, instance: instance_pb2.Instance, count: int) -> list[run_pb2.Run]:
    """Wait until an instance has completed so many runs and is READY; return them."""

    async def find() -> list[run_pb2.Run]:
        runs = await client.runs.list(instance)
        status = (await client.status.get(instance.instance_id)).status
        is_done = len(runs) >= count and status == flow_pb2.STATUS_READY
        return runs if is_done else []

    return await eventually(find, PATIENCE, f"{instance.name} does not follow")


async def test_a_signal_and_its_backtest_follow_the_refresh_of_a_dataset(
    stack: RunningStack, tmp_path: Path
) -> None:
    source = tmp_path / "source.csv"
    _write(source, 30)
    follows = {"mode": "all_upstreams"}
    async with connected_client(stack) as client:
        project = await create_project(client, "follow")
        prices = await create_dataset(client, project, "prices", "file", {"url": str(source)})
        expression = {"definition_name": "expression", "config": {"expression": "close / REF(close, 2) - 1"}}
        signal = await client.instances.create(
            project=project,
            name="momentum",
            signal={"dataset": {"pipeline": expression}},
            upstreams={"input": prices.instance_id},
            auto_refresh=follows,
        )
        backtest = await client.instances.create(
            project=project,
            name="backtest",
            backtest={
                "assets": {"benchmark": "equal_weight"},
                "signals": {"primary": signal.instance_id},
                "date_range": {"start": "2024-01-08"},
                "config": {"rebalance_frequency": "daily", "top_n": 2},
            },
            upstreams={"prices": prices.instance_id},
            auto_refresh=follows,
        )
        for count, days in ((1, 30), (2, 40)):
            _write(source, days)
            refresh = await (await client.runs.submit(prices)).wait(timeout=PATIENCE)
            assert refresh.status == run_pb2.RUN_STATUS_COMPLETED, refresh.error
            for instance in (signal, backtest):
                runs = await _followed(client, instance, count)
                assert len(runs) == count
                for run in runs:
                    assert (run.trigger, run.actor) == (run_pb2.RUN_TRIGGER_UPSTREAM, "auto_refresh")
                    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
