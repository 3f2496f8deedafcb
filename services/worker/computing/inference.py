"""Execute an inference: build features, have each trained version predict its dates, write the predictions."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from optaic.plugins import Mode, NoDataInRange, PluginError, day_in, take_days, zone_of
from optaic.rules.columns import DATE, ENTITY, KEYS, PREDICTED, VALUE
from optaic.rules.kinds import TIMEZONE
from optaic.run.v1 import run_pb2
from worker.builtin.delta_store import DeltaStore
from worker.builtin.features import build_features, read_features
from worker.comparison import count_changes
from worker.computing.inputs import has_later, load_operators, make_store, open_input
from worker.computing.output import Output, Progress, as_number, find_former_digest, scale
from worker.guardrails import check_guardrails
from worker.inference.history import Collected, Wanted, choose_dates, count_gaps, keep, summarize
from worker.inference.spans import Knowledge, Span, plan_spans
from worker.locations import FlowLocation
from worker.predicting import finite, predict
from worker.recipe import InferenceRecipe, ModelConfiguration, TrainedModel
from worker.trained import ArtifactCorrupt, load_model, read_facts, read_validation


@dataclass
class _Predicted:
    """The predictions of a run so far."""

    collected: Collected = field(default_factory=Collected)
    by_model: dict[str, int] = field(default_factory=dict)  # rows by training run
    validation_rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Version:
    """A trained version whose facts are known."""

    model: TrainedModel
    facts: Mapping[str, Any]
    knowledge: Knowledge


def infer(recipe: InferenceRecipe, location: FlowLocation, progress: Progress) -> Output:
    """Execute the recipe of an inference; its output is a version of the flow's dataset of predictions.

    Raises:
        NoDataInRange: no version may predict a date that has features.
        PluginError: `ModelFilesNotFound`; `InSamplePrediction`, which no recipe of ours leads to.
    """
    left_out = dict(recipe.left_out)
    versions = _read_versions(recipe, left_out)
    base = _read_base(recipe)
    read = versions[-1]
    wanted = choose_dates(base, read.knowledge.first_date, recipe.data_date, is_full=recipe.mode is Mode.FULL)
    features = _Features(recipe.data_date)
    progress(0.05, "building features")
    sessions = features.of(read.model.configuration)[DATE].unique()
    found = _Predicted()
    spans = plan_spans([each.knowledge for each in versions])
    _add_validation(versions, spans, wanted, found)
    for number, span in enumerate(spans):
        tell = scale(progress, 0.1 + 0.7 * number / len(spans), 0.1 + 0.7 * (number + 1) / len(spans))
        _add_predictions(versions[span.position], span, wanted, features, found, tell)
    in_sample = found.collected.count_in_sample()
    if in_sample:
        raise PluginError(
            f"{in_sample} predictions come from a model that knew later labels than their dates; nothing was written. Train the "
            "model anew",
            type="InSamplePrediction",
        )
    table = found.collected.join(keep(base, wanted))
    if table.is_empty():
        raise NoDataInRange(
            f"no date with features is after {read.knowledge.train_end}, to which the model was trained, and its validation "
            "has no predictions; bring the features up to date, or train with an earlier data_date"
        )
    warned = check_guardrails(
        table, recipe.guardrails, recipe.data_date or day_in(dt.datetime.now(dt.UTC), TIMEZONE)
    )
    progress(0.85, f"writing {table.height} rows")
    # A base elsewhere (the data root was moved) cannot be extended in place.
    pinned = recipe.base if recipe.base is not None and recipe.base.uri == location.data_uri else None
    stored = DeltaStore().write(table, None if pinned is None else pinned.physical_version, location.data_uri)
    figures, gaps = summarize(table), count_gaps(sessions, table)
    revision = read.model.configuration.revision
    changes = _count_changes(base, table)
    return Output(
        uri=stored.uri,
        physical_version=stored.physical_version,
        digest=stored.digest,
        changed=stored.changed,
        former_digest=find_former_digest(recipe.base.digest if recipe.base else "", stored, table),
        last_data_date=str(table[DATE].max()),
        metrics={
            **changes,
            **figures,
            "rows": table.height,
            "predicted_rows": sum(found.by_model.values()),
            "validation_rows": found.validation_rows,
            "kept_rows": table.height - sum(found.by_model.values()) - found.validation_rows,
            "in_sample_rows": in_sample,
            "null_predictions": int(table[VALUE].null_count()),
            "gap_sessions": gaps,
            "first_date": str(table[DATE].min()),
            "last_date": str(table[DATE].max()),
            "prediction_seconds": found.seconds,
            "model_run_id": read.model.run_id,
            "train_end": str(read.knowledge.train_end),
            "label_end": str(read.knowledge.label_end),
            "predictions_of_training": found.by_model,
            **({"features_of_revision": revision} if revision != recipe.revision else {}),
            **({"trainings_left_out": left_out} if left_out else {}),
            **{f"guardrail.{name}": text for name, text in warned.items()},
            "warnings": [*recipe.warnings, *_warn(gaps, len(left_out))],
        },
        artifacts={"data": stored.uri},
        result=run_pb2.InferenceResult(
            prediction_count=table.height,
            **{name: as_number(figure) for name, figure in figures.items()},
            prediction_seconds=found.seconds,
            model_run_id=read.model.run_id,
            train_end=str(read.knowledge.train_end),
        ),
        is_partial_range=has_later(recipe.read.configuration.inputs, recipe.data_date),
    )


def _read_versions(recipe: InferenceRecipe, left_out: dict[str, str]) -> list[_Version]:
    """Return the versions in their order; an earlier one whose files are gone is left out, and said to be."""
    versions = []
    for model in recipe.models:
        try:
            facts = read_facts(model.files)
            knowledge = Knowledge(_read_day(facts, "train_end"), _read_day(facts, "label_end"))
        except PluginError as error:
            if model is recipe.read:
                raise
            left_out[model.run_id] = str(error)
        else:
            versions.append(_Version(model, facts, knowledge))
    return versions


def _read_day(facts: Mapping[str, Any], name: str) -> dt.date:
    try:
        return dt.date.fromisoformat(str(facts.get(name)))
    except ValueError:
        raise PluginError(
            f"training.json: {name} is {facts.get(name)!r}, not a date; train the model anew",
            type="ModelFilesNotFound",
        ) from None


def _read_base(recipe: InferenceRecipe) -> pl.DataFrame | None:
    """Return the predictions that the flow has so far."""
    if (base := recipe.base) is None:
        return None
    return make_store(base.store, base.timezone).read(base.uri, base.physical_version)


class _Features:
    """The features of the run's dates, built once for each configuration."""

    def __init__(self, until: dt.date | None) -> None:
        self._until = until
        self._built: dict[int, pl.DataFrame] = {}

    def of(self, configuration: ModelConfiguration) -> pl.DataFrame:
        """Return `date, entity` and a column for each feature."""
        if configuration.revision not in self._built:
            self._built[configuration.revision] = self._build(configuration)
        return self._built[configuration.revision]

    def _build(self, configuration: ModelConfiguration) -> pl.DataFrame:
        tables = [open_input(given, self._until) for given in configuration.inputs]
        built = build_features(
            read_features(configuration.module.config),
            tables,
            configuration.macros,
            load_operators(configuration.operators),
        )
        return with_keys(built)


