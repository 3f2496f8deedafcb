"""Several signals become one: the weighted mean of their z-scores."""

import numpy as np
import pytest

from worker.backtest.panel import combine_signals
from worker.backtest.tables import Matrix

PRIMARY = np.array([[1.0, 2.0, 6.0]])
SECOND = np.array([[30.0, 20.0, 10.0]])
THIRD = np.array([[5.0, 5.0, 8.0]])
NAN = np.nan


def zscore(row: Matrix) -> Matrix:
    score: Matrix = (row - row.mean()) / row.std(ddof=1)
    return score


def test_a_single_signal_is_taken_as_it_is() -> None:
    assert combine_signals([PRIMARY], 1.0) is PRIMARY
    assert combine_signals([PRIMARY], 0.3) is PRIMARY


def test_a_primary_signal_with_the_whole_weight_excludes_the_others() -> None:
    assert combine_signals([PRIMARY, np.full((1, 3), NAN)], 1.0) is PRIMARY


def test_secondary_signals_share_the_weight_that_the_primary_leaves() -> None:
    expected = 0.6 * zscore(PRIMARY) + 0.2 * zscore(SECOND) + 0.2 * zscore(THIRD)
    np.testing.assert_allclose(combine_signals([PRIMARY, SECOND, THIRD], 0.6), expected)


def test_an_entity_needs_a_value_of_each_signal() -> None:
    second = np.array([[30.0, NAN, 10.0]])
    combined = combine_signals([PRIMARY, second], 0.5)
    # Each z-score is over the entities that the signal has.
    expected = 0.5 * zscore(PRIMARY[0])[[0, 2]] + 0.5 * zscore(np.array([30.0, 10.0]))
    assert np.isnan(combined[0, 1])
    np.testing.assert_allclose(combined[0, [0, 2]], expected)


@pytest.mark.parametrize("row", [[0.1, 0.1, 0.1], [0.1, NAN, NAN], [NAN, NAN, NAN]])
def test_a_session_without_spread_has_no_combined_signal(row: list[float]) -> None:
    assert np.isnan(combine_signals([PRIMARY, np.array([row])], 0.5)).all()
