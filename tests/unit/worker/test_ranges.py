"""A range of dates put in place of the same dates, and how much a refresh takes away: pure functions on tables."""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.plugins import DateRange, DeletionRefused, NoDataInRange, SchemaMismatch
from worker.comparison import check_deletions, count_changes, count_deleted
from worker.ranges import put_in_place
from worker.readers import hash_readers

KEYS = ("date", "entity")
DAY = dt.date(2024, 1, 1)
_rows = st.dictionaries(
    st.tuples(st.integers(0, 9), st.sampled_from("ab")), st.sampled_from([1.5, 2.5, None]), max_size=14
)
_bounds = st.one_of(st.none(), st.integers(-1, 10))


def _day(number: int) -> dt.date:
    return DAY + dt.timedelta(days=number)


def _table(rows: dict[tuple[int, str], float | None]) -> pl.DataFrame:
    schema = {"date": pl.Date, "entity": pl.String, "value": pl.Float64}
    listed = [(_day(day), entity, value) for (day, entity), value in rows.items()]
    return pl.DataFrame(listed, schema=schema, orient="row")


def _range(start: int | None, end: int | None) -> DateRange:
    return DateRange(*(None if each is None else _day(each) for each in (start, end)))


@settings(deadline=None)
@given(before=_rows, computed=_rows, start=_bounds, end=_bounds)
def test_only_the_rows_of_the_range_are_replaced_by_the_computed_ones(
    before: dict[tuple[int, str], float | None],
    computed: dict[tuple[int, str], float | None],
    start: int | None,
    end: int | None,
) -> None:
    dates = _range(start, end)

    def is_inside(key: tuple[int, str]) -> bool:
        return _day(key[0]) in dates

    wanted = {key: value for key, value in before.items() if not is_inside(key)}
    inside = {key: value for key, value in computed.items() if is_inside(key)}
    try:
        merged = put_in_place(_table(computed), _table(before), dates, allow_deletion=True)
    except NoDataInRange:
        assert not inside
        assert not any(map(is_inside, before))
        return
    assert merged.table.sort(KEYS).equals(_table(wanted | inside).sort(KEYS))
    assert merged.dropped_count == len(computed) - len(inside)
    counted = count_changes(_table(before), merged.table, KEYS)
    now = wanted | inside
    assert counted == {
        "rows_inserted": len(now.keys() - before.keys()),
        "rows_updated": sum(before[key] != now[key] for key in now.keys() & before.keys()),
        "rows_deleted": len(before.keys() - now.keys()),
    }


def test_a_range_in_which_everything_is_gone_is_emptied_only_where_it_may_be() -> None:
    before = _table({(0, "a"): 1.0, (1, "a"): 2.0})
    gone = DateRange(_day(1), None)
    for nothing in (pl.DataFrame(), before.clear(), before.head(1)):
        with pytest.raises(NoDataInRange, match="allow_deletion"):
            put_in_place(nothing, before, gone, allow_deletion=False)
        assert put_in_place(nothing, before, gone, allow_deletion=True).table.equals(before.head(1))
        for base in (None, before):
            with pytest.raises(NoDataInRange, match="there are no rows from 2024-01-09"):
                put_in_place(nothing, base, DateRange(_day(8), None), allow_deletion=True)


@pytest.mark.parametrize("dates", [_range(None, 2), _range(2, None), _range(2, 2)])
def test_both_ends_of_a_range_use_the_calendar_of_the_computed_table(dates: DateRange) -> None:
    midnights = pl.datetime_range(_day(0), _day(5), "1d", time_zone="Asia/Tokyo", eager=True)
    whole = pl.DataFrame({"date": midnights, "entity": ["a"] * 6, "value": [0.5] * 6})
    before = whole.with_columns(pl.col("date").dt.convert_time_zone("UTC"))  # as an older release wrote it
    computed = whole.filter(pl.Series([_day(day) in dates for day in range(6)]))
    merged = put_in_place(computed, before, dates, allow_deletion=False)
    assert merged.table.sort("date").equals(before)


