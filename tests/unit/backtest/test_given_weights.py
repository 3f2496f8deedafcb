"""Weights that another program decided: what cannot be bought stays cash, and holdings that are stuck use up their side."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from support.small_panels import settings, table
from worker.backtest.eligibility import Choice
from worker.backtest.execution import Path, simulate
from worker.backtest.market import prepare

N = None


def given(long: dict[int, float], short: dict[int, float] | None = None) -> Choice:
    (longs, of_longs), (shorts, of_shorts) = (
        (np.array(list(side), dtype=np.intp), np.array(list(side.values()))) for side in (long, short or {})
    )
    return Choice(longs, shorts, of_longs, of_shorts, are_weights=True)


def path_of(closes: Mapping[str, Sequence[float | None]], choices: dict[int, Choice]) -> Path:
    signal = table("value", {name: [1.0] * 4 for name in closes})
    prepared = prepare(table("close", closes), [signal], None, settings(start="2020-01-01"))
    return simulate(prepared.panel, choices, settings())


def test_weights_need_not_use_all_capital() -> None:
    path = path_of({"a": [10.0, 10.0, 20.0, 20.0], "b": [10.0] * 4}, {0: given({0: 0.3, 1: 0.2})})
    assert path.nav.tolist() == pytest.approx([1e6, 1e6, 1.3e6, 1.3e6])


def test_the_weight_of_a_member_that_cannot_be_bought_stays_cash() -> None:
    path = path_of({"a": [10.0, N, 10.0, 10.0], "b": [10.0] * 4}, {0: given({0: 0.5, 1: 0.5})})
    assert path.values[1].tolist() == pytest.approx([0.0, 5e5])
    nobody = path_of({"a": [10.0, 10.0, N, 10.0], "b": [10.0] * 4}, {0: given({1: 1.0}), 1: given({0: 1.0})})
    assert nobody.values[2].tolist() == [0.0, 0.0]
    assert nobody.nav[2] == pytest.approx(1e6)


def test_a_stuck_holding_leaves_the_others_what_they_were_given_if_it_fits() -> None:
    closes: dict[str, list[float | None]] = {"a": [10.0, 10.0, N, 10.0], "b": [10.0] * 4}
    fits = path_of(closes, {0: given({0: 0.5, 1: 0.5}), 1: given({0: 0.5, 1: 0.5})})
    assert fits.values[2].tolist() == pytest.approx([5e5, 5e5])
    too_much = path_of(closes, {0: given({0: 0.5, 1: 0.5}), 1: given({1: 0.8})})
    assert too_much.values[2].tolist() == pytest.approx([5e5, 3e5]), (
        "0.8 of the side, of which 0.5 is used up"
    )


def test_weights_may_be_short() -> None:
    path = path_of({"a": [10.0] * 4, "b": [10.0, 10.0, 12.0, 12.0]}, {0: given({0: 0.4}, {1: 0.3})})
    assert path.values[1].tolist() == pytest.approx([4e5, -3e5])
    assert path.nav.tolist() == pytest.approx([1e6, 1e6, 0.94e6, 0.94e6])
