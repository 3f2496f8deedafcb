"""A researcher refreshes a range of dates, loses most of a source, and swaps how a dataset is read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from optaic.common.v1 import flow_pb2
from optaic.errors import OptaicError
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE, eventually
from support.stack import RunningStack

FIRST = dt.date(2024, 1, 1)


def _write(path: Path, days: int, shift: float = 0.0) -> None:
    """`days` days of three entities."""
    rows = [
        (FIRST + dt.timedelta(days=day), entity, shift + day, shift - day)
        for day in range(days)
        for entity in "abc"
    ]
    schema = ["date", "entity", "close", "open"]
    pl.DataFrame(rows, schema=schema, orient="row").write_csv(path)


async def test_an_appended_day_is_computed_alone_through_two_levels(
    stack: RunningStack, tmp_path: Path
) -> None:
    source = tmp_path / "source.csv"
    _write(source, 10)
    async with connected_client(stack) as client:
        project = await create_project(client, "increments")
        chain = [await create_dataset(client, project, "prices", "file", {"url": str(source)})]
        for name, expression in (("smooth", "MEAN(close, 3)"), ("ranked", "RANK(DELTA(value, 2))")):
            upstreams = {"input": chain[-1].instance_id}
            config = {"expression": expression}
            chain.append(
                await create_dataset(client, project, name, "expression", config, upstreams=upstreams)
            )
        for instance in chain:
            await (await client.runs.submit(instance)).wait(timeout=PATIENCE)
        _write(source, 11)
        runs = [await (await client.runs.submit(instance)).wait(timeout=PATIENCE) for instance in chain]
        last = str(FIRST + dt.timedelta(days=10))
        for run in runs:
            assert (run.output_version.change_start, run.output_version.change_end) == (last, last), run
        for run in runs[1:]:
            assert run.allows_incremental, run.full_because
            assert (run.metrics["computed_from"], run.full_because) == (last, "")
            assert "full_because" not in run.metrics
            assert run.pipeline.rows_fetched == 3
            (pinned,) = run.input_versions
            assert (pinned.change_start, pinned.change_end) == (last, last)
        full = await (await client.runs.submit(chain[2], mode=run_pb2.RUN_MODE_FULL)).wait(timeout=PATIENCE)
        assert full.metrics["full_because"] == "mode FULL was requested"
        assert full.output_version.digest == runs[2].output_version.digest


async def test_a_range_of_dates_is_refreshed_in_place(stack: RunningStack, tmp_path: Path) -> None:
    source = tmp_path / "source.csv"
    _write(source, 10)
    async with connected_client(stack) as client:
        project = await create_project(client, "ranges")
        prices = await create_dataset(client, project, "prices", "file", {"url": str(source)})
        doubled = await create_dataset(
            client,
            project,
            "doubled",
            "expression",
            {"expression": "close * 2"},
            upstreams={"input": prices.instance_id},
        )
        for instance in (prices, doubled):
            await (await client.runs.submit(instance)).wait(timeout=PATIENCE)
        _write(source, 10, shift=100.0)
        dates = {"start": "2024-01-03", "end": "2024-01-04"}
        run = await (await client.runs.submit(prices, parameters=dates)).wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
        table = await client.data.read(prices)
        inside = pl.col("date").is_between(dt.date(2024, 1, 3), dt.date(2024, 1, 4))
        assert table.height == 30
        assert (table.filter(inside)["close"] >= 100).all()
        assert (table.filter(~inside)["close"] < 100).all()
        assert run.is_partial_range
        assert (run.pipeline.rows_fetched, run.pipeline.rows_updated, run.pipeline.rows_deleted) == (6, 6, 0)
        assert (await client.lineage.state(prices)).is_fresh

        part = {**dates, "end": "2024-01-03"}
        ranged = await (await client.runs.submit(doubled, parameters=part)).wait(timeout=PATIENCE)
        assert ranged.status == run_pb2.RUN_STATUS_COMPLETED, ranged.error
        assert ranged.metrics["affected_dates"] == "2024-01-03 to 2024-01-04"
        assert not ranged.covers_changes

        async def kinds() -> set[str]:
            state = await client.lineage.state(doubled)
            return {lineage_pb2.CauseKind.Name(cause.kind) for cause in state.causes}

        async def is_partial() -> bool:
            return "CAUSE_KIND_PARTIAL_RANGE" in await kinds()

        await eventually(is_partial, 15)
        assert (await client.status.get(doubled)).status == flow_pb2.STATUS_STALE
        again = await (await client.runs.submit(doubled)).wait(timeout=PATIENCE)
        assert again.status == run_pb2.RUN_STATUS_COMPLETED, again.error

        async def is_fresh() -> bool:
            return (await client.lineage.state(doubled)).is_fresh

        await eventually(is_fresh, 15)
        # A range that has all changed dates counts as a run without one.
        _write(source, 10, shift=200.0)
        await (await client.runs.submit(prices, parameters=dates)).wait(timeout=PATIENCE)
        ranged = await (await client.runs.submit(doubled, parameters=dates)).wait(timeout=PATIENCE)
        assert ranged.covers_changes, ranged.metrics
        await eventually(is_fresh, 15)
        # Computed with another configuration: a range would leave the rest to the old one.
        await client.instances.update(
            doubled, {"dataset": {"pipeline": {"config": {"expression": "close * 3"}}}}
        )
        for options in ({}, {"validate_only": True}, {"force": True, "force_reason": "now"}):
            with pytest.raises(OptaicError) as refused:
                await client.runs.submit(doubled, parameters=dates, **options)
            assert refused.value.reason == "FULL_RANGE_REQUIRED"
        with pytest.raises(OptaicError) as retried:
            await client.runs.retry(ranged.run_id)
        assert retried.value.reason == "FULL_RANGE_REQUIRED"


async def test_most_of_a_source_is_deleted_only_by_a_run_that_may(
    stack: RunningStack, tmp_path: Path
) -> None:
    source = tmp_path / "source.csv"
    _write(source, 10)
    async with connected_client(stack) as client:
        project = await create_project(client, "deletions")
        prices = await create_dataset(client, project, "prices", "file", {"url": str(source)})
        await (await client.runs.submit(prices)).wait(timeout=PATIENCE)
        _write(source, 4)
        refused = await (await client.runs.submit(prices)).wait(timeout=PATIENCE)
        assert (refused.status, refused.error.type) == (run_pb2.RUN_STATUS_FAILED, "DeletionRefused")
        assert "18 of 30 keys" in refused.error.message
        assert prices.dataset.max_deleted_share == 0.5
        assert (await client.data.read(prices)).height == 30
        with pytest.raises(OptaicError) as unreasoned:
            await client.runs.submit(prices, allow_deletion=True)
        assert unreasoned.value.reason == "ALLOW_DELETION_REASON_REQUIRED"
        allowed = await (
            await client.runs.submit(prices, allow_deletion=True, allow_deletion_reason="they are gone")
        ).wait(timeout=PATIENCE)
        assert allowed.status == run_pb2.RUN_STATUS_COMPLETED, allowed.error
        assert (allowed.pipeline.rows_deleted, allowed.metrics["rows_deleted"]) == (18, 18)
        submitted = (await client.runs.activities(allowed.run_id))[0]
        assert submitted.details["allow_deletion_reason"] == "they are gone"
        assert (await client.data.read(prices)).height == 12


async def test_a_changed_accessor_makes_dependants_stale_although_the_content_is_the_same(
    stack: RunningStack, tmp_path: Path
) -> None:
    source = tmp_path / "source.csv"
    _write(source, 3)
    async with connected_client(stack) as client:
        project = await create_project(client, "readers")
        prices = await create_dataset(client, project, "prices", "file", {"url": str(source)})
        reader = await create_dataset(
            client,
            project,
            "reader",
            "expression",
            {"expression": "close"},
            upstreams={"input": prices.instance_id},
        )
        for instance in (prices, reader):
            await (await client.runs.submit(instance)).wait(timeout=PATIENCE)
        before = (await client.lineage.state(prices)).current_version
        accessor = {"definition_name": "field", "config": {"field": "open", "output": "close"}}
        await client.instances.update(prices, {"dataset": {"accessor": accessor}})
        # Until it has run, it is read as it was.
        forced = await (await client.runs.submit(reader, force=True, force_reason="as it was")).wait(
            timeout=PATIENCE
        )
        assert forced.status == run_pb2.RUN_STATUS_COMPLETED, forced.error
        assert (await client.data.read(reader))["value"].sort().to_list()[-1] == 2.0
        await (await client.runs.submit(prices)).wait(timeout=PATIENCE)

        async def has_moved() -> bool:
            return (await client.lineage.state(prices)).current_version.version == 2

        await eventually(has_moved, 15)
        after = (await client.lineage.state(prices)).current_version
        assert after.digest == before.digest
        assert after.readers_hash != before.readers_hash
        assert not (await client.lineage.state(reader)).is_fresh
        run = await (await client.runs.submit(reader)).wait(timeout=PATIENCE)
        assert run.input_versions[0].instance_revision == 2
        assert (await client.data.read(reader))["value"].sort().to_list()[-1] == 0.0
