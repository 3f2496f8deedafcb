"""Compare predictions with the labels that are known by now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from optaic.rules.columns import KEYS, VALUE
from worker.statistics.ic import daily_ic, summarize

Classify = Callable[[pl.Series], pl.Series]  # which targets are of the class that a classification predicts
TARGET = "target"
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
        told = known.filter(pl.col(TARGET) != 0)  # which is on neither side
        is_hit = told[VALUE].sign() == told[TARGET].sign()
    else:
        is_hit = (known[VALUE] > _HALF) == classify(known[TARGET])
    share = is_hit.mean() if is_hit.len() else None
    return Realised(daily.mean, share if isinstance(share, float) else None, daily.dates, known.height)