def test_rows_without_a_date_lie_in_no_range() -> None:
    before = pl.DataFrame({"date": [_day(0), None], "id": [1, 2]})
    part = pl.DataFrame({"date": [_day(0), None], "id": [3, 4]})
    merged = put_in_place(part, before, DateRange(_day(0), _day(0)), allow_deletion=False)
    assert merged.table.sort("id").rows() == [(None, 2), (_day(0), 3)]
    assert merged.dropped_count == 1


_BASE = pl.DataFrame(
    {"date": [_day(0), _day(1)], "n": [1, 2], "x": [0.5, 1.5], "t": ["a", "b"]},
    schema_overrides={"n": pl.Int64},
)


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("n", [7], pl.Int32),
        ("n", [7.0], pl.Float64),
        ("x", [7], pl.Int64),
        ("x", [0.5], pl.Float32),
        ("x", [None], pl.Null),
        ("t", ["c"], pl.Categorical),
    ],
)
def test_types_that_differ_only_in_form_are_converted(column: str, values: list[Any], kind: Any) -> None:
    part = _BASE.tail(1).with_columns(pl.Series(column, values, dtype=kind))
    merged = put_in_place(part, _BASE, DateRange(_day(1), None), allow_deletion=False).table
    assert merged.schema == _BASE.schema
    assert merged.head(1).equals(_BASE.head(1))
    assert merged[column][1] == values[0]


def test_a_column_without_values_gets_its_type_from_the_range() -> None:
    base = _BASE.with_columns(note=pl.lit(None, pl.Float64))
    part = base.tail(1).with_columns(note=pl.lit("x"))
    days = DateRange(part["date"][0], part["date"][0])
    merged = put_in_place(part, base, days, allow_deletion=False).table
    assert merged["note"].drop_nulls().to_list() == ["x"]
    again = put_in_place(part.with_columns(note=None), merged, days, allow_deletion=False).table
    assert again.schema["note"] == pl.String


@pytest.mark.parametrize(
    ("column", "value"),
    [("n", "7"), ("x", 2**53 + 1), ("x", "0.5"), ("t", 7), ("t", _day(0))],
)
def test_a_conversion_that_would_change_a_value_is_refused_by_column_and_types(
    column: str, value: Any
) -> None:
    part = _BASE.tail(1).with_columns(pl.Series(column, [value]))
    with pytest.raises(SchemaMismatch, match=rf"column '{column}' is .* in the range and .* without a range"):
        put_in_place(part, _BASE, DateRange(_day(1), None), allow_deletion=False)


@pytest.mark.parametrize("value", [7.5, float("inf"), 1e300])
def test_integers_outside_the_range_become_equal_floats_if_the_range_has_fractions(value: float) -> None:
    base = _BASE.with_columns(n=pl.Series([2**60, 2]))
    part = base.tail(1).with_columns(n=pl.Series([value]))
    merged = put_in_place(part, base, DateRange(_day(1), None), allow_deletion=False).table
    assert merged.schema["n"] == pl.Float64
    assert merged["n"].to_list() == [2.0**60, value]
    assert merged.drop("n").equals(_BASE.drop("n"))


@pytest.mark.parametrize("outside", [2**53 + 1, -(2**53) - 1, 2**63 - 1])
def test_an_integer_without_an_exact_float_prevents_widening_the_column(outside: int) -> None:
    base = _BASE.with_columns(n=pl.Series([outside, 2]))
    part = base.tail(1).with_columns(n=pl.Series([7.5]))
    with pytest.raises(
        SchemaMismatch, match=r"column 'n' is Float64 in the range, but whole numbers outside the range"
    ):
        put_in_place(part, base, DateRange(_day(1), None), allow_deletion=False)


def test_a_fraction_differs_from_its_integer_part() -> None:
    before = pl.DataFrame({"id": [1, 2, 3], "n": [1, 2, 3]})
    after = pl.DataFrame({"id": [1, 2, 3], "n": [1.5, 2.0, 3.0]})
    assert count_changes(before, after, ["id"]) == {"rows_inserted": 0, "rows_updated": 1, "rows_deleted": 0}
    assert count_deleted(before, after.with_columns(id=pl.Series([1.5, 2.0, 3.0])), ["id"]) == 1


