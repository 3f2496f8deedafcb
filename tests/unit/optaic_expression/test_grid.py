"""The layout of a table as sessions and entities."""

import datetime as dt

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.expression.grid import Grid

_DAYS = [dt.date(2020, 1, 1) + dt.timedelta(days=day) for day in range(4)]
_KEYS = st.lists(st.tuples(st.sampled_from(_DAYS), st.sampled_from("abc")), unique=True, max_size=12)


def make_table(keys: list[tuple[dt.date, str]]) -> pl.DataFrame:
    """A table with a value that tells each row."""
    schema = {"date": pl.Date, "entity": pl.String}
    values = pl.Series("x", range(len(keys)), dtype=pl.Float64)
    return pl.DataFrame(keys, schema=schema, orient="row").with_columns(values)


@settings(deadline=None, max_examples=300)
@given(st.one_of(_KEYS, _KEYS.map(sorted)))
def test_every_value_lies_at_its_session_and_entity_and_comes_back_sorted(
    keys: list[tuple[dt.date, str]],
) -> None:
    table = make_table(keys)
    grid = Grid.of(table)
    spread = grid.spread(table["x"])
    assert spread.shape == (len(grid.sessions), len(grid.entities))
    at = {
        (session, entity): (row, column)
        for row, session in enumerate(grid.sessions)
        for column, entity in enumerate(grid.entities)
    }
    assert [spread[at[key]] for key in keys] == table["x"].to_list()
    assert grid.collect(spread, "value").rows() == sorted(table.rows())


@settings(deadline=None, max_examples=300)
@given(st.one_of(_KEYS.map(sorted), st.lists(st.sampled_from(_DAYS), unique=True)))
def test_a_table_is_its_grid_if_it_is_sorted_and_has_every_entity_on_every_date(
    given_keys: list[tuple[dt.date, str]] | list[dt.date],
) -> None:
    keys = [each if isinstance(each, tuple) else (each, name) for each in given_keys for name in "ab"]
    keys = list(dict.fromkeys(keys))
    dates, names = ({key[place] for key in keys} for place in (0, 1))
    is_grid = bool(keys) and keys == [(date, name) for date in sorted(dates) for name in sorted(names)]
    assert (Grid.of(make_table(keys)).places is None) == is_grid


def test_a_date_that_changes_within_a_block_of_entities_is_no_grid() -> None:
    first, second, third, _ = _DAYS
    keys = [(first, "a"), (first, "b"), (second, "a"), (third, "b"), (third, "a"), (third, "c")]
    grid = Grid.of(make_table(keys))
    assert grid.places is not None
    assert grid.is_present.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
