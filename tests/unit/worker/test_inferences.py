"""An inference from the instances to its predictions, and what reads these."""

from __future__ import annotations

import datetime as dt
import math
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from google.protobuf.json_format import MessageToDict

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.rules.locations import local_path
from optaic.run.v1 import run_pb2
from support.guarded import Answer, Asked, answering
from support.panels import FIRST, make_prices
from support.worker import World
from worker import trained
from worker.execution import Outcome

REFRESH, TRAINING, INFERENCE, BACKTEST = (
    flow_pb2.FLOW_KIND_REFRESH,
    flow_pb2.FLOW_KIND_TRAINING,
    flow_pb2.FLOW_KIND_INFERENCE,
    flow_pb2.FLOW_KIND_BACKTEST,
)


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


async def _execute(
    world: World, run: run_pb2.Run, root: Path, outcome: Outcome = Outcome.COMPLETED, **changes: Any
) -> run_pb2.Run:
    ending = await world.execute(run, root, **changes)
    assert ending.outcome is outcome, run.error
    return run


async def _prices(world: World, folder: Path) -> run_pb2.Run:
    make_prices().write_csv(folder / "prices.csv")
    dataset = world.dataset(definition="file", url=str(folder / "prices.csv"))
    return await _execute(world, world.runs.submit(dataset, REFRESH), folder)


def _model(world: World, prices: run_pb2.Run, **config: Any) -> Any:
    model = world.model(**config)
    model.upstream_refs.add(resource_id=prices.instance_id, role="features", name="prices")
    return world.instances.put(model)


def _copy(instance: instance_pb2.Instance) -> instance_pb2.Instance:
    """Return an instance for its next revision; what is stored stays."""
    changed = instance_pb2.Instance()
    changed.CopyFrom(instance)
    return changed


async def _train(
    world: World, model: Any, prices: run_pb2.Run, root: Path, data_date: dt.date | None = None
) -> run_pb2.Run:
    run = world.runs.submit(model, TRAINING, {"features": prices})
    if data_date is not None:
        run.parameters["data_date"] = str(data_date)
    return await _execute(world, run, root)


async def _infer(
    world: World,
    model: Any,
    inputs: dict[str, run_pb2.Run],
    root: Path,
    base: run_pb2.Run | None = None,
    outcome: Outcome = Outcome.COMPLETED,
    **changes: Any,
) -> run_pb2.Run:
    run = world.runs.submit(model, INFERENCE, inputs, base)
    return await _execute(world, run, root, outcome, **changes)


def _list_tables(root: Path) -> list[Path]:
    return list(root.rglob("inference/data"))


def _read(run: run_pb2.Run) -> pl.DataFrame:
    output = run.output_version
    return pl.read_delta(output.uri, version=int(output.physical_version)).sort("date", "entity")


