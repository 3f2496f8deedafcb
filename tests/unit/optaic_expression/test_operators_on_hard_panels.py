"""Every operator with every kind of argument, on panels that are hard, against an evaluation in plain pandas."""

import datetime as dt
import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import polars as pl
import pytest

from optaic.expression import OPERATORS, Scope, parse
from optaic.expression.compiler import evaluate
from support.expression_reference import Tree, WideFrames, render

_SESSIONS, _ENTITIES = 24, ["a", "b", "c", "d", "e", "f"]


def _wide(values: np.ndarray) -> pd.DataFrame:
    index = pd.date_range("2020-01-01", periods=len(values))
    return pd.DataFrame(values, index=index, columns=_ENTITIES[: values.shape[1]])


def _panel(kind: str) -> WideFrames:
    rng = np.random.default_rng(sum(map(ord, kind)))
    entities = 1 if kind == "one entity" else len(_ENTITIES)
    shape = (1 if kind == "one date" else _SESSIONS, entities)
    x, y = rng.normal(size=shape), np.exp(rng.normal(size=shape))
    present = np.ones(shape, bool)
    if kind == "gaps":
        present = rng.random(shape) > 0.1
        x[rng.random(shape) < 0.1] = np.nan
    if kind == "runs of NaN":
        for entity in range(entities):
            first = rng.integers(0, _SESSIONS)
            x[first : first + 9, entity] = np.nan
            y[max(0, first - 3) : first + 2, entity] = np.nan
    if kind == "listings and delistings":
        for entity in range(entities):
            first, last = sorted(rng.integers(0, _SESSIONS, 2))
            present[:, entity] = (np.arange(_SESSIONS) >= first) & (np.arange(_SESSIONS) <= last)
    if kind == "ties":
        x, y = np.round(x), np.round(y)
        x[5:13] = 1.0
        y[:, 0] = 0.1
    if kind == "infinities":
        x[rng.random(shape) < 0.1] = np.inf
        y[rng.random(shape) < 0.1] = -np.inf
    group = rng.integers(0, 3, shape).astype(float)
    group[rng.random(shape) < 0.05] = np.nan
    columns = {"x": _wide(x), "y": _wide(y), "team": _wide(group)}
    columns = {name: values.where(np.isfinite(values)) for name, values in columns.items()}
    return WideFrames(columns, _wide(present).astype(bool))


_PANELS = (
    "complete",
    "gaps",
    "runs of NaN",
    "listings and delistings",
    "ties",
    "infinities",
    "one entity",
    "one date",
)


def _calls(name: str) -> Iterator[Tree]:
    """Yield calls with windows of different lengths, with and without min_periods and groups."""
    signature = OPERATORS[name]
    x, y, team = (("column", column) for column in ("x", "y", "team"))
    operands = (x, y, ("binary", "+", y, ("number", 1.0)))[: signature.values]  # noqa: PD011 - no frame
    choices: list[list[float | None]] = []
    for parameter in signature.parameters:
        if parameter.name == "n":
            choices.append([max(parameter.minimum, n) for n in (1, 5, 12)])
        elif parameter.name == "min_periods":
            choices.append([None, 2])
        else:
            choices.append([0.3, 0.5] if parameter.name != "hump" else [0.5])
    for numbers in itertools.product(*choices):
        n = int(numbers[0] or 0) if numbers and signature.parameters[0].name == "n" else 0
        fewest = 0 if name == "COUNT" else n
        given = tuple(
            fewest if number is None else min(number, n) if number == 2 else number for number in numbers
        )
        yield ("call", name, operands, given)
        if signature.has_group:
            yield ("call", name, (*operands, team), given)


def _table(frames: WideFrames) -> pl.DataFrame:
    """The rows in no order, with the groups as texts too."""
    rows = [
        (date.date(), entity, *(frames.columns[name].loc[date, entity] for name in ("x", "y", "team")))
        for date, entity in itertools.product(frames.present.index, frames.present.columns)
        if frames.present.loc[date, entity]
    ]
    schema = {"date": pl.Date, "entity": pl.String, **dict.fromkeys(("x", "y", "team"), pl.Float64)}
    table = pl.DataFrame(rows, schema=schema, orient="row").sample(fraction=1.0, shuffle=True, seed=3)
    sector = pl.col("team").fill_nan(None).cast(pl.Int64).cast(pl.String)
    return table.with_columns(sector=pl.concat_str(pl.lit("sector "), sector))


def _written(tree: Tree, group: str) -> str:
    """The call as text; `render` puts a group before the numbers, where it may stand."""
    return render(tree).replace("team", group)


