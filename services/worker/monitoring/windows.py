"""Choose the sessions that are compared: the newest ones, and those before them that they are measured against."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from optaic.plugins import NoDataInRange
from optaic.rules.monitoring import REFERENCE_SESSIONS, MonitoringSettings

Training = tuple[dt.date, dt.date]  # the first and the last day of a training period


@dataclass(frozen=True)
class Windows:
    """The sessions of both windows in order; no session is in both."""

    reference: Sequence[dt.date]
    current: Sequence[dt.date]
    is_training: bool  # the reference is the training period

    def select(self, table: pl.DataFrame, days: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows of the reference and those of the current window; `days` has the day of each row."""
        reference, current = (
            table.filter(days.is_in(list(window)).fill_null(value=False))
            for window in (self.reference, self.current)
        )
        return reference, current

    def metrics(self) -> dict[str, object]:
        """Return where the windows lie."""
        return {
            "reference_start": str(self.reference[0]),
            "reference_end": str(self.reference[-1]),
            "reference_sessions": len(self.reference),
            "reference_is_training_period": self.is_training,
            "current_start": str(self.current[0]),
            "current_end": str(self.current[-1]),
            "current_sessions": len(self.current),
        }


def choose_windows(
    days: pl.Series, settings: MonitoringSettings, training: Training | None = None
) -> Windows:
    """Choose both windows among the days that the data has.

    The current window is the newest sessions. The reference is the training period as far as it lies before the current
    window, or the sessions directly before the current window.

    Raises:
        NoDataInRange: there are too few sessions.
    """
    sessions: list[dt.date] = days.drop_nulls().unique().sort().to_list()
    count = settings.window_sessions
    before, current = sessions[:-count], sessions[-count:]
    if not before:
        raise NoDataInRange(
            f"the data has {len(sessions)} sessions, and monitoring needs more than {count}: the current window takes {count} "
            "(monitoring.window_sessions), and it is compared with sessions before it. Refresh more data, or choose a "
            "smaller monitoring.window_sessions"
        )
    if training is not None and not settings.reference_sessions:
        start, end = training
        if trained := [day for day in before if start <= day <= end]:
            return Windows(trained, current, is_training=True)
    return Windows(before[-(settings.reference_sessions or REFERENCE_SESSIONS) :], current, is_training=False)
