"""Trained versions of a model as a training stores them, made without one, and the recipe of an inference of them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from optaic.plugins import Mode, load
from optaic.plugins.base import MLModule
from optaic.rules.kept_outputs import KEPT_BY, READ_BY
from worker import trained
from worker.builtin.delta_store import DeltaStore
from worker.computing.inference import infer
from worker.computing.output import Output
from worker.locations import FlowLocation
from worker.predicting import predict
from worker.recipe import (
    Component,
    InferenceRecipe,
    Input,
    ModelConfiguration,
    StoredData,
    TrainedFiles,
    TrainedModel,
)

BOOSTING = "worker.builtin.ml_modules:HistGradientBoostingModule"
RIDGE = "worker.builtin.ml_modules:RidgeModule"
FEATURES = ("x1", "x2", "x3")
INSTANCE = "instance"


def noise(entities: int, sessions: int, seed: int = 0) -> pl.DataFrame:
    """Return `date, entity, x1, x2, x3, r` of which nothing follows from anything."""
    random = np.random.default_rng(seed)
    first = dt.date(2010, 1, 1)
    dates = [first + dt.timedelta(days=number) for number in range(sessions)]
    size = entities * sessions
    return pl.DataFrame(
        {
            "date": np.repeat(np.array(dates, dtype="datetime64[D]"), entities),
            "entity": [f"e{number:03}" for number in range(entities)] * sessions,
            **{name: random.normal(size=size) for name in (*FEATURES, "r")},
        }
    )


def label(panel: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """Return the panel with the target of each row, `horizon` sessions later, and the session on which it was known."""
    later = [pl.col(name).shift(-horizon).over("entity", order_by="date") for name in ("r", "date")]
    return panel.with_columns(later[0].alias("target"), later[1].alias("known"))


@dataclass
class Workshop:
    """A model over one panel: its trainings, and its inference so far."""

    root: Path
    panel: pl.DataFrame
    horizon: int = 1
    code_ref: str = RIDGE
    settings: Mapping[str, Any] = field(default_factory=dict)
    trainings: list[TrainedModel] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    base: StoredData | None = None
    runs: int = 0

    def __post_init__(self) -> None:
        self.location = FlowLocation(self.root.as_uri(), "acme", INSTANCE, "inference")
        self.set_panel(self.panel)

    def set_panel(self, panel: pl.DataFrame) -> None:
        """Store another version of the panel, which inference reads from now on."""
        self.panel = panel
        stored = DeltaStore().write(
            panel, None, f"{self.root.as_uri()}/acme/panel{len(panel)}-{self.runs}/data"
        )
        self.data = StoredData(
            Component(KEPT_BY, {}), Component(READ_BY, {}), stored.uri, stored.physical_version
        )

    def configure(self, revision: int = 1, features: Sequence[str] = FEATURES) -> ModelConfiguration:
        """Return the model's configuration at a revision."""
        config = {
            "features": [{"name": name, "expression": name} for name in features],
            "target": {"expression": "r", "horizon": self.horizon},
            **self.settings,
        }
        given = Input("features", "panel", "panel", 1, "", self.data)
        return ModelConfiguration(revision, Component(self.code_ref, config), (given,), {}, {})

    def train(
        self, until: dt.date, revision: int = 1, features: Sequence[str] = FEATURES, share: float = 0.2
    ) -> TrainedModel:
        """Store a version trained on everything up to a day, as a training does it."""
        configuration = self.configure(revision, features)
        model = TrainedModel(
            f"training-{len(self.trainings) + 1}",
            TrainedFiles(
                f"{self.root.as_uri()}/acme/{INSTANCE}/training/runs/training-{len(self.trainings) + 1}/"
            ),
            configuration,
        )
        rows = label(self.panel.filter(pl.col("date") <= until), self.horizon)
        sessions = rows["date"].unique().sort()
        first = sessions[int(len(sessions) * (1 - share))]
        labelled = rows.filter(pl.col("target").is_not_null())
        early = labelled.filter(pl.col("known") < first)
        measured, final = (self._fit(configuration, part, features) for part in (early, labelled))
        folder = Path(model.files.uri.removeprefix("file://"))
        folder.mkdir(parents=True)
        predict(measured, rows.filter(pl.col("date") >= first), features).write_parquet(
            folder / trained.VALIDATION
        )
        final.save(folder / trained.MODEL)
        facts = {
            "train_end": str(labelled["date"].max()),
            "label_end": str(labelled["known"].max()),
            "validation_label_end": str(early["known"].max()),
            "features": list(features),
        }
        (folder / trained.FACTS).write_text(json.dumps(facts))
        self.trainings.append(model)
        self.facts[model.run_id] = facts
        return model

    def _fit(
        self, configuration: ModelConfiguration, rows: pl.DataFrame, features: Sequence[str]
    ) -> MLModule:
        module = load(self.code_ref, MLModule)(configuration.module.config)
        module.fit(rows.select(features), rows["target"])
        return module

    def infer(self, *models: TrainedModel, **changes: Any) -> Output:
        """Run an inference of these versions, the last of which is read; later runs build on it."""
        self.runs += 1
        given = [
            TrainedModel(each.run_id, each.files, self._renew(each.configuration))
            for each in models or self.trainings
        ]
        values: dict[str, Any] = {
            "models": tuple(given),
            "left_out": {},
            "artifact_version": given[-1].run_id,
            "revision": 1,
            "mode": Mode.INCREMENTAL,
            "data_date": None,
            "base": self.base,
            "guardrails": (),
        }
        recipe = InferenceRecipe(**{**values, **changes})
        output = infer(recipe, self.location, lambda _fraction, _message: None)
        self.base = StoredData(
            Component(KEPT_BY, {}), Component(READ_BY, {}), output.uri, output.physical_version
        )
        return output

    def _renew(self, configuration: ModelConfiguration) -> ModelConfiguration:
        """Return a configuration that reads the present panel."""
        names = [each["name"] for each in configuration.module.config["features"]]  # type: ignore[attr-defined]  # as it is made here
        return self.configure(configuration.revision, names)

    def read(self) -> pl.DataFrame:
        """Return the predictions that the flow has now."""
        assert self.base is not None
        return DeltaStore().read(self.base.uri, self.base.physical_version)

    def predict(self, model: TrainedModel, rows: pl.DataFrame) -> pl.DataFrame:
        """Return what a version predicts of rows of the panel."""
        features = self.facts[model.run_id]["features"]
        return predict(trained.load_model(model.configuration.module, model.files), rows, features)

    def validation(self, model: TrainedModel) -> pl.DataFrame:
        """Return the validation predictions of a version."""
        return trained.read_validation(model.files)