def _spread(result: pl.DataFrame, like: pd.DataFrame) -> np.ndarray:
    """Lay values out like a wide frame."""
    found = np.full(like.shape, np.nan)
    at_date = {date.date(): row for row, date in enumerate(like.index)}
    at_entity = {entity: column for column, entity in enumerate(like.columns)}
    for date, entity, value in result.iter_rows():
        found[at_date[date], at_entity[entity]] = np.nan if value is None else value
    return found


@pytest.mark.parametrize("kind", _PANELS)
def test_each_operator_agrees_with_pandas_on_a_hard_panel(kind: str) -> None:
    frames = _panel(kind)
    is_session = frames.present.any(axis=1)
    frames = WideFrames({n: c[is_session] for n, c in frames.columns.items()}, frames.present[is_session])
    table = _table(frames)
    for name in OPERATORS:
        for tree in _calls(name):
            for group in ("team", "sector") if "team" in render(tree) else ("team",):
                text = _written(tree, group)
                found = evaluate(parse(text), table)
                expected = frames.evaluate(tree)
                assert found.height == table.height
                np.testing.assert_allclose(
                    _spread(found, expected),
                    expected.to_numpy(),
                    rtol=1e-8,
                    atol=1e-10,
                    err_msg=f"{text} on {kind}",
                )


def test_a_warm_up_is_all_the_history_that_a_value_needs() -> None:
    """A slice that begins a warm-up earlier gives the same bits as the whole panel; an unbounded one says so."""
    frames = _panel("gaps")
    table = _table(frames)
    dates = table["date"].unique().sort()
    for name in OPERATORS:
        for tree in _calls(name):
            expression = parse(_written(tree, "team"))
            needed = expression.warm_up()
            assert (needed is None) == (name in {"EMA", "HUMP"}), name
            if needed is None or needed > 20:
                continue
            if OPERATORS[name].scope is not Scope.TIME_SERIES:
                assert needed == 0, name
            last = dates[-3]
            first = dates[len(dates) - 3 - needed]
            whole = evaluate(expression, table).filter(pl.col("date") == last)
            part = evaluate(expression, table.filter(pl.col("date").is_between(first, last)))
            assert part.filter(pl.col("date") == last).equals(whole), render(tree)


def test_warm_ups_of_nested_operators_add_up() -> None:
    for text, needed in {
        "close": 0,
        "1 + 2": 0,
        "REF(close, 21) / REF(close, 252)": 252,
        "MEAN(REF(close, 5), 20)": 24,
        "STD(PCT(close, 1), 20) - MEAN(close, 5)": 20,
        "RANK(MEAN(close, 3))": 2,
        "MEAN(close, 20, 5)": 19,
        "FFILL(close, 7)": 7,
        "REF(EMA(close, 3), 2)": None,
    }.items():
        assert parse(text).warm_up() == needed, text


def test_a_window_without_gaps_has_the_same_bits_with_min_periods() -> None:
    rng = np.random.default_rng(4)
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=day) for day in range(90)]
    table = pl.DataFrame(
        {"date": days, "entity": "a", "x": 1e6 + rng.normal(size=90), "y": rng.normal(size=90)}
    )
    for name, n in itertools.product(
        ("SUM", "MEAN", "STD", "MIN", "MAX", "CORR", "COV", "BETA", "RESID", "SKEW", "KURT", "MEDIAN"),
        (7, 20, 33),
    ):
        values = "x, y" if OPERATORS[name].values > 1 else "x"  # noqa: PD011 - no frame
        whole = evaluate(parse(f"{name}({values}, {n})"), table)["value"]
        part = evaluate(parse(f"{name}({values}, {n}, 2)"), table)["value"]
        assert part[n - 1 :].equals(whole[n - 1 :]), (name, n)


def test_one_missing_value_costs_one_value_and_not_a_window() -> None:
    rng = np.random.default_rng(1)
    days = pl.date_range(dt.date(2010, 1, 1), dt.date(2015, 12, 31), eager=True)
    values = [None if draw < 0.01 else float(draw) for draw in rng.random(len(days))]
    table = pl.DataFrame({"date": days, "entity": "a", "close": pl.Series(values, dtype=pl.Float64)})
    strict = evaluate(parse("STD(close, 252)"), table)["value"]
    lenient = evaluate(parse("STD(close, 252, min_periods=200)"), table)["value"]
    assert strict.count() < 0.3 * len(days)
    assert lenient.count() > 0.85 * len(days)
