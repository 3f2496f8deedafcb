"""Every operator, alone and nested, against an independent evaluation in plain pandas."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from optaic.expression import OPERATORS, parse
from optaic.expression.compiler import evaluate
from support.expression_reference import Tree, WideFrames, render, trees, wide_frames


def make_table(frames: WideFrames, order: int) -> pl.DataFrame:
    """The present rows, in some order."""
    dates, entities = [date.date() for date in frames.present.index], list(frames.present.columns)
    values = [wide.reindex_like(frames.present).to_numpy() for wide in frames.columns.values()]
    rows = [
        (dates[row], entities[column], *(each[row, column] for each in values))
        for row, column in np.argwhere(frames.present.to_numpy())
    ]
    schema = {"date": pl.Date, "entity": pl.String, **dict.fromkeys(frames.columns, pl.Float64)}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.sample(fraction=1.0, shuffle=True, seed=order)


def check_agreement(tree: Tree, frames: WideFrames, order: int = 0) -> None:
    # Sessions are the table's dates: those on which nobody has a row do not exist for the product.
    is_session = frames.present.any(axis=1)
    frames = WideFrames({n: c[is_session] for n, c in frames.columns.items()}, frames.present[is_session])
    if not len(frames.present):
        return
    expected = frames.evaluate(tree)
    result = evaluate(parse(render(tree)), make_table(frames, order))
    assert result.columns == ["date", "entity", "value"]
    assert result.height == int(frames.present.to_numpy().sum())
    assert result.select("date", "entity").equals(result.select("date", "entity").sort("date", "entity"))
    actual = np.full(expected.shape, np.nan)
    rows = {date.date(): row for row, date in enumerate(expected.index)}
    columns = {entity: column for column, entity in enumerate(expected.columns)}
    for date, entity, value in result.iter_rows():
        actual[rows[date], columns[entity]] = np.nan if value is None else value
    assert result["value"].is_nan().sum() == 0
    np.testing.assert_allclose(actual, expected.to_numpy(), rtol=1e-6, atol=1e-6, err_msg=render(tree))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees, frames=wide_frames(), order=st.integers(0, 3))
@example(
    tree=("call", "ZSCORE", (("call", "REF", (("column", "close"),), (1,)),), ()),
    frames=WideFrames(
        {"open": pd.DataFrame({"a": [1.0]}), "close": pd.DataFrame({"a": [1.0]})},
        pd.DataFrame({"a": [False]}),
    ),
    order=0,
)
def test_random_expressions_agree_with_pandas(tree: Tree, frames: WideFrames, order: int) -> None:
    check_agreement(tree, frames, order)


def make_example(missing: float) -> WideFrames:
    rng = np.random.default_rng(7)
    index, names = pd.date_range("2021-03-01", periods=60), list("abcdef")
    columns = {
        name: pd.DataFrame(
            100 * np.exp(rng.normal(0, 0.02, (60, 6)).cumsum(axis=0)), index=index, columns=names
        )
        for name in ("open", "close")
    }
    return WideFrames(columns, pd.DataFrame(rng.random((60, 6)) >= missing, index=index, columns=names))


@pytest.mark.parametrize("missing", [0.0, 0.03])
@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_each_operator_agrees_with_pandas_on_prices(name: str, missing: float) -> None:
    signature = OPERATORS[name]
    close, open_ = ("column", "close"), ("column", "open")
    operands = (close, open_, ("binary", "+", open_, close))[: signature.values]  # noqa: PD011 - no frame
    parameters = tuple(0.1 if not p.is_integer else 5 for p in signature.parameters)
    check_agreement(("call", name, operands, parameters), make_example(missing))


@pytest.mark.parametrize(
    "tree",
    [
        ("call", "MEAN", (("call", "ZSCORE", (("call", "PCT", (("column", "close"),), (3,)),), ()),), (4,)),
        ("call", "RANK", (("call", "STD", (("call", "DEMEAN", (("column", "close"),), ()),), (5,)),), ()),
        (
            "call",
            "CORR",
            (("call", "DEMEAN", (("column", "close"),), ()), ("call", "EMA", (("column", "open"),), (3,))),
            (6,),
        ),
        (
            "call",
            "SCALE",
            (("call", "DELTA", (("call", "WINSORIZE", (("column", "close"),), (0.2,)),), (2,)),),
            (),
        ),
    ],
    ids=render,
)
@pytest.mark.parametrize("missing", [0.0, 0.03])
def test_nested_windows_of_both_directions_agree_with_pandas(tree: Tree, missing: float) -> None:
    check_agreement(tree, make_example(missing))
