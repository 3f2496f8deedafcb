"""Data of the world outside: days of a zone, queries with comments, values beyond every range; read by the client."""

import datetime as dt
import sqlite3
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from optaic import errors
from optaic.client import AsyncClient
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE
from support.stack import RunningStack

DAYS = [dt.date(2024, 3, 28), dt.date(2024, 4, 2), dt.date(2024, 7, 1), dt.date(2024, 7, 2)]
LONDON = ZoneInfo("Europe/London")


async def refresh(client: AsyncClient, instance: instance_pb2.Instance) -> run_pb2.Run:
    return await (await client.runs.submit(instance)).wait(timeout=PATIENCE)


async def completed(client: AsyncClient, instance: instance_pb2.Instance) -> run_pb2.Run:
    run = await refresh(client, instance)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    return run


async def test_midnight_in_london_belongs_to_the_day_that_it_begins(
    stack: RunningStack, tmp_path: Path
) -> None:
    midnights = [dt.datetime(day.year, day.month, day.day, tzinfo=LONDON) for day in DAYS]
    table = pl.DataFrame({"date": midnights, "entity": ["VOD.L"] * 4, "close": [1.0, 2.0, 3.0, 4.0]})
    table.with_columns(seen="date").write_parquet(tmp_path / "lse.parquet")
    async with connected_client(stack) as client:
        project = await create_project(client, "london")
        config = {"url": str(tmp_path / "lse.parquet")}
        instance = await create_dataset(client, project, "lse", "file", config)
        first = await completed(client, instance)
        assert first.output_version.last_data_date == "2024-07-02"
        found = await client.data.read("lse", project=project)
        assert found["date"].to_list() == DAYS
        assert found["seen"].to_list() == midnights
        again = await completed(client, instance)
        assert again.output_version.physical_version == first.output_version.physical_version


async def test_a_query_ends_in_a_comment_and_values_out_of_range_are_named(
    stack: RunningStack, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "w.db") as connection:
        connection.execute("create table px (date text, entity text, close real)")
        connection.execute("insert into px values ('2024-01-02', 'A', 1.5)")
    sentinel = pl.Series([2**63 - 1], dtype=pl.Int64).cast(pl.Datetime("ms"))
    row: dict[str, Any] = {"date": [dt.date(2024, 1, 2)], "entity": ["A"], "valid_to": sentinel}
    pl.DataFrame(row).write_parquet(tmp_path / "s.parquet")
    async with connected_client(stack) as client:
        project = await create_project(client, "foreign")
        query = "select date, entity, close from px; -- only stocks"
        config = {"url": f"sqlite:///{tmp_path}/w.db", "query": query}
        stocks = await create_dataset(client, project, "stocks", "sql", config)
        await completed(client, stocks)
        assert (await client.data.read(stocks))["close"].to_list() == [1.5]
        beyond = await create_dataset(client, project, "beyond", "file", {"url": str(tmp_path / "s.parquet")})
        run = await refresh(client, beyond)
        assert run.error.type == "OutOfRange"
        assert "column 'valid_to'" in run.error.message
        with pytest.raises(errors.NotFoundError, match="has no output yet"):
            await client.data.read(beyond)


async def test_every_output_is_read_by_the_client(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await create_project(client, "outputs")
        config = {"symbols": ["AAPL", "GE", "MSFT"], "start": "2020-01-02"}
        prices = await create_dataset(client, project, "prices", "sp500_prices", config)
        expression = {
            "definition_name": "expression",
            "config": {"expression": "REF(close, 1) / REF(close, 21)"},
        }
        signal = await client.instances.create(
            project=project,
            name="signal",
            signal={"dataset": {"pipeline": expression, "store": {"definition_name": "parquet"}}},
            upstreams={"input": prices},
        )
        backtest = await client.instances.create(
            project=project,
            name="backtest",
            backtest={"signals": {"primary": signal.instance_id}, "config": {"top_n": 1}},
            upstreams={"prices": prices},
        )
        for instance in (prices, signal, backtest):
            run = await completed(client, instance)
        values = await client.data.read("signal", 1, project=project, entities=["GE"], start="2022-12-28")
        assert values.select("date", "entity").rows() == [(dt.date(2022, 12, 28), "GE")]
        for output in ("equity_curve", "trades", "weights_history", "daily_returns"):
            read = await client.data.read("backtest", output=output, project=project)
            assert read.equals(pl.read_parquet(run.artifacts[output].removeprefix("file://")))
        part = await client.data.read(backtest, 1, start="2022-01-01", end="2022-01-31")
        assert part["date"].is_between(dt.date(2022, 1, 1), dt.date(2022, 1, 31)).all()
