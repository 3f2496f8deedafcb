"""Make an Evidently report of two windows: a page for readers, and the snapshot that its projects keep.

Evidently takes seconds and 100 MB to import, so only a process that computes a monitoring imports this module.
"""

from __future__ import annotations

import datetime as dt
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import StatTest
from evidently.legacy.calculations.stattests.registry import register_stattest
from evidently.legacy.core import ColumnType
from evidently.legacy.utils import NumpyEncoder
from evidently.presets import DataDriftPreset, DataSummaryPreset

from optaic.rules.monitoring import MonitoringSettings
from worker.monitoring.columns import is_category
from worker.monitoring.drift import kolmogorov_smirnov, population_stability

MOST_COLUMNS = 30
MOST_ROWS = 50_000  # of a window
MOST_BYTES = 16 * 1024 * 1024  # of the page, and of the snapshot
_MOST_CATEGORIES = 100  # of a column
_LONGEST_TEXT = 100  # characters of a name or a category
_TEST = "psi_quantiles"
_CATEGORY_TEST = "jensenshannon"
_HARMLESS = str.maketrans("<>", "\u2039\u203a")  # in the page a text would be read as markup


@dataclass(frozen=True)
class EvidentlyReport:
    """A report, and what it leaves out."""

    html: str
    snapshot: str  # JSON
    notes: Mapping[str, object]


def make_report(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    columns: pl.DataFrame,
    settings: MonitoringSettings,
    metadata: Mapping[str, str],
    last_day: dt.date,
) -> EvidentlyReport | None:
    """Make the report of the columns that are furthest from their reference; None if no column can be compared.

    Args:
        reference: the rows of the reference window.
        current: those of the current window.
        columns: how each column was judged.
        settings: the thresholds.
        metadata: what the snapshot says about itself.
        last_day: the last session of the current window, at which Evidently's projects show it.
    """
    compared = columns.filter(pl.col("is_drifted").is_not_null()).sort(
        "is_drifted", pl.max_horizontal("psi", "ks", "js"), descending=True, maintain_order=True
    )
    windows = [_thin(window) for window in (current, reference)]
    names = [name for name in compared["column"].to_list() if _fits(name, windows)][:MOST_COLUMNS]
    _register(settings)
    while names:
        html, snapshot = _render(windows, names, settings, metadata, last_day)
        if max(len(html), len(snapshot)) <= MOST_BYTES:
            rows = sum(window.height for window in (reference, current))
            notes = {
                "report_columns": len(names),
                "report_columns_left_out": columns.height - len(names),
                "report_rows_left_out": rows - sum(window.height for window in windows),
            }
            return EvidentlyReport(html, snapshot, notes)
        names = names[: len(names) // 2]
    return None


def _render(
    windows: Sequence[pl.DataFrame],
    names: Sequence[str],
    settings: MonitoringSettings,
    metadata: Mapping[str, str],
    last_day: dt.date,
) -> tuple[str, str]:
    """Return the page and the snapshot of some columns."""
    shown = _shown_names(names)
    categories = [shown[name] for name in names if is_category(windows[0].schema[name])]
    columns = list(shown.values())
    definition = DataDefinition(
        numerical_columns=[name for name in columns if name not in categories], categorical_columns=categories
    )
    now, before = (
        Dataset.from_pandas(_to_pandas(window, shown), data_definition=definition) for window in windows
    )
    drift = DataDriftPreset(
        columns=columns,
        num_method=_TEST,
        num_threshold=settings.max_psi,
        cat_method=_CATEGORY_TEST,
        cat_threshold=settings.max_js,
        drift_share=settings.max_drift_share,
    )
    report = Report([drift, DataSummaryPreset(columns=columns)], include_tests=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's, of constant columns and of what pandas will drop
        moment = dt.datetime.combine(last_day, dt.time())
        snapshot = report.run(now, before, timestamp=moment, metadata=dict(metadata))
        return snapshot.get_html_str(as_iframe=False), json.dumps(snapshot.dump_dict(), cls=NumpyEncoder)


def _shown_names(names: Sequence[str]) -> dict[str, str]:
    """Return how the report calls each column; no two alike."""
    shown: dict[str, str] = {}
    for name in names:
        text = _say(name)
        shown[name] = text if text not in shown.values() else f"{text} ({len(shown)})"
    return shown


def _say(text: str) -> str:
    return text.translate(_HARMLESS)[:_LONGEST_TEXT]


def _register(settings: MonitoringSettings) -> None:
    """Have Evidently judge numbers as this worker does: by the index of our bins, and the KS statistic."""

    def judge(reference: Any, current: Any, kind: ColumnType, threshold: float) -> tuple[float, bool]:
        del kind
        before, now = (
            values[np.isfinite(values)]
            for values in (np.asarray(each, dtype=float) for each in (reference, current))
        )
        psi = population_stability(before, now)
        return psi, psi > threshold or kolmogorov_smirnov(before, now)[0] > settings.max_ks

    register_stattest(
        StatTest(
            name=_TEST,
            display_name="PSI over ten quantile bins",
            allowed_feature_types=[ColumnType.Numerical],
            default_threshold=settings.max_psi,
        ),
        judge,
    )


def _fits(name: str, windows: Sequence[pl.DataFrame]) -> bool:
    """Return whether the report can show a column: it has values in both windows, and not too many categories."""
    kind = windows[0].schema[name]
    if is_category(kind):
        values = pl.concat([window[name].drop_nulls() for window in windows])
        return values.n_unique() <= _MOST_CATEGORIES and all(window[name].count() for window in windows)
    return all(bool(window[name].cast(pl.Float64).is_finite().any()) for window in windows)


def _thin(window: pl.DataFrame) -> pl.DataFrame:
    """Return at most `MOST_ROWS` rows, evenly spaced."""
    if window.height <= MOST_ROWS:
        return window
    return window[np.linspace(0, window.height - 1, MOST_ROWS).round().astype(np.int64)]


def _to_pandas(window: pl.DataFrame, shown: Mapping[str, str]) -> Any:
    """Return the columns as Evidently takes them: infinite values as missing ones, categories as texts."""
    return pd.DataFrame({shown[name]: _values(window[name]) for name in shown})


def _values(column: pl.Series) -> Any:
    if is_category(column.dtype):
        return [None if value is None else _say(value) for value in column.cast(pl.String).to_list()]
    values = column.cast(pl.Float64).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)
