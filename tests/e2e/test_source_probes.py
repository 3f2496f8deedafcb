"""A file is written again: without anybody telling its dataset becomes stale by itself; or whoever wrote it reports a version."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from optaic import errors
from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE, eventually
from support.stack import RunningStack


def _write(path: Path, close: float) -> None:
    days = [date(2024, 1, 1) + timedelta(days=day) for day in range(3)]
    pl.DataFrame({"date": days, "entity": "a", "close": close}).write_parquet(path)


async def test_a_rewritten_file_makes_its_dataset_stale_and_a_refresh_cures_it(
    stack: RunningStack, tmp_path: Path
) -> None:
    source = tmp_path / "prices.parquet"
    _write(source, 1.0)
    async with connected_client(stack) as client:
        project = await create_project(client, "probed")
        prices = await create_dataset(client, project, "prices", "file", {"url": str(source)})
        reader = await create_dataset(
            client,
            project,
            "doubled",
            "expression",
            {"expression": "close * 2"},
            upstreams={"input": prices.instance_id},
        )
        prices = await client.instances.update(prices, {"probe_interval": 60})
        for instance in (prices, reader):
            run = await (await client.runs.submit(instance)).wait(timeout=PATIENCE)
            assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
        state = await client.lineage.state(prices)
        token = state.current_version.source_token
        found = source.stat()
        assert token == f"size {found.st_size} time {found.st_mtime_ns}"
        assert state.is_fresh
        _write(source, 1.0)  # the same content: only the file is another

        async def is_stale() -> bool:
            return not (await client.lineage.state(reader)).is_fresh

        await eventually(is_stale, PATIENCE)
        (cause,) = (await client.lineage.state(prices)).causes
        assert cause.kind == lineage_pb2.CAUSE_KIND_SOURCE_CHANGED
        assert (cause.from_token, cause.to_token != token) == (token, True)
        run = await (await client.runs.submit(prices)).wait(timeout=PATIENCE)
        assert run.output_version.source_token == cause.to_token

        async def is_cured() -> bool:
            return (await client.lineage.state(reader)).is_fresh

        await eventually(is_cured)
        assert (await client.lineage.state(prices)).current_version.version == 1


async def test_a_signal_reads_in_place_what_another_system_writes_and_reports(
    stack: RunningStack, tmp_path: Path
) -> None:
    url = str(tmp_path / "prices-{version}.parquet")
    async with connected_client(stack) as client:
        project = await create_project(client, "external")
        external = {"definition_name": "external"}
        prices = await client.instances.create(
            project=project,
            name="prices",
            dataset={"pipeline": external, "store": {**external, "config": {"url": url}}},
        )
        signal = await client.instances.create(
            project=project,
            name="signal",
            signal={
                "dataset": {
                    "pipeline": {"definition_name": "expression", "config": {"expression": "close * 2"}}
                }
            },
            upstreams={"input": prices.instance_id},
        )
        for instance in (prices, signal):
            await client.instances.wait_until_active(instance.instance_id)
        with pytest.raises(errors.FailedPreconditionError, match="optaic run report"):
            await client.runs.submit(prices)
        for number, version in enumerate(("v1", "v2"), start=1):
            _write(tmp_path / f"prices-{version}.parquet", float(number))
            reported = await client.runs.report_external(prices, version, last_data_date=date(2024, 1, 3))
            assert (reported.run_number, reported.status) == (number, run_pb2.RUN_STATUS_COMPLETED)

            async def is_told(wanted: int = number) -> bool:
                state = await client.lineage.state(prices)
                return state.current_version.version == wanted and state.status == flow_pb2.STATUS_READY

            await eventually(is_told, PATIENCE)
            state = await client.lineage.state(signal)
            assert state.status == (flow_pb2.STATUS_NOT_INITIALIZED if number == 1 else flow_pb2.STATUS_STALE)
            run = await (await client.runs.submit(signal)).wait(timeout=PATIENCE)
            assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
            (read,) = run.input_versions
            assert (read.uri, read.physical_version, read.version) == (url, version, number)
            values = pl.read_delta(run.output_version.uri, version=int(run.output_version.physical_version))
            assert values["value"].to_list() == [2.0 * number] * 3
        assert await client.runs.report_external(prices, "v2") == reported
        status = await client.status.get(prices.instance_id)
        assert (status.status, status.flows[0].last_data_date) == (flow_pb2.STATUS_READY, "2024-01-03")
