"""Types of what others write, through the whole stack: pinned at first, held, and pinned anew by who says so."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
from google.protobuf.json_format import MessageToDict

from optaic.client import AsyncClient
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE
from support.stack import RunningStack


async def refresh(client: AsyncClient, instance: instance_pb2.Instance, **options: Any) -> run_pb2.Run:
    return await (await client.runs.submit(instance, **options)).wait(timeout=PATIENCE)


async def completed(client: AsyncClient, instance: instance_pb2.Instance, **options: Any) -> run_pb2.Run:
    run = await refresh(client, instance, **options)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    return run


async def test_types_of_a_file_are_held_until_the_configuration_or_a_full_refresh_changes_them(
    stack: RunningStack, tmp_path: Path
) -> None:
    source = tmp_path / "prices.csv"
    head = "date;entity;close;code\n2024-01-02;A;"
    source.write_text(head + "1,5;007\n2024-01-03;A;2,5;8\n")
    async with connected_client(stack) as client:
        project = await create_project(client, "types")
        config = {"url": str(source), "delimiter": ";", "decimal": ","}
        prices = await create_dataset(client, project, "prices", "file", config)
        run = await completed(client, prices)
        metrics = MessageToDict(run.metrics)
        assert metrics["types_guessed"] == {"close": "Float64", "code": "String"}
        assert "'007'" in metrics["kept_as_text"]["code"]

        source.write_text(head + "1,5;7\n2024-01-03;A;NA;8\n")
        for options in ({}, {"mode": "full"}):
            failed = await refresh(client, prices, **options)
            assert failed.error.type == "UnparsableData"
            assert "column 'close' is Float64, and the value in row 3" in failed.error.message

        revised = dict(config, null_values=["NA"])
        dataset = {"pipeline": {"definition_name": "file", "config": revised}}
        prices = await client.instances.update(prices, dataset=dataset)
        run = await completed(client, prices)
        assert list(run.pipeline.columns_retyped) == ["code: String to Int64"]
        table = await client.data.read(prices)
        assert table["close"].to_list() == [1.5, None]

        source.write_text(head + "1,5;007\n2024-01-03;A;NA;8\n")
        failed = await refresh(client, prices)
        assert "column 'code' is Int64, and the value in row 2" in failed.error.message
        await completed(client, prices, mode="full", parameters={"repin_types": True})
        assert (await client.data.read(prices)).schema["code"] == pl.String


async def test_a_text_keeps_its_digits_and_a_column_its_type(stack: RunningStack, tmp_path: Path) -> None:
    source = tmp_path / "codes.csv"
    head = "date,entity,close,code,size\n2024-01-02,A,"
    source.write_text(head + "1.5,007,1e5\n2024-01-03,A,2.5,010,1.10\n")
    async with connected_client(stack) as client:
        project = await create_project(client, "guesses")
        prices = await create_dataset(client, project, "prices", "file", {"url": str(source)})
        run = await completed(client, prices)
        table = await client.data.read(prices)
        assert table["code"].to_list() == ["007", "010"]
        assert table["size"].to_list() == ["1e5", "1.10"]
        metrics = MessageToDict(run.metrics)
        assert metrics["types_guessed"] == {"close": "Float64", "code": "String", "size": "String"}

        source.write_text(head + "1.5,007,1e5\n2024-01-03,A,none,010,1.10\n")
        failed = await refresh(client, prices)
        assert "column 'close' is Float64, and the value in row 3" in failed.error.message
        assert (await client.data.read(prices))["close"].to_list() == [1.5, 2.5]


async def test_a_new_database_column_reaches_dependants_and_a_vanished_one_is_refused(
    stack: RunningStack, tmp_path: Path
) -> None:
    def change(*statements: str) -> None:
        with closing(sqlite3.connect(tmp_path / "w.db")) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    change(
        "create table px (date text, entity text, close real, dividend real)",
        "insert into px values ('2024-01-02', 'A', 1.5, null)",
    )
    async with connected_client(stack) as client:
        project = await create_project(client, "columns")
        config = {"url": f"sqlite:///{tmp_path}/w.db", "table": "px", "cursor": "date"}
        prices = await create_dataset(client, project, "px", "sql", config)
        await completed(client, prices)
        change(
            "alter table px add column volume integer", "insert into px values ('2024-01-03', 'A', 2, 0.1, 5)"
        )
        run = await completed(client, prices)
        assert list(run.pipeline.columns_added) == ["volume"]
        told = [each.message for each in await client.runs.activities(run.run_id)]
        assert "new columns: volume" in told
        volume = await create_dataset(
            client,
            project,
            "volume",
            "expression",
            {"expression": "volume"},
            upstreams={"input": prices.instance_id},
        )
        await completed(client, volume)
        assert (await client.data.read(volume))["value"].to_list() == [None, 5.0]
        change("alter table px drop column close", "insert into px values ('2024-01-04', 'A', 0.1, 6)")
        failed = await refresh(client, prices)
        assert failed.error.type == "SchemaMismatch"
        assert "column 'close' (Float64) no longer exists" in failed.error.message
        await completed(client, prices, mode="full")
        assert (await client.data.read(prices)).columns == ["date", "entity", "dividend", "volume"]
