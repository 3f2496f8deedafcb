"""The benchmark compares every operator of the language with pandas, and both compute the same."""

import numpy as np
import polars as pl
import pytest

from bench import expression
from optaic.expression import OPERATORS, evaluate

_FEW_DIGITS = 1e-6  # of the largest value: pandas has running sums
_SESSIONS = 300


def test_every_operator_is_measured() -> None:
    measured = {text.partition("(")[0] for text in expression._CASES}
    assert set(OPERATORS) - measured == set()
    assert {text.split()[1] for text in expression._CASES if text.count(" ") == 2} >= set("+-*/^>")


@pytest.fixture(scope="module")
def panel() -> tuple[expression.Wide, pl.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expression, "_ENTITIES", 30)
        return expression._make(_SESSIONS)


@pytest.mark.parametrize("text", expression._CASES)
def test_pandas_computes_the_same(text: str, panel: tuple[expression.Wide, pl.DataFrame]) -> None:
    wide, table = panel
    expected = expression._CASES[text](wide).to_numpy(np.float64)
    found = evaluate(text, table)["value"].to_numpy().reshape(expected.shape)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    size = np.nanmax(np.abs(expected))
    assert np.nanmax(np.abs(found - expected)) <= _FEW_DIGITS * size