def with_keys(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with the days of its dates, and with entities as texts."""
    return table.with_columns(
        take_days(table[DATE], zone_of(table[DATE])).alias(DATE), pl.col(ENTITY).cast(pl.String)
    )


def _add_predictions(
    version: _Version, span: Span, wanted: Wanted, features: _Features, found: _Predicted, tell: Progress
) -> None:
    """Have a version predict its dates; its model is loaded only if there are any."""
    configuration = version.model.configuration
    is_inside = pl.col(DATE) >= span.start
    if span.end is not None:
        is_inside &= pl.col(DATE) < span.end
    rows = features.of(configuration).filter(is_inside & wanted.holds(pl.col(DATE)))
    if rows.is_empty():
        return
    tell(0.0, f"predicting {rows.height} rows from {span.start} on")
    model = load_model(configuration.module, version.model.files)
    names = [feature.name for feature in read_features(configuration.module.config)]
    begin = time.perf_counter()
    predictions = predict(model, rows, names)
    found.seconds += time.perf_counter() - begin
    found.by_model[version.model.run_id] = predictions.height
    found.collected.add(predictions, version.knowledge.label_end)


def _add_validation(
    versions: Sequence[_Version], spans: Sequence[Span], wanted: Wanted, found: _Predicted
) -> None:
    """Add the dates before those of all models: the validation predictions of the earliest version that stored some."""
    for version in versions:
        try:
            stored = read_validation(version.model.files)
        except ArtifactCorrupt:
            raise
        except PluginError:
            if version is versions[-1]:
                raise
            continue
        table = with_keys(stored).with_columns(finite(column) for column in PREDICTED)
        rows = table.filter((pl.col(DATE) < spans[0].start) & wanted.holds(pl.col(DATE)))
        label_end = version.facts.get("validation_label_end")
        found.collected.add(rows, dt.date.fromisoformat(label_end) if label_end else None)
        found.validation_rows = rows.height
        return


def _warn(gaps: int, left_out: int) -> list[str]:
    """Return sentences on what the predictions lack."""
    found = []
    if gaps:
        found.append(
            f"{gaps} dates between the first and the last prediction have features and no prediction"
        )
    if left_out:
        found.append(f"{left_out} earlier trainings are left out; metrics.trainings_left_out says why")
    return found


def _count_changes(base: pl.DataFrame | None, table: pl.DataFrame) -> dict[str, int]:
    if base is None:
        return {"rows_inserted": table.height, "rows_updated": 0, "rows_deleted": 0}
    return count_changes(base, table, KEYS)
