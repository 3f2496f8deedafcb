"""Compare the current window of a table with its reference, and measure how predictions turned out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from optaic.plugins import SchemaMismatch, take_days, zone_of
from optaic.plugins.words import describe_columns
from optaic.rules.columns import DATE, VALUE
from optaic.rules.monitoring import MonitoringSettings
from worker.monitoring.alerts import Alert, find_alerts
from worker.monitoring.columns import judge_columns, list_columns
from worker.monitoring.realised import Classify, compare
from worker.monitoring.windows import Training, Windows, choose_windows

_MOST_NAMES = 100  # in one list, and of columns in the metrics; the artifact has all
_MOST_SAID = 5  # in one sentence
_FIGURES = ("psi", "ks", "ks_p_value", "js", "missing_share", "reference_missing_share", "outlier_share")


@dataclass(frozen=True)
class Labels:
    """The labels that are known by now, and the predictions that they belong to."""

    known: pl.DataFrame  # date, entity, target
    predictions: pl.DataFrame  # date, entity, value
    classify: Classify | None = None  # of a classification


@dataclass(frozen=True)
class Subject:
    """A table that is monitored."""

    table: pl.DataFrame
    days: pl.Series  # of each row; null where it has none
    keys: Sequence[str]  # the columns that identify a row
    training: Training | None = None
    labels: Labels | None = None  # of a model


@dataclass(frozen=True)
class Findings:
    """The outcome of a monitoring."""

    metrics: dict[str, object]  # None: undefined
    columns: pl.DataFrame  # a row for each column
    alerts: list[Alert]
    reference: pl.DataFrame
    current: pl.DataFrame
    last_day: dt.date


def monitor(subject: Subject, settings: MonitoringSettings) -> Findings:
    """Compare the newest sessions of a table with those before.

    Raises:
        NoDataInRange: there are too few sessions.
        SchemaMismatch: no column can be compared.
    """
    windows = choose_windows(subject.days, settings, subject.training)
    reference, current = windows.select(subject.table, subject.days)
    judged, left_out = list_columns(subject.table, subject.keys)
    if not judged:
        raise SchemaMismatch(
            f"there is nothing to compare: besides its keys the table has {describe_columns(left_out)}, and monitoring compares "
            "columns of numbers and of texts; refresh data that has such columns, or switch monitoring off"
        )
    columns = judge_columns(reference, current, judged, settings)
    metrics: dict[str, object] = {
        **windows.metrics(),
        "reference_rows": reference.height,
        "current_rows": current.height,
        "rows_without_date": subject.days.null_count(),
        **_sum_up(columns),
        "duplicate_share": _share_repeated(current, subject.keys),
        "columns_left_out": left_out[:_MOST_NAMES],
    }
    if subject.labels is not None:
        metrics |= _measure_predictions(subject.labels, windows)
    warnings = _list_warnings(metrics, subject, settings, len(left_out))
    if warnings:
        metrics["warnings"] = warnings
    return Findings(
        metrics, columns, find_alerts(metrics, columns, settings), reference, current, windows.current[-1]
    )


def _sum_up(columns: pl.DataFrame) -> dict[str, object]:
    """Return the figures of all columns together, and those of each in `columns`, the furthest from its reference first."""
    compared = columns.filter(pl.col("is_drifted").is_not_null())
    drifted = compared.filter("is_drifted")["column"].to_list()
    shown = columns.sort(
        pl.max_horizontal("psi", "ks", "js"), descending=True, nulls_last=True, maintain_order=True
    )
    numbers = columns.filter(pl.col("outlier_count").is_not_null())
    missing, present = int(columns["missing_count"].sum()), int(columns["present_count"].sum())
    return {
        "monitored_columns": columns.height,
        "compared_columns": compared.height,
        "drifted_columns": drifted[:_MOST_NAMES],
        "drifted_column_count": len(drifted),
        "drift_share": len(drifted) / compared.height if compared.height else None,
        "largest_psi": columns["psi"].max(),
        "largest_ks": columns["ks"].max(),
        "missing_share": _ratio(missing, missing + present),
        "outlier_share": _ratio(int(numbers["outlier_count"].sum()), int(numbers["present_count"].sum())),
        "infinite_values": columns["infinite_count"].sum(),
        "columns_without_reference": _names(columns, pl.col("reference_missing_share") == 1.0),
        "columns_without_values": _names(columns, pl.col("missing_share") == 1.0),
        "columns": {
            row["column"]: {name: row[name] for name in _FIGURES if row[name] is not None}
            for row in shown.head(_MOST_NAMES).iter_rows(named=True)
        },
        "columns_not_shown": max(0, columns.height - _MOST_NAMES),
    }


def _names(columns: pl.DataFrame, condition: pl.Expr) -> list[str]:
    names: list[str] = columns.filter(condition)["column"].head(_MOST_NAMES).to_list()
    return names


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _share_repeated(current: pl.DataFrame, keys: Sequence[str]) -> float:
    """Return the share of rows whose key an earlier row has; without any key column, whole rows are compared."""
    known = [key for key in keys if key in current.columns] or current.columns
    return 1.0 - current.select(known).n_unique() / current.height


def _measure_predictions(labels: Labels, windows: Windows) -> dict[str, object]:
    since = compare(labels.predictions, labels.known, labels.classify)
    first, last = windows.current[0], windows.current[-1]
    days = take_days(labels.predictions[DATE], zone_of(labels.predictions[DATE]))
    inside = labels.predictions.filter(days.is_between(first, last))
    now = compare(inside, labels.known, labels.classify)
    return {
        "realised_ic": now.ic,
        "hit_rate": now.hit_rate,
        "labelled_sessions": now.session_count,
        "labelled_predictions": now.count,
        "predictions": inside.filter(pl.col(VALUE).is_finite()).height,
        "realised_ic_since_start": since.ic,
        "hit_rate_since_start": since.hit_rate,
        "labelled_predictions_since_start": since.count,
    }


def _list_warnings(
    metrics: dict[str, object], subject: Subject, settings: MonitoringSettings, left_out: int
) -> list[str]:
    """Return in words what was left out or could not be measured."""
    found = []
    if left_out:
        found.append(f"{left_out} columns hold neither numbers nor categories and are not compared")
    if subject.days.null_count():
        found.append(f"{subject.days.null_count()} rows have no date and are in no window")
    for name, text in (
        ("columns_without_reference", "have no value in the reference, so their drift is undefined"),
        ("columns_without_values", "have no value in the current window"),
    ):
        if names := metrics[name]:
            assert isinstance(names, list)
            found.append(
                f"columns {', '.join(names[:_MOST_SAID])}{', ...' if len(names) > _MOST_SAID else ''} {text}"
            )
    if (
        subject.labels is not None
        and not settings.reference_sessions
        and not metrics["reference_is_training_period"]
    ):
        found.append(
            "no session of the training period lies before the current window, so the sessions before it are the reference"
        )
    if subject.labels is not None and not metrics["labelled_predictions"]:
        found.append(
            "the label of no prediction in the current window is known yet, so realised_ic and hit_rate are undefined"
        )
    return found
