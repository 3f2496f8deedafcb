"""An inference over stored trainings: every prediction against the model that may make it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.plugins import Mode, NoDataInRange, PluginError
from support.trained_models import Workshop, noise
from worker import trained
from worker.inference.history import SCHEMA
from worker.recipe import FileHash

SESSIONS = 200
DATES = noise(1, SESSIONS)["date"].to_list()


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, noise(5, SESSIONS))


def until(number: int) -> dt.date:
    """Return the day of a session."""
    found: dt.date = DATES[number]
    return found


def between(table: pl.DataFrame, start: dt.date, end: dt.date | None = None) -> pl.DataFrame:
    rows = table.filter(pl.col("date") >= start)
    return rows if end is None else rows.filter(pl.col("date") < end)


def same(found: pl.DataFrame, expected: pl.DataFrame) -> bool:
    return found.sort("date", "entity").equals(expected.select(*SCHEMA).sort("date", "entity"))


def test_the_history_starts_with_the_validation_predictions(shop: Workshop) -> None:
    model = shop.train(until(149))
    output = shop.infer()
    table = shop.read()
    assert table.schema == pl.Schema(SCHEMA)
    # Up to session 149 the label of session 148 is known, on session 149.
    assert shop.facts[model.run_id]["label_end"] == str(until(149))
    validation = shop.validation(model).filter(pl.col("date") < until(149))
    assert same(between(table, until(0), until(149)), validation)
    assert same(between(table, until(149)), shop.predict(model, between(shop.panel, until(149))))
    metrics = output.metrics
    assert metrics["in_sample_rows"] == metrics["gap_sessions"] == metrics["kept_rows"] == 0
    assert metrics["validation_rows"] == validation.height
    assert metrics["predicted_rows"] == table.height - validation.height
    assert (metrics["train_end"], metrics["label_end"]) == (str(until(148)), str(until(149)))
    assert output.last_data_date == metrics["last_date"] == str(until(SESSIONS - 1))
    assert "features_of_revision" not in metrics
    value = table["value"]
    assert metrics["mean"] == pytest.approx(sum(value) / len(value))
    result: Any = output.result
    assert (result.prediction_count, result.model_run_id) == (table.height, model.run_id)


@pytest.mark.parametrize("horizon", [1, 5])
def test_no_prediction_comes_from_a_model_that_knew_a_later_label(tmp_path: Path, horizon: int) -> None:
    shop = Workshop(tmp_path, noise(5, SESSIONS), horizon=horizon)
    first, second, third = (shop.train(until(number)) for number in (99, 129, 159))
    shop.infer(mode=Mode.FULL)
    table = shop.read()
    # A model trained up to a session knows the last label on that session.
    spans = [(first, 99, 129), (second, 129, 159), (third, 159, None)]
    for model, start, end in spans:
        rows = between(shop.panel, until(start), until(end) if end else None)
        found = between(table, until(start), until(end) if end else None)
        assert same(found, shop.predict(model, rows)), model.run_id
    assert same(
        between(table, until(0), until(99)), shop.validation(first).filter(pl.col("date") < until(99))
    )


def test_dates_that_earlier_versions_wrote_stay(shop: Workshop) -> None:
    first = shop.train(until(99))
    shop.set_panel(shop.panel.filter(pl.col("date") <= until(119)))
    shop.infer(first)
    before = shop.read()
    shop.set_panel(noise(5, SESSIONS))
    second = shop.train(until(149))
    output = shop.infer(first, second)
    table = shop.read()
    assert same(between(table, until(0), until(120)), before)
    # Nobody predicted the sessions from 120 on before the second training: the first version may.
    gap = between(shop.panel, until(120), until(149))
    assert same(between(table, until(120), until(149)), shop.predict(first, gap))
    assert same(between(table, until(149)), shop.predict(second, between(shop.panel, until(149))))
    assert output.metrics["kept_rows"] == before.height
    assert output.metrics["gap_sessions"] == 0
    # In full mode all of it is made anew, to the same: the versions are the same.
    shop.infer(first, second, mode=Mode.FULL)
    assert same(shop.read(), table)


def test_restated_features_change_only_what_the_version_predicts(shop: Workshop) -> None:
    first, second = shop.train(until(99)), shop.train(until(149))
    shop.infer()
    before = shop.read()
    shop.set_panel(shop.panel.with_columns(pl.col("x1") + 1.0))
    shop.infer()
    after = shop.read()
    assert same(between(after, until(0), until(149)), between(before, until(0), until(149)))
    assert same(between(after, until(149)), shop.predict(second, between(shop.panel, until(149))))
    shop.infer(mode=Mode.FULL)
    middle = between(shop.read(), until(99), until(149))
    assert same(middle, shop.predict(first, between(shop.panel, until(99), until(149))))


def test_an_earlier_version_predicts_again_what_a_later_one_wrote(shop: Workshop) -> None:
    first, _ = shop.train(until(99)), shop.train(until(149))
    shop.infer()
    for mode in (Mode.INCREMENTAL, Mode.FULL):
        shop.infer(first, mode=mode)
        rows = between(shop.read(), until(99))
        assert same(rows, shop.predict(first, between(shop.panel, until(99))))


def test_the_same_again_moves_nothing(shop: Workshop) -> None:
    shop.train(until(149))
    one, other = shop.infer(), shop.infer()
    assert (one.digest, one.physical_version) == (other.digest, other.physical_version)
    counted = [other.metrics[f"rows_{what}"] for what in ("inserted", "updated", "deleted")]
    assert counted == [0, 0, 0]


def test_nothing_after_the_data_date_is_read_and_what_is_there_stays(shop: Workshop) -> None:
    shop.train(until(149))
    output = shop.infer(data_date=until(169))
    assert output.is_partial_range
    assert output.last_data_date == str(until(169))
    first = shop.read()
    changed = noise(5, SESSIONS, seed=7).filter(pl.col("date") > until(169))
    shop.set_panel(pl.concat([noise(5, SESSIONS).filter(pl.col("date") <= until(169)), changed]))
    shop.base = None
    shop.infer(data_date=until(169))
    assert same(shop.read(), first), "it is the same whatever comes later"
    assert not shop.infer().is_partial_range
    whole = shop.read()
    for mode in (Mode.INCREMENTAL, Mode.FULL):
        shop.infer(data_date=until(159), mode=mode)
        assert same(shop.read(), whole)
    assert not shop.infer(data_date=until(SESSIONS - 1)).is_partial_range


def test_features_are_built_as_the_version_was_trained(shop: Workshop) -> None:
    first, second = shop.train(until(99), 1), shop.train(until(149), 2, ("x2", "r"))
    output = shop.infer(revision=3)
    table = shop.read()
    assert output.metrics["features_of_revision"] == 2
    middle = between(shop.panel, until(99), until(149))
    assert same(between(table, until(99), until(149)), shop.predict(first, middle))
    assert same(between(table, until(149)), shop.predict(second, between(shop.panel, until(149))))


def test_an_earlier_version_without_its_files_is_left_out_and_said(shop: Workshop) -> None:
    first, second, third = (shop.train(until(number)) for number in (79, 119, 149))
    shutil.rmtree(Path(second.files.uri.removeprefix("file://")))
    output = shop.infer()
    left_out: Any = output.metrics["trainings_left_out"]
    assert set(left_out) == {second.run_id}
    rows = between(shop.panel, until(79), until(149))
    assert same(between(shop.read(), until(79), until(149)), shop.predict(first, rows))
    shutil.rmtree(Path(third.files.uri.removeprefix("file://")))
    with pytest.raises(PluginError) as refused:
        shop.infer()
    assert refused.value.type == "ModelFilesNotFound"
    assert third.run_id in str(refused.value)


def test_predictions_in_sample_are_counted_and_refused(shop: Workshop) -> None:
    """Even if the files of a training say something else than they hold, or a plan of ours were wrong."""
    model = shop.train(until(149))
    path = Path(model.files.uri.removeprefix("file://")) / "training.json"
    path.write_text(json.dumps({**shop.facts[model.run_id], "validation_label_end": str(until(130))}))
    with pytest.raises(
        PluginError, match="50 predictions come from a model that knew later labels"
    ) as refused:
        shop.infer()
    assert refused.value.type == "InSamplePrediction"
    assert shop.base is None


def test_validation_predictions_that_were_changed_are_not_passed_over(shop: Workshop) -> None:
    first, second = shop.train(until(99)), shop.train(until(149))
    hashes = {trained.VALIDATION: FileHash(1, "0" * 64)}
    changed = replace(first, files=replace(first.files, hashes=hashes))
    with pytest.raises(trained.ArtifactCorrupt, match="validation_predictions"):
        shop.infer(changed, second)
    assert shop.base is None


def test_a_model_that_knows_everything_predicts_nothing(shop: Workshop) -> None:
    model = shop.train(until(SESSIONS - 1))
    Path(model.files.uri.removeprefix("file://"), "validation_predictions.parquet").unlink()
    with pytest.raises(PluginError):
        shop.infer()
    shop.set_panel(shop.panel.filter(pl.col("date") < until(20)))
    shop.validation(shop.train(until(19))).clear().write_parquet(
        Path(shop.trainings[-1].files.uri.removeprefix("file://"), "validation_predictions.parquet")
    )
    shop.set_panel(shop.panel.filter(pl.col("date") < until(15)))
    with pytest.raises(NoDataInRange, match="bring the features up to date"):
        shop.infer(shop.trainings[-1])
