"""The division of a training by sessions: who learns, who validates, who does neither."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.plugins import InvalidConfig, NoDataInRange
from worker.training import TrainingSettings
from worker.training.split import divide

DAYS = [dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in range(400)]


def _table(sessions: int, horizon: int, entities: int = 2) -> pl.DataFrame:
    """Sessions with a target, and after them the ones whose target is not known yet."""
    rows = [
        (DAYS[day], f"e{entity}", 1.0 * day, 0.5 if day < sessions else None, DAYS[day + horizon])
        for day in range(sessions + horizon)
        for entity in range(entities)
    ]
    names = ["date", "entity", "x", "_target", "_label_end"]
    table = pl.DataFrame(rows, schema=names, orient="row")
    return table.with_columns(pl.when(pl.col("_target").is_not_null()).then("_label_end").alias("_label_end"))


@settings(deadline=None, max_examples=60)
@given(
    sessions=st.integers(0, 60),
    horizon=st.integers(1, 12),
    embargo=st.integers(0, 12),
    share=st.sampled_from(["0.05", "0.2", "0.29", "0.5", "0.9"]),
)
def test_the_parts_are_those_of_a_plain_count(sessions: int, horizon: int, embargo: int, share: str) -> None:
    table = _table(sessions, horizon)
    wanted = TrainingSettings(validation_share=Decimal(share), embargo=embargo)
    validating = math.ceil(Decimal(share) * sessions)
    start = sessions - validating
    # A row of session t is known at t + horizon, which must lie before the first session that validates.
    learning = [day for day in range(start) if day + horizon < start]
    learning = learning[: len(learning) - embargo] if embargo < len(learning) else []
    if not learning:
        with pytest.raises(NoDataInRange, match="about"):
            divide(table, wanted, horizon)
        return
    split = divide(table, wanted, horizon)
    assert sorted(set(split.train["date"])) == [DAYS[day] for day in learning]
    assert sorted(set(split.validation["date"])) == DAYS[start:sessions]
    assert sorted(set(split.later["date"])) == DAYS[start : sessions + horizon]
    assert split.train["_label_end"].max() < split.validation["date"].min()  # type: ignore[operator] # there are rows
    counts = split.counts
    dropped = counts["purged_rows"] + counts["embargoed_rows"] + counts["rows_without_target"]
    assert counts["train_rows"] + counts["validation_rows"] + dropped == table.height
    assert counts["rows_without_target"] == 2 * horizon


def test_the_error_says_how_many_sessions_are_needed() -> None:
    wanted = TrainingSettings(embargo=4)
    with pytest.raises(NoDataInRange) as error:
        divide(_table(9, 3), wanted, 3)
    assert "9 sessions have a target; the last 2 of them validate" in error.value.message
    assert "about 10 sessions are needed" in error.value.message
    divide(_table(10, 3), wanted, 3)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"validation_share": 0}, "validation_share"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"validation_share": "a"}, "validation_share"),
        ({"embargo": -1}, "embargo"),
        ({"embargo": 1.5}, "embargo"),
        ({"refit": "no"}, "refit"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(config: dict[str, object], path: str) -> None:
    with pytest.raises(InvalidConfig, match=f"^{path}: "):
        TrainingSettings.read(config)


def test_absent_settings_have_their_defaults() -> None:
    assert TrainingSettings.read({}) == TrainingSettings(Decimal("0.2"), 0, refit=True, seed=0)
    given = {"validation_share": 0.3, "embargo": 5.0, "refit": False, "seed": 7}
    assert TrainingSettings.read(given) == TrainingSettings(Decimal("0.3"), 5, refit=False, seed=7)
