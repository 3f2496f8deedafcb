"""Divide the rows of a training by sessions: what the model learns from, and later what it is measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from optaic.plugins import NoDataInRange
from optaic.rules.columns import DATE
from worker.training.rows import LABEL_END, keep_labelled
from worker.training.settings import TrainingSettings

_FEWEST = 2  # sessions: one to learn from and one to measure on


@dataclass(frozen=True)
class Split:
    """The two parts, and how much lies in neither."""

    train: pl.DataFrame
    validation: pl.DataFrame  # rows with a target
    later: pl.DataFrame  # all rows from the first session of the validation part on
    counts: Mapping[str, int]


def divide(table: pl.DataFrame, settings: TrainingSettings, horizon: int) -> Split:
    """Divide a table `date, entity, features..., _target, _label_end`.

    The sessions are the dates of rows that have a target. The last `validation_share` of them, rounded up, validate. Of the rows
    before, those whose target becomes known on the first of these sessions or later are purged; then the last
    `embargo` sessions that are left are dropped.

    Raises:
        NoDataInRange: Nothing is left to learn from.
    """
    labelled = keep_labelled(table)
    sessions = labelled[DATE].unique().sort()
    count = math.ceil(settings.validation_share * len(sessions))
    before = len(sessions) - count
    if len(sessions) < _FEWEST or not before:
        raise _refuse(len(sessions), count, settings, horizon)
    first = sessions[before]
    earlier = labelled.filter(pl.col(DATE) < first)
    kept = earlier.filter(pl.col(LABEL_END) < first)
    left = kept[DATE].unique().sort()
    if len(left) <= settings.embargo:
        raise _refuse(len(sessions), count, settings, horizon)
    train = kept.filter(pl.col(DATE) <= left[len(left) - 1 - settings.embargo])
    validation = labelled.filter(pl.col(DATE) >= first)
    return Split(
        train,
        validation,
        table.filter(pl.col(DATE) >= first),
        {
            "sessions": len(sessions),
            "train_sessions": train[DATE].n_unique(),
            "validation_sessions": count,
            "train_rows": train.height,
            "validation_rows": validation.height,
            "purged_rows": earlier.height - kept.height,
            "embargoed_rows": kept.height - train.height,
            "rows_without_target": table.height - labelled.height,
        },
    )


def _refuse(sessions: int, validating: int, settings: TrainingSettings, horizon: int) -> NoDataInRange:
    # One session to learn from, the purged ones and the embargo before the validation part.
    needed = math.floor((horizon + settings.embargo) / (1 - settings.validation_share)) + _FEWEST
    return NoDataInRange(
        f"{sessions} sessions have a target; the last {validating} of them validate (validation_share {settings.validation_share}), "
        f"and the horizon of {horizon} sessions and the embargo of {settings.embargo} leave none before them to learn from; about "
        f"{needed} sessions are needed: choose a longer history, or lower validation_share, embargo or target.horizon"
    )
