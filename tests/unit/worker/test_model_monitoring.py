"""A monitoring of a model: its features and predictions against the training period, and the labels that came true."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from support.panels import FIRST, make_prices
from support.worker import World

REFRESH, TRAINING, INFERENCE, MONITORING = (
    flow_pb2.FLOW_KIND_REFRESH,
    flow_pb2.FLOW_KIND_TRAINING,
    flow_pb2.FLOW_KIND_INFERENCE,
    flow_pb2.FLOW_KIND_MONITORING,
)
WINDOW = 5


class Story:
    """A model over prices, trained on a part of them, and its predictions."""

    def __init__(self, world: World, root: Path) -> None:
        self.world, self.root = world, root
        self.model: Any

    async def execute(
        self, instance: Any, flow: Any, inputs: dict[str, run_pb2.Run], **parameters: Any
    ) -> run_pb2.Run:
        run = self.world.runs.submit(instance, flow, inputs)
        run.parameters.update(parameters)
        await self.world.execute(run, self.root)
        return run

    async def begin(self, *, is_predicted: bool = True, definition: str = "ridge", **config: Any) -> None:
        self.table = make_prices()
        self.table.write_csv(self.root / "prices.csv")
        dataset = self.world.dataset(definition="file", url=str(self.root / "prices.csv"))
        self.prices = await self.execute(dataset, REFRESH, {})
        model = self.world.model(definition, **config)
        model.upstream_refs.add(resource_id=dataset.instance_id, role="features", name="prices")
        model.model.monitoring.window_sessions = WINDOW
        self.model = self.world.instances.put(model)
        day = str(FIRST + dt.timedelta(days=49))
        self.training = await self.execute(self.model, TRAINING, {"features": self.prices}, data_date=day)
        if is_predicted:
            read = {"features": self.prices, "model": self.training}
            self.inference = await self.execute(self.model, INFERENCE, read)
            assert self.inference.status == run_pb2.RUN_STATUS_COMPLETED, self.inference.error

    async def monitor(self, **parameters: Any) -> run_pb2.Run:
        read = {"monitored": self.inference, "features": self.prices}
        return await self.execute(self.model, MONITORING, read, **parameters)

    def predictions(self) -> pl.DataFrame:
        output = self.inference.output_version
        return pl.read_delta(output.uri, version=int(output.physical_version)).sort("date", "entity")


@pytest.fixture
def story(world: World, tmp_path: Path) -> Story:
    return Story(world, tmp_path)


async def test_features_and_predictions_are_compared_with_the_training_period(story: Story) -> None:
    await story.begin()
    run = await story.monitor()
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    metrics: Any = run.metrics
    predictions = story.predictions()
    sessions = predictions["date"].unique().sort()
    assert metrics["current_end"] == str(sessions[-1])
    assert metrics["current_start"] == str(sessions[-WINDOW])
    assert metrics["reference_is_training_period"] is True
    assert metrics["reference_end"] <= metrics["current_start"]
    assert set(metrics["columns"]) == {*_features(story), "prediction"}
    assert run.monitoring.report_uri.endswith("report.html")
    assert "features_of_revision" not in metrics


async def test_realised_figures_are_those_of_the_labels_that_are_known(story: Story) -> None:
    await story.begin()
    metrics: Any = (await story.monitor()).metrics
    target = story.model.config["target"]
    assert target["expression"] == "PCT(close, 1)", "the formula below is of this target"
    prices = story.table.to_pandas().sort_values(["entity", "date"])
    prices["target"] = prices.groupby("entity")["close"].transform(
        lambda closes: (closes / closes.shift(1) - 1).shift(-int(target["horizon"]))
    )
    known = prices.dropna(subset=["target"])[["date", "entity", "target"]]
    known["date"] = pd.to_datetime(known["date"])
    said = story.predictions().to_pandas()
    said["date"] = pd.to_datetime(said["date"])
    both = said.merge(known, on=["date", "entity"]).dropna(subset=["value"])
    inside = both[both["date"] >= pd.Timestamp(metrics["current_start"])]
    daily = [day["value"].corr(day["target"], method="spearman") for _, day in inside.groupby("date")]
    assert metrics["labelled_predictions"] == len(inside)
    assert metrics["realised_ic"] == pytest.approx(np.mean(daily))
    hits = np.sign(inside["value"]) == np.sign(inside["target"])
    assert metrics["hit_rate"] == pytest.approx(hits[inside["target"] != 0].mean())
    assert metrics["labelled_predictions_since_start"] == len(both)


def _features(story: Story) -> set[str]:
    given: Any = story.model.config["features"]
    return {str(feature["name"]) for feature in given}


async def test_features_are_those_of_the_revision_that_was_trained(story: Story) -> None:
    await story.begin()
    changed = instance_pb2.Instance()
    changed.CopyFrom(story.model)
    changed.config["features"] = [{"name": "other", "expression": "close"}]
    before, revision = _features(story), story.model.revision
    story.model = story.world.instances.put(changed)
    metrics: Any = (await story.monitor()).metrics
    assert set(metrics["columns"]) == {*before, "prediction"}
    assert metrics["features_of_revision"] == revision


async def test_without_a_known_label_the_figures_are_null(story: Story) -> None:
    await story.begin()
    story.model.config["target"]["horizon"] = 50
    run = await story.monitor()
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    metrics: Any = run.metrics
    assert (metrics["realised_ic"], metrics["hit_rate"], metrics["labelled_predictions"]) == (None, None, 0)


async def test_a_model_without_predictions_says_to_run_inference(story: Story) -> None:
    await story.begin(is_predicted=False)
    nothing = run_pb2.Run(instance_id=story.model.instance_id, flow_kind=INFERENCE)
    story.inference = nothing
    run = await story.monitor()
    assert run.error.type == "MissingInput"
    assert "inference" in run.error.message
    early = str(FIRST - dt.timedelta(days=1))
    await story.begin()
    run = await story.monitor(data_date=early)
    assert run.error.type == "MissingInput"
    assert (
        run.error.message
        == f"there is no prediction up to {early}; run the flow inference of the model first"
    )
