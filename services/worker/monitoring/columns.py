"""Judge each column of a table: how far it has drifted, and how much of it is missing or far out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from optaic.rules.monitoring import MonitoringSettings
from worker.monitoring.drift import jensen_shannon, kolmogorov_smirnov, population_stability

OUTLIER_DEVIATIONS = 5.0  # standard deviations of the reference
SCHEMA = {
    "column": pl.String,
    "kind": pl.String,
    "psi": pl.Float64,
    "ks": pl.Float64,
    "ks_p_value": pl.Float64,
    "js": pl.Float64,
    "is_drifted": pl.Boolean,
    "missing_share": pl.Float64,
    "reference_missing_share": pl.Float64,
    "outlier_share": pl.Float64,
    "missing_count": pl.Int64,
    "outlier_count": pl.Int64,
    "infinite_count": pl.Int64,
    "present_count": pl.Int64,
}


@dataclass(frozen=True)
class _Numbers:
    """The values of a column of numbers in one window."""

    finite: Any
    infinite_count: int
    missing_count: int

    @property
    def present_count(self) -> int:
        return int(self.finite.size) + self.infinite_count


def is_number(kind: pl.DataType) -> bool:
    """Return whether the values of a type are compared as numbers."""
    return kind.is_numeric()


def is_category(kind: pl.DataType) -> bool:
    """Return whether the values of a type are compared by the share of each value."""
    return isinstance(kind, pl.String | pl.Boolean | pl.Categorical | pl.Enum)


def list_columns(table: pl.DataFrame, keys: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the columns that can be judged, and those that cannot, for example of dates; keys are neither."""
    others = [name for name in table.columns if name not in keys]
    judged = [
        name
        for name in others
        if is_number(table.schema[name]) or is_category(table.schema[name]) or table.schema[name] == pl.Null
    ]
    return judged, [name for name in others if name not in judged]


def judge_columns(
    reference: pl.DataFrame, current: pl.DataFrame, names: Collection[str], settings: MonitoringSettings
) -> pl.DataFrame:
    """Return a table with a row for each column; null where a figure is not defined."""
    rows = [_judge(reference[name], current[name], settings) for name in names]
    return pl.DataFrame(rows, schema=SCHEMA)


def _judge(reference: pl.Series, current: pl.Series, settings: MonitoringSettings) -> dict[str, object]:
    if is_category(current.dtype):
        return _judge_categories(reference, current, settings)
    return _judge_numbers(reference, current, settings)


def _judge_categories(
    reference: pl.Series, current: pl.Series, settings: MonitoringSettings
) -> dict[str, object]:
    before, now = (values.drop_nulls().cast(pl.String) for values in (reference, current))
    js = jensen_shannon(before, now) if before.len() and now.len() else None
    return {
        "column": current.name,
        "kind": "category",
        "js": js,
        "is_drifted": None if js is None else js > settings.max_js,
        "missing_share": _share(current.null_count(), current.len()),
        "reference_missing_share": _share(reference.null_count(), reference.len()),
        "missing_count": current.null_count(),
        "present_count": now.len(),
    }


def _judge_numbers(
    reference: pl.Series, current: pl.Series, settings: MonitoringSettings
) -> dict[str, object]:
    before, now = _read(reference), _read(current)
    psi = ks = p_value = is_drifted = None
    if before.finite.size and now.finite.size:
        psi = population_stability(before.finite, now.finite)
        ks, p_value = kolmogorov_smirnov(before.finite, now.finite)
        is_drifted = psi > settings.max_psi or ks > settings.max_ks
    outliers = _count_outliers(before.finite, now)
    return {
        "column": current.name,
        "kind": "number",
        "psi": psi,
        "ks": ks,
        "ks_p_value": p_value,
        "is_drifted": is_drifted,
        "missing_share": _share(now.missing_count, current.len()),
        "reference_missing_share": _share(before.missing_count, reference.len()),
        "outlier_share": None if outliers is None else _share(outliers, now.present_count),
        "missing_count": now.missing_count,
        "outlier_count": outliers,
        "infinite_count": now.infinite_count,
        "present_count": now.present_count,
    }


def _read(column: pl.Series) -> _Numbers:
    values = column.drop_nulls().cast(pl.Float64).to_numpy()
    is_finite, is_missing = np.isfinite(values), np.isnan(values)
    missing = column.null_count() + int(is_missing.sum())
    return _Numbers(values[is_finite], int((~is_finite & ~is_missing).sum()), missing)


def _count_outliers(reference: Any, current: _Numbers) -> int | None:
    """Count the values that lie far from the mean of the reference; None if the reference has no spread to measure by.

    An infinite value always counts. Where all values of the reference are equal, every other value counts.
    """
    if reference.size < 2:  # noqa: PLR2004 - one value has no standard deviation
        return None
    if reference.min() == reference.max():
        far = current.finite != reference[0]
    else:
        far = np.abs(current.finite - reference.mean()) > OUTLIER_DEVIATIONS * reference.std(ddof=1)
    return int(far.sum()) + current.infinite_count


def _share(count: int, total: int) -> float | None:
    return count / total if total else None