async def test_predictions_begin_where_the_labels_of_the_training_end(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    training = await _train(world, model, prices, tmp_path, day(49))
    run = await _infer(world, model, {"features": prices, "model": training}, tmp_path)
    table = _read(run)
    assert table.columns == ["date", "entity", "value", "confidence"]
    validation = pl.read_parquet(local_path(f"{training.output_version.uri}{trained.VALIDATION}"))
    assert table["date"].min() == validation["date"].min()
    assert table["date"].max() == day(59)
    early = table.filter(pl.col("date") < day(49))
    assert early.equals(validation.filter(pl.col("date") < day(49)).sort("date", "entity"))
    assert run.model_artifact_version == training.run_id
    assert run.inference.model_run_id == training.run_id
    assert (run.inference.prediction_count, run.inference.train_end) == (table.height, str(day(46)))
    assert run.output_version.last_data_date == str(day(59))
    metrics = dict(run.metrics)
    assert metrics["in_sample_rows"] == metrics["gap_sessions"] == 0
    assert metrics["mean_confidence"] is None  # this model says none
    assert math.isnan(run.inference.mean_confidence)
    assert run.inference.mean == metrics["mean"] == pytest.approx(table["value"].mean())
    assert metrics["predicted_rows"] == 8 * 11
    assert {each.definition_name for each in run.code} >= {"ridge"}
    assert all(each.definition_version_id for each in run.code)


async def test_later_trainings_continue_the_history(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    first = await _train(world, model, prices, tmp_path, day(39))
    one = await _infer(world, model, {"features": prices, "model": first}, tmp_path)
    second = await _train(world, model, prices, tmp_path, day(49))
    inputs = {"features": prices, "model": second}
    other = await _infer(world, model, inputs, tmp_path, one)
    before = pl.col("date") < day(49)
    assert _read(other).filter(before).equals(_read(one).filter(before))
    assert not _read(other).filter(~before).equals(_read(one).filter(~before))
    full = world.runs.submit(model, INFERENCE, inputs, other)
    full.mode = run_pb2.RUN_MODE_FULL
    await _execute(world, full, tmp_path)
    assert _read(full).equals(_read(other))
    assert full.output_version.digest == other.output_version.digest
    # A version that is trained to a later day is not read, although there is one.
    again = await _infer(world, model, {"features": prices, "model": first}, tmp_path)
    assert _read(again).equals(_read(one))


async def test_the_champion_is_read_with_the_features_that_it_was_trained_with(
    world: World, tmp_path: Path
) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    training = await _train(world, model, prices, tmp_path, day(49))
    expected = _read(await _infer(world, model, {"features": prices, "model": training}, tmp_path))
    model = _copy(model)
    model.config.update({"features": [{"name": "other", "expression": "close"}]})
    model.model.champion.model_version = "3"
    model.model.champion.training_run_id = training.run_id
    promoted = world.instances.put(model)
    await _train(world, promoted, prices, tmp_path)
    run = await _infer(world, promoted, {"features": prices}, tmp_path)
    assert _read(run).equals(expected)
    assert run.model_artifact_version == "3"
    assert run.metrics["features_of_revision"] == training.instance_revision
    assert MessageToDict(run.metrics)["warnings"] == [
        "MLflow does not say whether it still has the champion, version 3"
    ]


@pytest.mark.parametrize(("answer", "error"), [("MISSING", "ModelVersionNotFound"), ("FOUND", "")])
async def test_a_champion_that_mlflow_no_longer_has_is_not_read(
    world: World, tmp_path: Path, answer: str, error: str
) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    training = await _train(world, model, prices, tmp_path, day(49))
    model = _copy(model)
    model.model.champion.model_version, model.model.champion.training_run_id = "3", training.run_id
    promoted = world.instances.put(model)
    asked: list[str] = []

    def say(request: Asked) -> Answer:
        asked.append(request.path)
        if answer == "MISSING":
            return Answer('{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"}', status=404)
        return Answer('{"model_version": {"version": "3"}}')

    async with answering(say) as url:
        outcome = Outcome.FAILED if error else Outcome.COMPLETED
        run = await _infer(world, promoted, {"features": prices}, tmp_path, outcome=outcome, mlflow_url=url)
    assert run.error.type == error
    # What the training owes MLflow is delivered besides.
    (question,) = [each for each in asked if "model-versions/get" in each]
    assert f"{model.instance_id}&version=3" in question
    assert "model.champion" in run.error.message if error else not MessageToDict(run.metrics)["warnings"]


@pytest.mark.parametrize("named", ["", "0190a000-0000-7000-8000-000000000000"])
async def test_a_champion_that_no_training_of_the_model_made_is_not_read(
    world: World, tmp_path: Path, named: str
) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    await _train(world, model, prices, tmp_path)
    model.model.champion.model_version, model.model.champion.training_run_id = "3", named
    run = await _infer(
        world, world.instances.put(model), {"features": prices}, tmp_path, outcome=Outcome.FAILED
    )
    assert run.error.type == "ModelFilesNotFound"
    assert "model.champion" in run.error.message
    assert not _list_tables(tmp_path)


async def test_without_its_files_a_version_is_not_read(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    training = await _train(world, model, prices, tmp_path)
    inputs = {"features": prices, "model": training}
    shutil.rmtree(local_path(training.output_version.uri))
    run = await _infer(world, model, inputs, tmp_path, outcome=Outcome.FAILED)
    assert run.error.type == "ModelFilesNotFound"
    assert training.run_id in run.error.message
    missing = await _infer(world, model, {"features": prices}, tmp_path, outcome=Outcome.FAILED)
    assert missing.error.type == "MissingInput"


async def test_a_training_elsewhere_is_not_read(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    training = await _train(world, model, prices, tmp_path)
    inputs = {"features": prices, "model": training}
    foreign = training.output_version.uri.replace(model.instance_id, prices.instance_id)
    training.output_version.uri = foreign
    run = await _infer(world, model, inputs, tmp_path, outcome=Outcome.FAILED)
    assert run.error.type == "InputMisplaced"


async def test_an_upstream_that_the_model_no_longer_reads_is_named(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    training = await _train(world, model, prices, tmp_path)
    other = await _execute(
        world,
        world.runs.submit(
            world.dataset("other", definition="file", url=str(tmp_path / "prices.csv")), REFRESH
        ),
        tmp_path,
    )
    model = _copy(model)
    del model.upstream_refs[:]
    model.upstream_refs.add(resource_id=other.instance_id, role="features", name="other")
    changed = world.instances.put(model)
    run = await _infer(
        world, changed, {"features": other, "model": training}, tmp_path, outcome=Outcome.FAILED
    )
    assert run.error.type == "MissingInput"
    assert "prices" in run.error.message


async def test_whatever_reads_a_signal_reads_the_predictions(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    training = await _train(world, model, prices, tmp_path, day(44))
    predictions = await _infer(world, model, {"features": prices, "model": training}, tmp_path)
    backtest = world.backtest(model)
    backtest.backtest.date_range.Clear()
    backtest.backtest.config.rebalance_frequency = "weekly"
    backtest = world.instances.put(backtest)
    inputs = {"signal": predictions, "prices": prices}
    tested = await _execute(world, world.runs.submit(backtest, BACKTEST, inputs), tmp_path)
    assert tested.backtest.session_count > 10
    assert tested.backtest.execution_count > 1
    signal = world.signal("value * 2")
    signal.signal.contract.Clear()
    signal = world.instances.put(signal)
    derived = await _execute(world, world.runs.submit(signal, REFRESH, {"input": predictions}), tmp_path)
    doubled = _read(derived).sort("date", "entity")
    assert doubled["value"].equals(_read(predictions)["value"] * 2)


@pytest.mark.parametrize("isolation", ["none", "auto"])
async def test_a_confined_child_reads_the_trainings_of_its_own_model(
    world: World, tmp_path: Path, isolation: str
) -> None:
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    for number in (39, 49):
        training = await _train(world, model, prices, tmp_path, day(number))
    inputs = {"features": prices, "model": training}
    run = await _infer(world, model, inputs, tmp_path, child_isolation=isolation)
    assert _read(run)["date"].max() == day(59)
    read = MessageToDict(run.metrics)["predictions_of_training"]
    assert set(read) == {each.run_id for each in world.runs.stored.values() if each.flow_kind == TRAINING}


async def test_a_run_without_the_listing_is_lost(world: World, tmp_path: Path) -> None:
    """Another executor took the run over while this one asked."""
    prices = await _prices(world, tmp_path)
    model = _model(world, prices)
    training = await _train(world, model, prices, tmp_path)
    world.runs.is_fenced = True
    run = world.runs.submit(model, INFERENCE, {"features": prices, "model": training})
    ending = await world.execute(run, tmp_path)
    assert ending.outcome is Outcome.CANCELLED
    assert run.status == run_pb2.RUN_STATUS_RUNNING, "this executor has nothing to say of it"
