"""A run from its start to its end: real computation, the services behind a real channel."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from google.protobuf.struct_pb2 import Struct

from optaic.common.v1 import flow_pb2
from optaic.definition.v1.definition_pb2 import ENFORCEMENT_BLOCK, ENFORCEMENT_WARN, DefinitionVersion
from optaic.run.v1 import run_pb2
from support.polling import eventually
from support.worker import World, fill_composition, make_ticket, running_world
from worker.builtin.delta_store import DeltaStore
from worker.execution import Ending, Outcome, execute_run
from worker.profile import describe

REFRESH = flow_pb2.FLOW_KIND_REFRESH
BACKTEST = flow_pb2.FLOW_KIND_BACKTEST


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as running:
        yield running


async def _execute(world: World, run: run_pb2.Run, root: Path | str, **changes: Any) -> Ending:
    return await execute_run(make_ticket(run), world.settings(root, **changes), world.guardians.start)


async def test_the_data_root_may_be_a_uri(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(world.dataset(), REFRESH)
    root = (tmp_path / "a folder").as_uri()
    ending = await _execute(world, run, root)
    assert ending.outcome is Outcome.COMPLETED
    assert run.output_version.uri.startswith(root)
    version = run.output_version
    stored = DeltaStore().read(version.uri, version.physical_version)
    assert stored.height == run.metrics["rows"]
    assert run.pipeline.output_profile == describe(stored, ("date", "entity"))
    failing = world.runs.submit(world.dataset(definition="probe", behaviour="raise"), REFRESH)
    await _execute(world, failing, root)
    assert failing.error.trace_uri.startswith(root)


def to_struct(values: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _list(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_an_expression_may_call_the_macros_that_it_is_pinned_to(world: World, tmp_path: Path) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await _execute(world, prices, tmp_path)
    digests = []
    for signal in (world.signal(), world.signal("MOMENTUM(close, 252, 21)", "MOMENTUM")):
        run = world.runs.submit(signal, REFRESH, {"input": prices})
        assert (await _execute(world, run, tmp_path)).outcome is Outcome.COMPLETED
        digests.append(run.output_version.digest)
    assert digests[0] == digests[1]
    unpinned = world.runs.submit(world.signal("MOMENTUM(close, 252, 21)"), REFRESH, {"input": prices})
    await _execute(world, unpinned, tmp_path)
    assert unpinned.error.type == "InvalidExpression"


async def test_an_expression_may_call_the_operators_that_it_is_pinned_to(
    world: World, tmp_path: Path
) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await _execute(world, prices, tmp_path)
    digests = []
    for signal in (world.signal("RANK(close * 2) * 2"), world.signal("twice(RANK(TWICE(close)))", "TWICE")):
        run = world.runs.submit(signal, REFRESH, {"input": prices})
        assert (await _execute(world, run, tmp_path)).outcome is Outcome.COMPLETED, run.error
        digests.append(run.output_version.digest)
    assert digests[0] == digests[1]
    misnamed = world.runs.submit(world.signal("MISNAMED(close)", "MISNAMED"), REFRESH, {"input": prices})
    await _execute(world, misnamed, tmp_path)
    assert misnamed.error.type == "PluginInvalid"


async def test_whole_numbers_arrive_whole_where_the_schema_says_so(world: World, tmp_path: Path) -> None:
    schema = {"properties": {"days": {"type": "integer"}, "rate": {"type": "number"}}}
    world.definitions.content["countdown"] = DefinitionVersion(parameters_schema=to_struct(schema))
    dataset = world.dataset(definition="countdown", days=300, rate=2, free=7)
    run = world.runs.submit(dataset, REFRESH)
    assert (await _execute(world, run, tmp_path)).outcome is Outcome.COMPLETED, run.error
    version = run.output_version
    stored = DeltaStore().read(version.uri, version.physical_version)
    assert stored.height == 300
    assert stored["words"].unique().to_list() == ["days int, free int, rate float"]


async def test_an_operator_gets_its_whole_numbers_whole(world: World, tmp_path: Path) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await _execute(world, prices, tmp_path)
    signal = world.runs.submit(
        world.signal("BACK(close, 2, 0) + BACK(close, 1)", "BACK"), REFRESH, {"input": prices}
    )
    assert (await _execute(world, signal, tmp_path)).outcome is Outcome.COMPLETED, signal.error


async def test_the_chain_reads_pinned_versions_although_newer_ones_exist(
    world: World, tmp_path: Path
) -> None:
    dataset = world.dataset()
    first = world.runs.submit(dataset, REFRESH)
    assert (await _execute(world, first, tmp_path)).outcome is Outcome.COMPLETED
    assert first.pipeline.rows_inserted == first.metrics["rows"]
    assert first.pipeline.rows_inserted > 0
    assert first.output_version.last_data_date == "2021-12-31"

    # The prices move on; the signal below stays pinned to the first version.
    dataset.dataset.pipeline.config["as_of"] = "2022-06-30"
    second = world.runs.submit(world.instances.put(dataset), REFRESH, base=first)
    assert (await _execute(world, second, tmp_path)).outcome is Outcome.COMPLETED
    assert second.output_version.physical_version != first.output_version.physical_version
    assert second.pipeline.rows_updated == 0
    assert second.output_version.last_data_date == "2022-06-30"

    signal = world.signal()
    refresh = world.runs.submit(signal, REFRESH, {"input": first})
    assert (await _execute(world, refresh, tmp_path)).outcome is Outcome.COMPLETED
    assert refresh.output_version.last_data_date == "2021-12-31"
    table = pl.read_delta(refresh.output_version.uri)
    assert table["value"].max() == 1.5, "winsorised at the bound"
    assert refresh.metrics["winsorized_values"] != 0

    backtest = world.backtest(signal)
    run = world.runs.submit(backtest, BACKTEST, {"signal": refresh, "prices": second})
    assert (await _execute(world, run, tmp_path)).outcome is Outcome.COMPLETED
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
    await _execute(world, prices, tmp_path)
    signal = world.signal()
    refresh = world.runs.submit(signal, REFRESH, {"input": prices})
    await _execute(world, refresh, tmp_path)
    run = world.runs.submit(world.backtest(signal), BACKTEST, {"signal": refresh, "prices": prices})
    for number in range(world.instances.most):
        extra = run.input_versions.add(role="other", version=1, physical_version="0")
        extra.instance_id = world.dataset(f"other{number}").instance_id
    assert (await _execute(world, run, tmp_path)).outcome is Outcome.COMPLETED, run.error


async def test_the_same_content_gives_the_same_digest_and_no_new_version(
    world: World, tmp_path: Path
) -> None:
    dataset = world.dataset()
    first = world.runs.submit(dataset, REFRESH)
    await _execute(world, first, tmp_path)
    again = world.runs.submit(dataset, REFRESH, base=first)
    await _execute(world, again, tmp_path)
    assert again.output_version == first.output_version
    assert again.pipeline.rows_inserted == again.pipeline.rows_updated == 0


async def test_leftovers_of_a_fenced_run_are_not_built_upon(world: World, tmp_path: Path) -> None:
    dataset = world.dataset(definition="probe", name="probe")
    first = world.runs.submit(dataset, REFRESH)
    await _execute(world, first, tmp_path)
    leftover = world.runs.submit(dataset, REFRESH, base=first)
    await _execute(world, leftover, tmp_path)  # two rows at the table's head that nobody is pinned to
    run = world.runs.submit(dataset, REFRESH, base=first)
    await _execute(world, run, tmp_path)
    assert run.pipeline.rows_fetched == 2, "one row more than the base, not than the head"


async def test_the_run_sees_its_own_revision_of_the_instance(world: World, tmp_path: Path) -> None:
    old = world.dataset(as_of="2020-12-31")
    run = world.runs.submit(old, REFRESH)
    newer = world.dataset()
    newer.instance_id = old.instance_id
    world.instances.put(newer)
    await _execute(world, run, tmp_path)
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
    ending = await _execute(world, run, tmp_path)
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
    assert (await _execute(world, run, tmp_path)).outcome is Outcome.FAILED
    assert run.error.type == "InvalidColumnName"
    assert f"column 3{' has no name' if not column else ''}" in run.error.message
    assert not (tmp_path / "acme" / run.instance_id / "refresh" / "data").exists()


async def test_values_outside_the_contract_fail_the_run_and_publish_nothing(
    world: World, tmp_path: Path
) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await _execute(world, prices, tmp_path)
    signal = world.signal("close * 1000")
    signal.signal.contract.bounds_policy = 1
    run = world.runs.submit(world.instances.put(signal), REFRESH, {"input": prices})
    await _execute(world, run, tmp_path)
    assert run.error.type == "GuardrailViolated"
    assert not (tmp_path / "acme" / signal.instance_id / "refresh" / "data").exists()


async def test_an_instance_that_is_gone_fails_the_run(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(world.dataset(), REFRESH)
    del world.instances.stored[run.instance_id]
    await _execute(world, run, tmp_path)
    assert run.error.type == "INSTANCE_NOT_FOUND"


async def test_progress_is_reported_while_it_computes(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(
        world.dataset(definition="probe", behaviour="wait", gate=str(tmp_path / "gate")), REFRESH
    )
    task = asyncio.create_task(_execute(world, run, tmp_path))
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
    task = asyncio.create_task(_execute(world, run, tmp_path))
    await eventually((tmp_path / "gate.entered").exists)
    if how == "fenced":
        world.runs.is_fenced = True
    else:
        run.status = run_pb2.RUN_STATUS_CANCELLED
    ending = await task  # although the child still hangs
    assert ending.outcome is Outcome.CANCELLED
    assert not run.HasField("output_version")
    assert not (tmp_path / "acme" / run.instance_id / "refresh" / "data").exists()


@pytest.mark.parametrize("blocks", [True, False])
async def test_a_guardrail_of_the_pipeline_is_held(world: World, tmp_path: Path, *, blocks: bool) -> None:
    content = DefinitionVersion()
    enforcement = ENFORCEMENT_BLOCK if blocks else ENFORCEMENT_WARN
    contract = content.guardrail_contracts.add(name="small", check="signal_bounds", enforcement=enforcement)
    contract.parameters["max"] = 0.5
    content.guardrail_contracts.add(name="there", check="required_columns", enforcement=ENFORCEMENT_BLOCK)
    content.guardrail_contracts[1].parameters["columns"] = ["value"]
    world.definitions.content["probe"] = content
    run = world.runs.submit(world.dataset(definition="probe"), REFRESH)
    ending = await _execute(world, run, tmp_path)
    text = "1 values of 'value' outside [, 0.5], for example {'date': datetime.date(2020, 1, 1)"
    if not blocks:
        assert ending.outcome is Outcome.COMPLETED
        assert str(run.metrics["guardrail.small"]).startswith(text)
        assert "guardrail.there" not in run.metrics
    else:
        assert ending.outcome is Outcome.FAILED
        assert run.error.type == "GuardrailViolated"
        assert run.error.message.startswith(f"guardrail 'small' (signal_bounds): {text}")
        assert not run.HasField("output_version")
        assert not (tmp_path / "acme" / run.instance_id / "refresh" / "data").exists()


async def test_what_a_store_keeps_otherwise_is_told_in_the_metrics(world: World, tmp_path: Path) -> None:
    times = pl.Series([1_001], dtype=pl.Int64).cast(pl.Datetime("ns"))
    pl.DataFrame({"date": ["2024-01-02"], "entity": ["a"], "seen": times}).write_parquet(
        tmp_path / "a.parquet"
    )
    dataset = world.dataset(definition="file", url=str(tmp_path / "a.parquet"))
    run = world.runs.submit(dataset, REFRESH)
    assert (await _execute(world, run, tmp_path)).outcome is Outcome.COMPLETED, run.error
    assert run.metrics["cut_times.seen"] == "1 times were cut to microseconds"


@pytest.mark.parametrize(("timezone", "day"), [("", "2026-01-02"), ("Asia/Tokyo", "2026-01-03")])
async def test_the_day_of_a_tick_is_one_of_the_datasets_zone(
    world: World, tmp_path: Path, timezone: str, day: str
) -> None:
    content = DefinitionVersion()
    content.guardrail_contracts.add(name="fresh", check="freshness", enforcement=ENFORCEMENT_WARN)
    content.guardrail_contracts[0].parameters["max_age_days"] = 0
    world.definitions.content["probe"] = content
    dataset = world.dataset(definition="probe")
    dataset.dataset.timezone = timezone
    never = world.runs.submit(world.instances.put(dataset), REFRESH)
    ticket = make_ticket(never, run_id="")  # 16:30 in UTC
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    assert ending.outcome is Outcome.COMPLETED
    *_, run = world.runs.stored.values()
    assert f"days before {day}, 0 are allowed" in str(run.metrics["guardrail.fresh"])


@pytest.mark.parametrize("output", [{"format": "csv"}, True, 3, ""])
@pytest.mark.parametrize("is_held", [True, False])
async def test_what_a_pipeline_calls_output_need_be_no_column(
    world: World, tmp_path: Path, output: object, *, is_held: bool
) -> None:
    content = DefinitionVersion()
    if is_held:
        content.guardrail_contracts.add(name="a", check="signal_bounds", enforcement=ENFORCEMENT_BLOCK)
        content.guardrail_contracts[0].parameters["max"] = 1
    world.definitions.content["probe"] = content
    run = world.runs.submit(world.dataset(definition="probe", output=output), REFRESH)
    assert (await _execute(world, run, tmp_path)).outcome is Outcome.COMPLETED


async def test_a_table_is_what_the_pipeline_says_it_yields(world: World, tmp_path: Path) -> None:
    content = DefinitionVersion()
    content.output_schema["required"] = ["close"]
    world.definitions.content["probe"] = content
    run = world.runs.submit(world.dataset(definition="probe"), REFRESH)
    await _execute(world, run, tmp_path)
    assert run.error.type == "SchemaMismatch"
    assert "no column 'close'" in run.error.message
    assert not (tmp_path / "acme" / run.instance_id / "refresh" / "data").exists()


async def test_a_run_says_the_code_of_all_that_it_executes(world: World, tmp_path: Path) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await _execute(world, prices, tmp_path)
    assert {code.definition_name: code.is_builtin for code in prices.code} == {
        "sp500_prices": True,
        "delta": True,
        "simple": True,
    }
    assert {code.distribution for code in prices.code} == {"optaic"}
    signal = world.runs.submit(world.signal("TWICE(close)", "TWICE"), REFRESH, {"input": prices})
    await _execute(world, signal, tmp_path)
    assert signal.status == run_pb2.RUN_STATUS_COMPLETED
    said = {code.definition_name: code for code in signal.code}
    assert set(said) == {"expression", "TWICE", "delta", "simple"}
    twice = said["TWICE"]
    assert (twice.code_ref, twice.definition_version, twice.is_builtin) == (
        "support.worker_plugins:Twice",
        "1.0.0",
        False,
    )
    assert len({code.hash for code in signal.code}) == 4
    assert twice.check == run_pb2.CODE_CHECK_REFUSE
    backtest = world.runs.submit(
        world.backtest(world.signal()), BACKTEST, {"prices": prices, "signal": signal}
    )
    backtest.input_versions[1].instance_id = world.instances.newest(
        backtest.instance_id
    ).backtest.signals.primary
    await _execute(world, backtest, tmp_path)
    assert {code.definition_name for code in backtest.code} == {"delta", "simple"}


async def test_the_store_that_wrote_the_base_counts_among_what_is_executed(
    world: World, tmp_path: Path
) -> None:
    dataset = world.dataset(definition="probe")
    first = world.runs.submit(dataset, REFRESH)
    await _execute(world, first, tmp_path)
    changed = copy.deepcopy(dataset)
    fill_composition(changed.dataset, "probe", {}, store="delta_next")
    run = world.runs.submit(world.instances.put(changed), REFRESH, base=first)
    run.base_version.instance_revision = 1
    await _execute(world, run, tmp_path)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    assert {code.definition_name for code in run.code} == {"probe", "delta_next", "delta", "simple"}
    assert run.output_version.physical_version == "1"  # the same code with another version goes on in place


@pytest.mark.parametrize("by_schedule", [False, True])
async def test_code_that_is_refused_is_not_executed(
    world: World, tmp_path: Path, *, by_schedule: bool
) -> None:
    world.runs.refused_code = {"probe"}
    mark = tmp_path / "mark"
    dataset = world.dataset(definition="probe", mark=str(mark))
    run = world.runs.submit(dataset, REFRESH)
    ticket = make_ticket(run, run_id="" if by_schedule else None)
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    ran = list(world.runs.stored.values())[-1]
    assert (ran.status, ran.error.type) == (run_pb2.RUN_STATUS_FAILED, "CODE_CHANGED")
    assert ending == Ending(Outcome.FAILED, "CODE_CHANGED: probe")
    assert not mark.exists()


async def test_a_tick_of_the_schedule_is_adopted_at_its_nominal_time(world: World, tmp_path: Path) -> None:
    dataset = world.dataset()
    ticket = make_ticket(run_pb2.Run(instance_id=dataset.instance_id, flow_kind=REFRESH), run_id="")
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    assert ending.outcome is Outcome.COMPLETED
    (tick,) = world.runs.ticks
    assert tick.scheduled_time.ToDatetime(dt.UTC) == ticket.scheduled_time
    assert tick.flow.flow_kind == REFRESH


async def test_a_tick_refused_at_the_gate_ends_quietly_with_its_reason(world: World, tmp_path: Path) -> None:
    world.runs.refusal = "UPSTREAM_NOT_READY"
    dataset = world.dataset()
    ticket = make_ticket(run_pb2.Run(instance_id=dataset.instance_id, flow_kind=REFRESH), run_id="")
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    assert ending == Ending(Outcome.CANCELLED, "UPSTREAM_NOT_READY: refused at the gate")
    assert not _list(tmp_path)


async def test_a_tick_of_a_flow_that_is_not_computed_ends_quietly(world: World, tmp_path: Path) -> None:
    ticket = make_ticket(
        run_pb2.Run(instance_id=world.dataset().instance_id, flow_kind=flow_pb2.FLOW_KIND_TRAINING), run_id=""
    )
    world.runs.is_unsupported = True
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    assert ending == Ending(Outcome.CANCELLED, "UNSUPPORTED_FLOW: not computed yet")


async def test_a_run_that_ended_before_it_started_ends_quietly(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(world.dataset(), REFRESH)
    run.status = run_pb2.RUN_STATUS_CANCELLED
    ending = await _execute(world, run, tmp_path)
    assert ending == Ending(Outcome.CANCELLED, "RUN_ENDED: the run has ended")


async def test_nothing_is_lost_while_run_service_is_away(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(
        world.dataset(definition="probe", behaviour="wait", gate=str(tmp_path / "gate")), REFRESH
    )
    task = asyncio.create_task(_execute(world, run, tmp_path))
    await eventually((tmp_path / "gate.entered").exists)
    await world.stop()
    (tmp_path / "gate").touch()
    data = tmp_path / "acme" / run.instance_id / "refresh" / "data" / "_delta_log"
    await eventually(data.exists, message="it computes on")
    assert run.status == run_pb2.RUN_STATUS_RUNNING
    await world.start()
    assert (await asyncio.wait_for(task, 15)).outcome is Outcome.COMPLETED
    assert run.status == run_pb2.RUN_STATUS_COMPLETED


async def test_a_stopped_worker_says_so(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(
        world.dataset(definition="probe", behaviour="wait", gate=str(tmp_path / "gate")), REFRESH
    )
    task = asyncio.create_task(_execute(world, run, tmp_path))
    await eventually((tmp_path / "gate.entered").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.error.type == "WorkerStopped"


async def test_a_flow_that_this_worker_cannot_execute_is_refused(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(world.dataset(), flow_pb2.FLOW_KIND_MONITORING)
    await _execute(world, run, tmp_path)
    assert run.error.type == "UnsupportedFlow"
