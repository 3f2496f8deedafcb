"""Runs of experiments, from the instances to their artifacts and metrics."""

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2
from support.worker import World
from worker.builtin.delta_store import DeltaStore
from worker.execution import Outcome

REFRESH, PREVIEW = flow_pb2.FLOW_KIND_REFRESH, flow_pb2.FLOW_KIND_PREVIEW


async def execute(world: World, run: Any, root: Path, outcome: Outcome = Outcome.COMPLETED) -> Any:
    ending = await world.execute(run, root)
    assert ending.outcome is outcome, run.error
    return run


def list_previews(root: Path) -> list[Path]:
    return list(root.rglob("preview*.parquet"))


async def prices(world: World, root: Path) -> Any:
    return await execute(world, world.runs.submit(world.dataset(), REFRESH), root)


async def test_a_preview_has_the_rows_of_a_signal_with_the_same_expression(
    world: World, tmp_path: Path
) -> None:
    read = await prices(world, tmp_path)
    signal = world.signal("MOMENTUM(close, 252, 21)", "MOMENTUM")
    signal.signal.contract.Clear()
    signal = world.instances.put(signal)
    values = await execute(world, world.runs.submit(signal, REFRESH, {"input": read}), tmp_path)
    made = world.experiment()
    made.experiment.date_range.start, made.experiment.date_range.end = "2020-01-02", "2020-12-31"
    made.experiment.universe.extend(["AAPL", "GE"])
    made = world.instances.put(made)
    submitted = world.runs.submit(made, PREVIEW, {"input": read, "prices": read})
    run = await execute(world, submitted, tmp_path)
    assert set(run.artifacts) == {"data", "preview", "preview_sample"}
    shown = pl.read_parquet(run.artifacts["preview"])
    whole = pl.read_delta(values.artifacts["data"])
    kept = pl.col("date").dt.year().eq(2020) & pl.col("entity").is_in(["AAPL", "GE"])
    assert shown.equals(whole.filter(kept).sort("date", "entity").select(shown.columns))
    assert shown["value"].null_count() == 0  # the warm-up lies before the range
    assert pl.read_parquet(run.artifacts["preview_sample"]).equals(shown)
    result, metrics = run.experiment, dict(run.metrics)
    assert (result.row_count, result.nan_share) == (shown.height, 0.0)
    for name in ("mean", "std", "min", "max", "skewness", "kurtosis"):
        assert getattr(result, name) == metrics[name]
    assert (metrics["first_date"], metrics["last_date"]) == ("2020-01-02", "2020-12-31")
    assert metrics["ic_dates_21"] == metrics["dates"]
    assert list(metrics["warnings"]) == []
    output = run.output_version
    assert output.uri == run.artifacts["data"]
    assert DeltaStore().read(output.uri, output.physical_version).equals(shown)
    assert output.last_data_date == "2020-12-31"
    again = world.runs.submit(made, PREVIEW, {"input": read, "prices": read})
    assert (await execute(world, again, tmp_path)).output_version.digest == output.digest


async def test_what_takes_an_experiment_reads_its_rows(world: World, tmp_path: Path) -> None:
    read = await prices(world, tmp_path)
    run = await execute(world, world.runs.submit(world.experiment(), PREVIEW, {"input": read}), tmp_path)
    reader = world.signal("value * 2")
    reader.signal.contract.Clear()
    reader = world.instances.put(reader)
    doubled = await execute(world, world.runs.submit(reader, REFRESH, {"input": run}), tmp_path)
    found = pl.read_delta(doubled.artifacts["data"]).sort("date", "entity")["value"]
    assert found.equals(pl.read_parquet(run.artifacts["preview"])["value"] * 2)


async def test_an_undefined_figure_is_nan_in_the_result_and_null_in_the_metrics(
    world: World, tmp_path: Path
) -> None:
    read = await prices(world, tmp_path)
    made = world.experiment(x="close", long=2520, short=21)
    run = await execute(world, world.runs.submit(made, PREVIEW, {"input": read, "prices": read}), tmp_path)
    assert run.experiment.nan_share == 1.0
    assert all(math.isnan(getattr(run.experiment, name)) for name in ("mean", "std", "min", "kurtosis"))
    assert run.metrics["mean"] is run.metrics["rank_autocorrelation"] is run.metrics["ic_mean_1"] is None
    assert list(run.metrics["quintile_returns_5"]) == [None] * 5
    assert "no row has a value" in run.metrics["warnings"][0]


