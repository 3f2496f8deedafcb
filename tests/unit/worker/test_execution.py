"""A run from its start to its end: real computation, the services behind a real channel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from google.protobuf.struct_pb2 import Struct

from optaic.common.v1 import flow_pb2
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.run.v1 import run_pb2
from support.polling import eventually
from support.worker import World
from worker.builtin.delta_store import DeltaStore
from worker.execution import Ending, Outcome
from worker.profile import describe

REFRESH = flow_pb2.FLOW_KIND_REFRESH
BACKTEST = flow_pb2.FLOW_KIND_BACKTEST


async def test_the_data_root_may_be_a_uri(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(world.dataset(), REFRESH)
    root = (tmp_path / "a folder").as_uri()
    ending = await world.execute(run, root)
    assert ending.outcome is Outcome.COMPLETED
    assert run.output_version.uri.startswith(root)
    version = run.output_version
    stored = DeltaStore().read(version.uri, version.physical_version)
    assert stored.height == run.metrics["rows"]
    assert run.pipeline.output_profile == describe(stored, ("date", "entity"))
    failing = world.runs.submit(world.dataset(definition="probe", behaviour="raise"), REFRESH)
    await world.execute(failing, root)
    assert failing.error.trace_uri.startswith(root)


def to_struct(values: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


async def test_an_expression_may_call_the_macros_that_it_is_pinned_to(world: World, tmp_path: Path) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await world.execute(prices, tmp_path)
    digests = []
    for signal in (world.signal(), world.signal("MOMENTUM(close, 252, 21)", "MOMENTUM")):
        run = world.runs.submit(signal, REFRESH, {"input": prices})
        assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED
        digests.append(run.output_version.digest)
    assert digests[0] == digests[1]
    unpinned = world.runs.submit(world.signal("MOMENTUM(close, 252, 21)"), REFRESH, {"input": prices})
    await world.execute(unpinned, tmp_path)
    assert unpinned.error.type == "InvalidExpression"


async def test_an_expression_may_call_the_operators_that_it_is_pinned_to(
    world: World, tmp_path: Path
) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await world.execute(prices, tmp_path)
    digests = []
    for signal in (world.signal("RANK(close * 2) * 2"), world.signal("twice(RANK(TWICE(close)))", "TWICE")):
        run = world.runs.submit(signal, REFRESH, {"input": prices})
        assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED, run.error
        digests.append(run.output_version.digest)
    assert digests[0] == digests[1]
    misnamed = world.runs.submit(world.signal("MISNAMED(close)", "MISNAMED"), REFRESH, {"input": prices})
    await world.execute(misnamed, tmp_path)
    assert misnamed.error.type == "PluginInvalid"


async def test_integers_of_the_schema_arrive_as_int(world: World, tmp_path: Path) -> None:
    schema = {"properties": {"days": {"type": "integer"}, "rate": {"type": "number"}}}
    world.definitions.content["countdown"] = DefinitionVersion(parameters_schema=to_struct(schema))
    dataset = world.dataset(definition="countdown", days=300, rate=2, free=7)
    run = world.runs.submit(dataset, REFRESH)
    assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED, run.error
    version = run.output_version
    stored = DeltaStore().read(version.uri, version.physical_version)
    assert stored.height == 300
    assert stored["words"].unique().to_list() == ["days int, free int, rate float"]


async def test_an_operator_gets_its_whole_numbers_whole(world: World, tmp_path: Path) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await world.execute(prices, tmp_path)
    signal = world.runs.submit(
        world.signal("BACK(close, 2, 0) + BACK(close, 1)", "BACK"), REFRESH, {"input": prices}
    )
    assert (await world.execute(signal, tmp_path)).outcome is Outcome.COMPLETED, signal.error


async def test_the_chain_reads_pinned_versions_although_newer_ones_exist(
    world: World, tmp_path: Path
) -> None:
    dataset = world.dataset()
    first = world.runs.submit(dataset, REFRESH)
    assert (await world.execute(first, tmp_path)).outcome is Outcome.COMPLETED
    assert first.pipeline.rows_inserted == first.metrics["rows"]
    assert first.pipeline.rows_inserted > 0
    assert first.output_version.last_data_date == "2021-12-31"

    # The prices move on; the signal below stays pinned to the first version.
    dataset.dataset.pipeline.config["as_of"] = "2022-06-30"
    second = world.runs.submit(world.instances.put(dataset), REFRESH, base=first)
    assert (await world.execute(second, tmp_path)).outcome is Outcome.COMPLETED
    assert second.output_version.physical_version != first.output_version.physical_version
    assert second.pipeline.rows_updated == 0
    assert second.output_version.last_data_date == "2022-06-30"

    signal = world.signal()
    refresh = world.runs.submit(signal, REFRESH, {"input": first})
    assert (await world.execute(refresh, tmp_path)).outcome is Outcome.COMPLETED
    assert refresh.output_version.last_data_date == "2021-12-31"
    table = pl.read_delta(refresh.output_version.uri)
    assert table["value"].max() == 1.5, "winsorised at the bound"
    assert refresh.metrics["winsorized_values"] != 0

    backtest = world.backtest(signal)
    run = world.runs.submit(backtest, BACKTEST, {"signal": refresh, "prices": second})
    assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED
    assert set(run.artifacts) == {"equity_curve", "trades", "weights_history", "daily_returns"}
    curve = pl.read_parquet(run.artifacts["equity_curve"])
    assert curve["nav"][0] == 1_000_000
    assert curve.height == run.backtest.session_count == run.metrics["sessions"]
    assert run.output_version.uri == run.outputs_uri
    assert run.output_version.physical_version == run.run_id
    assert run.backtest.first_date == "2020-01-02"
    assert run.metrics["total_return"] == pytest.approx(curve["nav"][-1] / 1_000_000 - 1)


async def test_any_number_of_large_upstreams_is_read(world: World, tmp_path: Path) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await world.execute(prices, tmp_path)
    signal = world.signal()
    refresh = world.runs.submit(signal, REFRESH, {"input": prices})
    await world.execute(refresh, tmp_path)
    run = world.runs.submit(world.backtest(signal), BACKTEST, {"signal": refresh, "prices": prices})
    for number in range(world.instances.most):
        extra = run.input_versions.add(role="other", version=1, physical_version="0")
        extra.instance_id = world.dataset(f"other{number}").instance_id
    assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED, run.error


async def test_the_same_content_gives_the_same_digest_and_no_new_version(
    world: World, tmp_path: Path
) -> None:
    dataset = world.dataset()
    first = world.runs.submit(dataset, REFRESH)
    await world.execute(first, tmp_path)
    again = world.runs.submit(dataset, REFRESH, base=first)
    await world.execute(again, tmp_path)
    assert again.output_version == first.output_version
    assert again.pipeline.rows_inserted == again.pipeline.rows_updated == 0


async def test_leftovers_of_a_fenced_run_are_not_built_upon(world: World, tmp_path: Path) -> None:
    dataset = world.dataset(definition="probe", name="probe")
    first = world.runs.submit(dataset, REFRESH)
    await world.execute(first, tmp_path)
    leftover = world.runs.submit(dataset, REFRESH, base=first)
    await world.execute(leftover, tmp_path)  # two rows at the table's head that nobody is pinned to
    run = world.runs.submit(dataset, REFRESH, base=first)
    await world.execute(run, tmp_path)
    assert run.pipeline.rows_fetched == 2, "one row more than the base, not than the head"


async def test_the_run_sees_its_own_revision_of_the_instance(world: World, tmp_path: Path) -> None:
    old = world.dataset(as_of="2020-12-31")
    run = world.runs.submit(old, REFRESH)
    newer = world.dataset()
    newer.instance_id = old.instance_id
    world.instances.put(newer)
    await world.execute(run, tmp_path)
    assert run.output_version.last_data_date == "2020-12-31"


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        ("raise", "ZeroDivisionError", "nothing to divide by"),
        ("plugin_error", "NoLicence", "the vendor has no licence"),
        ("exit", "RuntimeError", "user code raised SystemExit(3)"),
        ("odd_texts", "ValueError", "no \\0, no \\udc80"),
        ("mute", "MuteError", "MuteError"),
        ("nothing", "PluginInvalid", "not a polars DataFrame"),
    ],
)
async def test_a_failure_is_reported_with_type_message_and_traceback(
    world: World, tmp_path: Path, behaviour: str, kind: str, message: str
) -> None:
    run = world.runs.submit(world.dataset(definition="probe", behaviour=behaviour), REFRESH)
    ending = await world.execute(run, tmp_path)
    assert ending.outcome is Outcome.FAILED
    assert run.status == run_pb2.RUN_STATUS_FAILED
    assert run.error.type == kind
    assert message in run.error.message
    assert run.error.trace_uri == run.artifacts["traceback"]
    assert message in _read_text(run.error.trace_uri)


@pytest.mark.parametrize("column", ["no\0te", ""])
async def test_a_column_whose_name_cannot_be_kept_fails_the_run_and_publishes_nothing(
    world: World, tmp_path: Path, column: str
) -> None:
    run = world.runs.submit(world.dataset(definition="odd_column", column=column), REFRESH)
    assert (await world.execute(run, tmp_path)).outcome is Outcome.FAILED
    assert run.error.type == "InvalidColumnName"
    assert f"column 3{' has no name' if not column else ''}" in run.error.message
    assert not (tmp_path / "acme" / run.instance_id / "refresh" / "data").exists()


async def test_an_instance_that_is_gone_fails_the_run(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(world.dataset(), REFRESH)
    del world.instances.stored[run.instance_id]
    await world.execute(run, tmp_path)
    assert run.error.type == "INSTANCE_NOT_FOUND"


async def test_progress_is_reported_while_it_computes(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(
        world.dataset(definition="probe", behaviour="wait", gate=str(tmp_path / "gate")), REFRESH
    )
    task = asyncio.create_task(world.execute(run, tmp_path))
    await eventually(lambda: any(message == "doing wait" for _, message in world.runs.progress))
    beats = world.runs.heartbeats
    await eventually(lambda: world.runs.heartbeats > beats + 2, message="the lease is kept without news")
    (tmp_path / "gate").touch()
    assert (await task).outcome is Outcome.COMPLETED
    assert world.runs.progress == sorted(world.runs.progress)


@pytest.mark.parametrize("how", ["fenced", "cancelled"])
async def test_a_run_that_is_lost_stops_at_once_and_publishes_nothing(
    world: World, tmp_path: Path, how: str
) -> None:
    run = world.runs.submit(
        world.dataset(definition="probe", behaviour="wait", gate=str(tmp_path / "gate")), REFRESH
    )
    task = asyncio.create_task(world.execute(run, tmp_path))
    await eventually((tmp_path / "gate.entered").exists)
    if how == "fenced":
        world.runs.is_fenced = True
    else:
        run.status = run_pb2.RUN_STATUS_CANCELLED
    ending = await task  # although the child still hangs
    assert ending.outcome is Outcome.CANCELLED
    assert not run.HasField("output_version")
    assert not (tmp_path / "acme" / run.instance_id / "refresh" / "data").exists()


async def test_values_that_a_store_changes_are_counted_in_the_metrics(world: World, tmp_path: Path) -> None:
    times = pl.Series([1_001], dtype=pl.Int64).cast(pl.Datetime("ns"))
    pl.DataFrame({"date": ["2024-01-02"], "entity": ["a"], "seen": times}).write_parquet(
        tmp_path / "a.parquet"
    )
    dataset = world.dataset(definition="file", url=str(tmp_path / "a.parquet"))
    run = world.runs.submit(dataset, REFRESH)
    assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED, run.error
    assert run.metrics["cut_times.seen"] == "1 times were cut to microseconds"


async def test_a_run_that_ended_before_it_started_ends_quietly(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(world.dataset(), REFRESH)
    run.status = run_pb2.RUN_STATUS_CANCELLED
    ending = await world.execute(run, tmp_path)
    assert ending == Ending(Outcome.CANCELLED, "RUN_ENDED: the run has ended")


async def test_nothing_is_lost_while_run_service_is_away(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(
        world.dataset(definition="probe", behaviour="wait", gate=str(tmp_path / "gate")), REFRESH
    )
    task = asyncio.create_task(world.execute(run, tmp_path))
    await eventually((tmp_path / "gate.entered").exists)
    await world.stop()
    (tmp_path / "gate").touch()
    data = tmp_path / "acme" / run.instance_id / "refresh" / "data" / "_delta_log"
    await eventually(data.exists, message="it computes on")
    assert run.status == run_pb2.RUN_STATUS_RUNNING
    await world.start()
    assert (await asyncio.wait_for(task, 15)).outcome is Outcome.COMPLETED
    assert run.status == run_pb2.RUN_STATUS_COMPLETED


async def test_a_stopped_worker_reports_that_it_was_stopped(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(
        world.dataset(definition="probe", behaviour="wait", gate=str(tmp_path / "gate")), REFRESH
    )
    task = asyncio.create_task(world.execute(run, tmp_path))
    await eventually((tmp_path / "gate.entered").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.error.type == "WorkerStopped"


async def test_a_flow_that_this_worker_cannot_execute_is_refused(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(world.dataset(), flow_pb2.FLOW_KIND_PREVIEW)
    await world.execute(run, tmp_path)
    assert run.error.type == "UnsupportedFlow"