def test_new_columns_are_null_outside_the_range_and_missing_columns_are_refused() -> None:
    dates = DateRange(_day(1), None)
    merged = put_in_place(_BASE.tail(1).with_columns(new=pl.lit(3)), _BASE, dates, allow_deletion=False)
    assert merged.new_columns == ("new",)
    assert merged.table["new"].to_list() == [None, 3]
    assert merged.table.drop("new").equals(_BASE)
    with pytest.raises(SchemaMismatch, match="no column x"):
        put_in_place(_BASE.tail(1).drop("x"), _BASE, dates, allow_deletion=False)
    with pytest.raises(SchemaMismatch, match="needs a column 'date'"):
        put_in_place(_BASE.drop("date"), _BASE, dates, allow_deletion=False)
    with pytest.raises(SchemaMismatch, match=r"previous version has no column 'date'.*without a range"):
        put_in_place(_BASE, _BASE.drop("date"), dates, allow_deletion=False)
    with pytest.raises(SchemaMismatch, match="column 'date' contains String, not dates"):
        put_in_place(_BASE.with_columns(date=pl.lit("2024")), _BASE, dates, allow_deletion=False)


@given(known=st.integers(0, 45), deleted=st.integers(0, 45), share=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_more_than_the_share_of_at_least_twenty_keys_is_refused(
    known: int, deleted: int, share: float
) -> None:
    deleted = min(deleted, known)
    before = pl.DataFrame({"id": list(range(known)), "x": [1.0] * known}, schema={"id": int, "x": float})
    after = before.tail(known - deleted).with_columns(x=pl.lit(2.0))
    if known >= 20 and deleted > share * known:
        with pytest.raises(DeletionRefused, match=rf"delete {deleted} of {known} keys \(id\)") as refusal:
            check_deletions(before, after, ["id"], share)
        assert "--allow-deletion --reason" in str(refusal.value)
    else:
        check_deletions(before, after, ["id"], share)


def test_keys_are_compared_by_value_and_absent_ones_by_number_of_rows() -> None:
    before = pl.DataFrame({"id": [1, 2, 3], "x": [1, 1, 1]})
    after = pl.DataFrame({"id": pl.Series([2, 3, 4], dtype=pl.Int16), "x": [1, 2, 1]})
    assert count_deleted(before, after, ["id"]) == 1
    assert count_changes(before, after, ["id"]) == {"rows_inserted": 1, "rows_updated": 1, "rows_deleted": 1}
    assert count_deleted(before, after.head(1), ["nowhere"]) == 2
    assert count_deleted(before.head(1), after, []) == 0


def test_keys_of_a_type_that_the_former_cannot_take_are_other_keys() -> None:
    before = pl.DataFrame({"date": [_day(0), _day(1)], "x": [1, 2]})
    after = pl.DataFrame({"date": ["2024-01-01"], "x": [1]})
    assert count_deleted(before, after, ["date"]) == 2
    assert count_changes(before, after, ["date"]) == {
        "rows_inserted": 1,
        "rows_updated": 0,
        "rows_deleted": 2,
    }


def test_the_readers_hash_depends_on_the_meaning_and_not_on_the_notation() -> None:
    readers: dict[str, Any] = {
        "store": {"definition": "a", "config": {"keys": ["x"], "n": 1.0}},
        "accessor": {"config": {}},
    }
    same: dict[str, Any] = {
        "accessor": {"config": {}},
        "store": {"config": {"n": 1, "keys": ["x"]}, "definition": "a"},
    }
    assert hash_readers(readers) == hash_readers(same)
    others: tuple[dict[str, Any], ...] = (
        {**readers, "store": {**readers["store"], "definition": "b"}},
        {**readers, "accessor": {"config": {"field": "x"}}},
        {"store": readers["accessor"], "accessor": readers["store"]},
    )
    for other in others:
        assert hash_readers(other) != hash_readers(readers)
