"""A training from the instances to the version that inference reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow.sklearn
import polars as pl
import pytest
from google.protobuf.json_format import MessageToDict

from optaic.common.v1 import flow_pb2
from optaic.rules.locations import local_path
from optaic.run.v1 import run_pb2
from support.panels import CONFIG, make_prices
from support.worker import World
from support.worker_models import MeanModel
from worker import trained
from worker.builtin.ml_modules import RidgeModule
from worker.execution import Outcome

REFRESH, TRAINING = flow_pb2.FLOW_KIND_REFRESH, flow_pb2.FLOW_KIND_TRAINING


async def _prices(world: World, folder: Path, table: pl.DataFrame, base: Any = None) -> Any:
    table.write_csv(folder / "prices.csv")
    dataset = base or world.dataset(definition="file", url=str(folder / "prices.csv"))
    instance = world.instances.newest(dataset.instance_id)
    return await _execute(world, world.runs.submit(instance, REFRESH), folder)


async def _execute(world: World, run: run_pb2.Run, root: Path, **changes: Any) -> run_pb2.Run:
    ending = await world.execute(run, root, **changes)
    assert ending.outcome is Outcome.COMPLETED, run.error
    return run


async def _train(
    world: World, model: Any, prices: Any, root: Path, data_date: str = "", **changes: Any
) -> run_pb2.Run:
    run = world.runs.submit(model, TRAINING, {"features": prices})
    if data_date:
        run.parameters["data_date"] = data_date
    return await _execute(world, run, root, **changes)


def _file(run: run_pb2.Run, name: str) -> Path:
    return Path(local_path(run.output_version.uri)) / name


async def test_a_training_writes_the_version_that_inference_reads(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path, make_prices())
    model = world.model()
    run = await _train(world, model, prices, tmp_path)
    version = run.output_version
    assert (version.uri, version.physical_version) == (run.outputs_uri, run.run_id)
    assert (version.last_data_date, version.readers_hash) == ("2020-02-26", "")
    assert run.training == run_pb2.TrainingResult(
        model_uri=f"{run.outputs_uri}mlflow_model",
        train_row_count=336,
        validation_row_count=96,
        train_end="2020-02-26",
        label_end="2020-02-29",
    )
    facts = json.loads(_file(run, trained.FACTS).read_text())
    assert facts == {
        "train_end": "2020-02-26",
        "label_end": "2020-02-29",
        "validation_label_end": "2020-02-14",
        "horizon": 3,
        "instance_revision": 1,
        "run_id": run.run_id,
        "features": ["week", "spread"],
        "reference": {"start": "2020-01-01", "end": "2020-02-26"},
        "task": "regression",
    }
    assert set(run.artifacts) == {
        "model", "mlflow_model", "validation_predictions", "importance", "training",
    }  # fmt: skip
    stored = pl.read_parquet(local_path(run.artifacts["validation_predictions"]))
    assert stored.columns == ["date", "entity", "value", "confidence"]
    features = pl.DataFrame({"week": [0.01, -0.02], "spread": [0.01, 0.02]})
    loaded = RidgeModule(CONFIG)
    loaded.load(_file(run, trained.MODEL))
    said = loaded.predict(features)["prediction"].to_list()
    in_mlflow = mlflow.sklearn.load_model(str(_file(run, trained.MLFLOW_MODEL)))
    assert in_mlflow.predict(features.to_numpy()).tolist() == said
    described = MessageToDict(run.metrics)
    assert described["importance"].keys() == {"week", "spread"}
    assert described["validation_rmse"] > 0
    assert not run.is_partial_range


@pytest.mark.filterwarnings("ignore::UserWarning")  # of MLflow about types of its own
async def test_the_model_in_mlflows_format_has_a_signature_and_an_example(
    world: World, tmp_path: Path
) -> None:
    prices = await _prices(world, tmp_path, make_prices())
    run = await _train(world, world.model("logistic_classifier"), prices, tmp_path)
    folder = str(_file(run, trained.MLFLOW_MODEL))
    described = mlflow.models.Model.load(folder)
    assert [column.name for column in described.signature.inputs] == ["week", "spread"]
    assert described.saved_input_example_info is not None
    example: Any = described.load_input_example(folder)
    assert mlflow.pyfunc.load_model(folder).predict(example).shape == (len(example), 2)


async def test_the_same_training_again_has_the_same_digest(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path, make_prices())
    model = world.model("hist_gradient_boosting")
    first, again = [await _train(world, model, prices, tmp_path) for _ in range(2)]
    assert first.output_version.digest == again.output_version.digest
    assert first.metrics == again.metrics
    other = await _train(world, world.model("hist_gradient_boosting", seed=1), prices, tmp_path)
    assert other.output_version.digest != first.output_version.digest


@pytest.mark.parametrize("definition", ["ridge", "hist_gradient_boosting"])
async def test_what_comes_after_the_data_date_changes_nothing(
    definition: str, world: World, tmp_path: Path
) -> None:
    table = make_prices(80)
    day = table["date"].unique().sort()[59]
    model = world.model(definition)
    known = await _prices(world, tmp_path, table.filter(pl.col("date") <= day))
    first = await _train(world, model, known, tmp_path)
    planted = pl.when(pl.col("date") > day).then(pl.col("close") * 1_000).otherwise("close")
    dataset = world.instances.newest(known.instance_id)
    later = await _prices(world, tmp_path, table.with_columns(planted.alias("close")), dataset)
    run = await _train(world, model, later, tmp_path, str(day))
    assert run.is_partial_range
    assert not first.is_partial_range
    assert run.output_version.digest == first.output_version.digest
    assert run.output_version.last_data_date == first.output_version.last_data_date
    files = [pl.read_parquet(local_path(each.artifacts["validation_predictions"])) for each in (first, run)]
    assert files[0].equals(files[1])
    everything = await _train(world, model, later, tmp_path)
    assert everything.output_version.digest != first.output_version.digest


async def test_a_data_date_at_the_end_of_the_inputs_leaves_nothing_out(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path, make_prices())
    assert not (await _train(world, world.model(), prices, tmp_path, "2020-02-29")).is_partial_range


async def test_a_model_of_another_kind_is_kept_as_its_own_file(world: World, tmp_path: Path) -> None:
    prices = await _prices(world, tmp_path, make_prices())
    run = await _train(world, world.model("mean_model"), prices, tmp_path)
    assert not _file(run, trained.MLFLOW_MODEL).exists()
    assert "MeanModel has no estimator of scikit-learn" in str(run.metrics["warnings"])
    assert run.training.model_uri == run.artifacts["model"]
    loaded = MeanModel(CONFIG)
    loaded.load(_file(run, trained.MODEL))
    assert loaded.predict(pl.DataFrame({"week": [1.0]}))["prediction"][0] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("config", "kind", "text"),
    [
        ({"embargo": 100}, "NoDataInRange", "about"),
        ({"target": {"expression": "PCT(close, 1)", "horizon": 59}}, "NoDataInRange", "sessions"),
        ({"validation_share": 2}, "InvalidConfig", "validation_share"),
        ({"target": {"expression": "PCT(open, 1)"}}, "InvalidExpression", "open"),
    ],
)
async def test_a_training_that_cannot_be_done_says_why(
    config: dict[str, Any], kind: str, text: str, world: World, tmp_path: Path
) -> None:
    prices = await _prices(world, tmp_path, make_prices())
    run = world.runs.submit(world.model(**config), TRAINING, {"features": prices})
    await world.execute(run, tmp_path)
    assert (run.status, run.error.type) == (run_pb2.RUN_STATUS_FAILED, kind)
    assert text in run.error.message
    assert not run.output_version.uri
