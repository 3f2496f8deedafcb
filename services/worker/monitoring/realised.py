"""Compare predictions with the labels that are known by now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from optaic.rules.columns import KEYS, VALUE
from worker.builtin.features import TARGET
from worker.statistics.hits import hit_rate
from worker.statistics.ic import daily_ic, summarize

Classify = Callable[[pl.Series], pl.Series]  # which targets are of the class that a classification predicts
_HALF = 0.5  # a probability above it predicts the class


@dataclass(frozen=True)
class Realised:
    """The outcome of predictions; None where that is not defined."""

    ic: float | None
    hit_rate: float | None
    session_count: int  # with an information coefficient
    count: int  # of predictions whose label is known


def compare(predictions: pl.DataFrame, labels: pl.DataFrame, classify: Classify | None = None) -> Realised:
    """Compare predictions with labels.

    Args:
        predictions: `date, entity, value`.
        labels: `date, entity, target`, those that are known.
        classify: of a classification, whose predictions are probabilities; None for a regression.
    """
    known = (
        predictions.select(*KEYS, pl.col(VALUE).cast(pl.Float64))
        .join(labels.select(*KEYS, pl.col(TARGET).cast(pl.Float64)), on=KEYS)
        .filter(pl.col(VALUE).is_finite() & pl.col(TARGET).is_finite())
    )
    daily = summarize(daily_ic(known, VALUE, TARGET)["ic"])
    if classify is None:
        hits = hit_rate(known, VALUE, TARGET)
    else:
        share = ((known[VALUE] > _HALF) == classify(known[TARGET])).mean() if known.height else None
        hits = share if isinstance(share, float) else None
    return Realised(daily.mean, hits, daily.dates, known.height)
