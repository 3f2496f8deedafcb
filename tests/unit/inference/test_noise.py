"""Predictions of pure noise: a model that may predict what it has learnt looks like a discovery, ours does not."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import polars as pl
import pytest
from threadpoolctl import threadpool_limits

from optaic.plugins import Mode
from support.trained_models import BOOSTING, Workshop, label, noise
from worker.inference import history, spans
from worker.statistics.ic import daily_ic

ENTITIES, SESSIONS = 200, 2_000
TRAINED_AT = (1_200, 1_500, 1_800)  # sessions
# It learns much of what it sees by heart.
SETTINGS = {"max_iter": 50, "max_leaf_nodes": 511, "min_samples_leaf": 3, "learning_rate": 0.5}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    panel = noise(ENTITIES, SESSIONS, seed=1)
    dates = panel["date"].unique().sort()
    made = Workshop(tmp_path_factory.mktemp("noise"), panel, code_ref=BOOSTING, settings=SETTINGS)
    with threadpool_limits(limits=1):
        for number in TRAINED_AT:
            made.train(dates[number])
    return made


def measure(shop: Workshop) -> tuple[float, float]:
    """Return the mean daily IC of the predictions, and its standard error."""
    rows = shop.read().join(label(shop.panel, shop.horizon), on=["date", "entity"])
    found = daily_ic(rows.filter(pl.col("target").is_not_null()), "value", "target")["ic"].drop_nulls()
    mean, deviation = found.mean(), found.std()
    assert isinstance(mean, float)
    assert isinstance(deviation, float)
    return mean, deviation / math.sqrt(len(found))


def test_predictions_of_noise_have_no_information(shop: Workshop) -> None:
    shop.base = None
    output = shop.infer(mode=Mode.FULL)
    assert output.metrics["in_sample_rows"] == 0
    assert output.metrics["predicted_rows"] == ENTITIES * (SESSIONS - TRAINED_AT[0])
    mean, error = measure(shop)
    assert abs(mean) < 3 * error


def test_without_the_rule_they_seem_to_have_much(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest version predicts all dates: what makes the test above mean something."""
    shop.base = None
    monkeypatch.setattr(spans.Knowledge, "first_date", property(lambda _: dt.date.min))
    _stop_counting(monkeypatch)
    shop.infer(mode=Mode.FULL)
    mean, error = measure(shop)
    assert mean > 0.3
    assert mean > 100 * error


def _stop_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(_: Any) -> int:
        return 0

    monkeypatch.setattr(history.Collected, "count_in_sample", count)
