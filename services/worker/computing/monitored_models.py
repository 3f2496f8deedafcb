"""Read what the monitoring of a model compares: its features beside its predictions, and the labels that are known by now."""

from __future__ import annotations

import datetime as dt

import polars as pl

from optaic.plugins import InputTable, MissingInput, MLModule, PluginError, load
from optaic.rules.columns import DATE, KEYS, VALUE
from worker.builtin.features import TARGET, build_features, build_target, read_features
from worker.computing.inference import with_keys
from worker.computing.inputs import load_operators, open_input
from worker.monitoring import Labels, Subject
from worker.monitoring.windows import Training
from worker.recipe import MonitoredModel, MonitoringRecipe, TrainedFiles
from worker.trained import ArtifactCorrupt, read_facts

_PREDICTION = "prediction"


def open_model(recipe: MonitoringRecipe, model: MonitoredModel) -> Subject:
    """Return the subject of a model's monitoring.

    Raises:
        InvalidConfig: a feature or the target is malformed.
        InvalidExpression: an expression does not parse, or names what no table has.
        MissingInput: there is no prediction yet.
    """
    predictions = with_keys(open_input(recipe.watched, recipe.data_date).frame.select(*KEYS, VALUE))
    if predictions.is_empty():
        until = f" up to {recipe.data_date}" if recipe.data_date else ""
        raise MissingInput(f"there is no prediction{until}; run the flow inference of the model first")
    configuration = model.configuration
    config, macros = configuration.module.config, configuration.macros
    operators = load_operators(configuration.operators)
    tables = [open_input(given, recipe.data_date) for given in configuration.inputs]
    built = with_keys(build_features(read_features(config), tables, macros, operators))
    targets: list[InputTable] = [open_input(given, recipe.data_date) for given in model.targets]
    labels = with_keys(build_target(config, targets or tables, macros, operators))
    module = load(configuration.module.code_ref, MLModule)(config)
    name = _PREDICTION
    while name in built.columns:
        name = f"{name}_"
    # Dates that the model has not been asked about yet are not judged.
    asked = built.filter(pl.col(DATE) <= predictions[DATE].max())
    table = asked.join(predictions.rename({VALUE: name}), on=KEYS, how="full", coalesce=True).sort(KEYS)
    classify = module.classify if module.task == "classification" else None
    return Subject(
        table,
        table[DATE],
        KEYS,
        _read_training(model.training),
        Labels(labels.select(*KEYS, TARGET), predictions, classify),
    )


def _read_training(files: TrainedFiles | None) -> Training | None:
    """Return the training period of a trained version; None where that is not known."""
    if files is None:
        return None
    try:
        period = read_facts(files)["reference"]
        return dt.date.fromisoformat(period["start"]), dt.date.fromisoformat(period["end"])
    except ArtifactCorrupt:
        raise
    except (PluginError, ValueError, KeyError, TypeError):
        return None
