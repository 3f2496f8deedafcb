"""Find the figures that crossed their threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import polars as pl

from optaic.rules.monitoring import FLOORS, THRESHOLDS, MonitoringSettings

_OF_COLUMNS = ("psi", "ks", "js", "missing_share", "outlier_share")


class Alert(NamedTuple):
    """A figure that crossed its threshold; the column is empty for one of the whole window."""

    metric: str
    column: str
    value: float
    threshold: float


def find_alerts(
    metrics: Mapping[str, object], columns: pl.DataFrame, settings: MonitoringSettings
) -> list[Alert]:
    """Return all alerts: those of the whole window first, then the columns, the furthest beyond first."""
    whole = list(_of_window(metrics, settings))
    single = sorted(
        _of_columns(columns, settings), key=lambda alert: (-_excess(alert), alert.metric, alert.column)
    )
    return [*whole, *single]


def _of_window(metrics: Mapping[str, object], settings: MonitoringSettings) -> Iterator[Alert]:
    for metric, name in THRESHOLDS.items():
        if metric in _OF_COLUMNS:
            continue
        value, threshold = metrics.get(metric), float(getattr(settings, name))
        if isinstance(value, float) and (value < threshold if metric in FLOORS else value > threshold):
            yield Alert(metric, "", value, threshold)


def _of_columns(columns: pl.DataFrame, settings: MonitoringSettings) -> Iterator[Alert]:
    for metric in _OF_COLUMNS:
        threshold = float(getattr(settings, THRESHOLDS[metric]))
        crossed = columns.filter(pl.col(metric) > threshold).select("column", metric)
        yield from (Alert(metric, column, value, threshold) for column, value in crossed.iter_rows())


def _excess(alert: Alert) -> float:
    return alert.value / alert.threshold if alert.threshold else math.inf
