"""The digest of a table by its days, and the days in which two tables differ."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaic.plugins import DateRange
from worker.builtin.day_digests import DayDigests, find_changed
from worker.builtin.digest import canonicalize

KEYS = ["date", "entity"]
FIRST = dt.date(2024, 3, 1)


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def table_of(rows: dict[tuple[int, str], float | None]) -> pl.DataFrame:
    columns = {
        "date": [day(n) for n, _ in rows],
        "entity": [e for _, e in rows],
        "value": list(rows.values()),
    }
    return pl.DataFrame(columns, schema={"date": pl.Date, "entity": pl.String, "value": pl.Float64})


def digests_of(table: pl.DataFrame, keys: list[str] = KEYS) -> DayDigests:
    return DayDigests.of(canonicalize(table, keys))


BASE = table_of({(n, entity): n * 1.5 for n in range(4) for entity in "AB"})
EXPECTED = "d2:11ed888e6c623180eb8b72b3e709d50c39c74a1642b7775e877557f1abeb9595"


def test_the_digest_is_the_same_on_every_machine() -> None:
    """A literal: a library that changes it would make every stored version look moved."""
    table = BASE.head(4).with_columns(
        n=pl.Series([1, None, 3, 4], dtype=pl.Int16),
        at=pl.lit(dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)),
        flag=pl.Series([True, None, False, True]),
        group=pl.Series(["x", None, "é", ""], dtype=pl.Categorical),
    )
    assert digests_of(table).digest == EXPECTED


def test_different_content_has_different_digests() -> None:
    others = [
        BASE.with_columns(value=pl.col("value") + 1e-12),
        BASE.rename({"value": "close"}),
        BASE.with_columns(pl.col("value").cast(pl.Int64)),
        BASE.with_columns(value=pl.lit(None, pl.Float64)),
        BASE.with_columns(value=pl.lit(0.0)),
        BASE.with_columns(value=pl.lit(float("nan"))),
        BASE.head(3),
        BASE.clear(),
        BASE.clear().rename({"value": "close"}),
        BASE.with_columns(pl.col("date").cast(pl.Datetime("us"))),
    ]
    assert len({digests_of(table).digest for table in [BASE, *others]}) == len(others) + 1
    names = [pl.DataFrame({"date": [1, 2], "entity": pair}) for pair in (["ab", "c"], ["a", "bc"])]
    assert len({digests_of(table, ["date"]).digest for table in names}) == 2


def test_the_order_of_rows_columns_and_keys_does_not_count() -> None:
    shuffled = BASE.sample(fraction=1, shuffle=True, seed=1).select("value", "entity", "date")
    assert digests_of(shuffled).digest == digests_of(BASE).digest
    assert digests_of(BASE, ["entity", "date"]).by_day == digests_of(BASE).by_day


_ROWS = st.dictionaries(
    st.tuples(st.integers(0, 6), st.sampled_from("ABC")), st.sampled_from([None, 0.0, 1.0, 2.5]), max_size=12
)


@given(_ROWS, _ROWS)
def test_the_changed_days_are_those_with_other_rows(
    before: dict[tuple[int, str], float | None], now: dict[tuple[int, str], float | None]
) -> None:
    days = {
        key[0]
        for key in before.keys() | now.keys()
        if (key in before, before.get(key)) != (key in now, now.get(key))
    }
    expected = DateRange(day(min(days)), day(max(days))) if days else None
    assert find_changed(digests_of(table_of(before)), digests_of(table_of(now))) == expected
    assert (digests_of(table_of(before)).digest == digests_of(table_of(now)).digest) is (not days)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (BASE, BASE.with_columns(other=1.0)),
        (BASE, BASE.with_columns(pl.col("value").cast(pl.Int64))),
        (BASE.drop("date"), BASE.drop("date").head(1)),
        (
            BASE,
            pl.concat([BASE, pl.DataFrame({"date": [None], "entity": ["C"], "value": [1.0]}, BASE.schema)]),
        ),
    ],
    ids=["a new column", "another type", "no dates", "a row without a date"],
)
def test_where_no_days_tell_the_difference_every_day_may_differ(
    before: pl.DataFrame, now: pl.DataFrame
) -> None:
    keys = [name for name in ("entity", "value") if name in before.columns]
    tables = [DayDigests.of(table.sort(keys)) for table in (before, now)]
    assert find_changed(*tables) is None


def test_instants_change_the_days_beside_theirs_too() -> None:
    at = [dt.datetime(2024, 3, n, 23, 30, tzinfo=dt.UTC) for n in (1, 2, 3)]
    before = pl.DataFrame({"date": at, "entity": ["A"] * 3, "value": [1.0, 2.0, 3.0]})
    now = before.with_columns(value=pl.Series([1.0, 5.0, 3.0]))
    changed = find_changed(digests_of(before), digests_of(now))
    assert changed == DateRange(dt.date(2024, 3, 1), dt.date(2024, 3, 3))
