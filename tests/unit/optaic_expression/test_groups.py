"""Groups that last are computed as columns; the results are those of groups that may change, to the last bit."""

import datetime as dt
from unittest import mock

import numpy as np
import polars as pl
import pytest

from optaic.expression import groups, parse
from optaic.expression.compiler import evaluate
from optaic.expression.sums import Array

_CALLS = (
    "RANK(x, team)",
    "ZSCORE(x, team)",
    "DEMEAN(x, team)",
    "SCALE(x, team)",
    "WINSORIZE(x, 0.1, team)",
    "SCALE(x / 1e-200, team)",
)
_SESSIONS, _ENTITIES = 60, 30


def _table(x: Array, team: Array) -> pl.DataFrame:
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=day) for day in range(len(x))]
    names = [f"e{number:02}" for number in range(x.shape[1])]
    keys = pl.DataFrame({"date": days}).join(pl.DataFrame({"entity": names}), how="cross")
    columns = {"x": x, "team": team}
    return keys.with_columns(
        **{name: pl.Series(value.ravel(), nan_to_null=True) for name, value in columns.items()}
    )


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("teams", [1, 4, 12, _ENTITIES])
def test_groups_that_last_are_computed_with_the_bits_of_groups_that_change(
    missing: float, teams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(teams)
    x = np.round(rng.normal(size=(_SESSIONS, _ENTITIES)), 1) * 10.0 ** rng.integers(-3, 4, _ENTITIES)
    x[rng.random(x.shape) < missing] = np.nan
    team = np.broadcast_to(rng.integers(0, teams, _ENTITIES).astype(float), x.shape).copy()
    team[:, 3] = np.nan
    team[rng.random(team.shape) < missing / 2] = np.nan
    monkeypatch.setattr(groups, "_AT_ONCE", 200)  # so that a block has a part of the dates
    for call in _CALLS:
        found = evaluate(parse(call), _table(x, team))
        with mock.patch.object(groups, "_in_lasting_groups") as lasting:
            lasting.side_effect = lambda x, group, compute, **_: groups._in_changing_groups(
                x, np.broadcast_to(group, x.shape), compute
            )
            expected = evaluate(parse(call), _table(x, team))
        assert lasting.called, call
        assert found.equals(expected), call


@pytest.mark.parametrize("last", ["energy", "banks", None])
def test_a_text_that_repeats_each_session_is_read_as_one_that_does_not(last: str | None) -> None:
    rng = np.random.default_rng(5)
    table = _table(rng.normal(size=(5, 4)), np.ones((5, 4)))
    sectors = ["energy", "banks", None, "energy"] * 4 + ["energy", "banks", None, last]
    table = table.with_columns(sector=pl.Series(sectors, dtype=pl.String))
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=1)
    for call in ("sector == 'energy'", "DEMEAN(x, sector)", "sector != sector"):
        assert evaluate(parse(call), table).equals(evaluate(parse(call), shuffled)), call


@pytest.mark.parametrize(
    "call",
    [
        *_CALLS,
        "sector == 'energy'",
        "sector != sector",
        "DEMEAN(x, sector)",
        "x > team",
        "RANK(x)",
        "MEAN(x, 3)",
    ],
)
def test_a_table_without_rows_has_a_result_without_rows(call: str) -> None:
    table = _table(np.ones((1, 2)), np.ones((1, 2))).with_columns(sector=pl.lit("energy"))
    found = evaluate(parse(call), table.clear())
    assert (found.height, found.schema) == (0, evaluate(parse(call), table).schema)