async def test_an_operator_of_the_language_is_previewed(world: World, tmp_path: Path) -> None:
    read = await prices(world, tmp_path)
    made = world.experiment("STD", x="PCT(close, 1)", n=20.0, min_periods=5)
    run = await execute(world, world.runs.submit(made, PREVIEW, {"input": read}), tmp_path)
    assert run.metrics["warm_up_sessions"] == 20
    assert run.code[0].definition_name == "STD"
    assert all(each.is_builtin for each in run.code)


async def test_an_operator_of_another_package_gets_its_arguments_in_their_order(
    world: World, tmp_path: Path
) -> None:
    read = await prices(world, tmp_path)
    version = definition_pb2.DefinitionVersion()
    version.op.values.append("x")
    version.op.numbers.extend(["n", "by"])
    described: Any = {"n": {"type": "integer"}, "by": {"type": "number", "default": 0.5}}
    version.parameters_schema.update({"properties": described})
    world.definitions.content["BACK"] = version
    made = world.experiment("BACK", "TWICE", n=2.0, x="TWICE(close)")
    run = await execute(world, world.runs.submit(made, PREVIEW, {"input": read}), tmp_path)
    shown = pl.read_parquet(run.artifacts["preview"]).sort("entity", "date")
    closes = pl.read_delta(read.artifacts["data"]).sort("entity", "date")
    assert shown["value"].equals(closes.select(pl.col("close").shift(2).over("entity")).to_series())
    assert {"BACK", "TWICE"} <= {each.definition_name for each in run.code}


async def test_an_argument_may_call_another_version_of_the_same_macro(world: World, tmp_path: Path) -> None:
    read = await prices(world, tmp_path)
    made = world.experiment("TREND", "TREND", x="close", fast=2, slow=3)
    inner = await execute(world, world.runs.submit(made, PREVIEW, {"input": read}), tmp_path)
    doubling = definition_pb2.OpMacro(parameters=["x"], expression="x * 2")
    macro = definition_pb2.DefinitionVersion(op_macro=doubling)
    world.definitions.content["countdown"] = macro  # stands for an earlier version of TREND
    macro.definition_name = "TREND"
    outer = world.experiment("countdown", "TREND", x="TREND(close, 2, 3)")
    run = await execute(world, world.runs.submit(outer, PREVIEW, {"input": read}), tmp_path)
    values, doubled = (pl.read_parquet(each.artifacts["preview"])["value"] for each in (inner, run))
    assert doubled.equals(values * 2)


@pytest.mark.parametrize(
    ("config", "kind", "said"),
    [
        ({"x": "clos", "long": 252, "short": 21}, "InvalidExpression", "config.x: unknown column 'clos'"),
        ({"x": "close", "long": 252}, "InvalidConfig", "config.short: is required by MOMENTUM"),
        ({"x": "close", "long": 252, "short": -1}, "InvalidExpression", "must be between 0 and 10000"),
    ],
)
async def test_a_failed_preview_names_the_field_and_leaves_nothing(
    world: World, tmp_path: Path, config: dict[str, Any], kind: str, said: str
) -> None:
    read = await prices(world, tmp_path)
    run = world.runs.submit(world.experiment(**config), PREVIEW, {"input": read})
    await execute(world, run, tmp_path, Outcome.FAILED)
    assert (run.error.type, said in run.error.message) == (kind, True), run.error
    assert set(run.artifacts) <= {"traceback"}
    assert not list_previews(tmp_path)


@pytest.mark.parametrize("blocks", [True, False])
async def test_the_guardrails_of_the_definition_hold(world: World, tmp_path: Path, *, blocks: bool) -> None:
    read = await prices(world, tmp_path)
    version = definition_pb2.DefinitionVersion()
    enforcement = definition_pb2.ENFORCEMENT_BLOCK if blocks else definition_pb2.ENFORCEMENT_WARN
    bounds = version.guardrail_contracts.add(name="small", check="signal_bounds", enforcement=enforcement)
    bounds.parameters.update({"max": 0})
    world.definitions.content["STD"] = version
    run = world.runs.submit(world.experiment("STD", x="close", n=5), PREVIEW, {"input": read})
    await execute(world, run, tmp_path, Outcome.FAILED if blocks else Outcome.COMPLETED)
    said = run.error.message if blocks else str(run.metrics["guardrail.small"])
    assert "values of 'value' outside [, 0]" in said
    assert bool(list_previews(tmp_path)) is not blocks
    assert run.error.type == ("GuardrailViolated" if blocks else "")


async def test_a_preview_without_an_input_is_refused(world: World, tmp_path: Path) -> None:
    read = await prices(world, tmp_path)
    run = world.runs.submit(world.experiment(), PREVIEW, {"prices": read})
    await execute(world, run, tmp_path, Outcome.FAILED)
    assert (run.error.type, "role input" in run.error.message) == ("MissingInput", True)
