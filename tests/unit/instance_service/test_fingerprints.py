"""What moves a fingerprint, and what must not."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_service.domain.fingerprints import (
    backtest_settings,
    canonical_json,
    compute_fingerprint,
    content_hash,
)
from instance_service.domain.flows import Edge
from instance_service.resources.conversion import contract_words
from optaic.instance.v1.spec_pb2 import SignalContract
from optaic.rules.signal_contracts import complete_contract

_EDGES = [Edge("refresh", f"u{n}", "refresh", role, "data") for n in range(2) for role in ("input", "prices")]
_SMALLEST: dict[str, Any] = {
    "assets": {"universe": ["A", "B"], "benchmark": "equal_weight"},
    "signals": {"primary": "s"},
    "date_range": {"start": "2015-01-02", "end": "2020-01-01"},
    "config": {"rebalance_frequency": "daily", "transaction_costs": 0.001, "slippage_model": "linear"},
}
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), _JSON, max_size=5))
def test_the_order_of_keys_and_the_shape_of_numbers_do_not_count(config: dict[str, Any]) -> None:
    def floats(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: floats(item) for key, item in reversed(value.items())}
        if isinstance(value, list):
            return [floats(item) for item in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    assert canonical_json(floats(config)) == canonical_json(config)


def test_the_order_of_edges_and_their_kind_do_not_count() -> None:
    fingerprints = {
        compute_fingerprint("refresh", {"a": 1}, order) for order in itertools.permutations(_EDGES)
    }
    other_kind = [
        Edge(e.flow_kind, e.upstream_instance_id, e.upstream_flow_kind, e.role, "signal") for e in _EDGES
    ]
    assert {compute_fingerprint("refresh", {"a": 1.0}, other_kind)} == fingerprints


def test_everything_that_affects_results_counts() -> None:
    base = ("refresh", {"a": 1}, _EDGES)
    others = [
        ("monitoring", {"a": 1}, _EDGES),
        ("refresh", {"a": 2}, _EDGES),
        ("refresh", {}, _EDGES),
        ("refresh", {"a": 1}, _EDGES[1:]),
        ("refresh", {"a": 1}, [*_EDGES[1:], Edge("refresh", "u0", "inference", "input", "data")]),
        ("refresh", {"a": 1}, [*_EDGES[1:], Edge("refresh", "u9", "refresh", "input", "data")]),
    ]
    assert len({compute_fingerprint(*case) for case in (base, *others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("top_n", 5), ("initial_capital", 1_000_000), ("primary_weight", 1), ("execution_lag", 1),
        ("slippage_rate", 0.1),
    ],
)  # fmt: skip
def test_saying_a_default_of_a_backtest_changes_nothing(key: str, value: float) -> None:
    said = {**_SMALLEST, "config": {**_SMALLEST["config"], key: value}}
    assert backtest_settings(said) == backtest_settings(_SMALLEST)
    other = {**_SMALLEST, "config": {**_SMALLEST["config"], key: value + 1}}
    assert backtest_settings(other) != backtest_settings(_SMALLEST)


def test_defaults_of_a_backtest_are_filled_in() -> None:
    assert backtest_settings({}) == {
        "config": {
            "rebalance_frequency": "monthly", "transaction_costs": 0.001, "slippage_model": "none",
            "slippage_rate": 0.0, "top_n": 5, "initial_capital": 1_000_000.0, "primary_weight": 1.0,
            "execution_lag": 1,
        },
        "universe": [], "benchmark": "equal_weight", "start": "", "end": "",
    }  # fmt: skip
    reordered = {**_SMALLEST, "assets": {"universe": ["B", "A"]}}
    assert backtest_settings(reordered) == backtest_settings(_SMALLEST)


def test_defaults_of_a_signal_contract_are_filled_in() -> None:
    bare = complete_contract(contract_words(SignalContract()))
    said = SignalContract(
        nan_policy=SignalContract.NAN_POLICY_KEEP,
        bounds_policy=SignalContract.BOUNDS_POLICY_REJECT,
        index_columns=["entity", "date"],
    )
    assert complete_contract(contract_words(said)) == bare
    bounded = complete_contract(contract_words(SignalContract(min_value=0)))
    assert (bounded["min_value"], bare["min_value"]) == (0, None)


def test_a_content_hash_is_a_sha_256_of_the_content() -> None:
    assert content_hash({"a": 1}) == content_hash({"a": 1.0})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    assert len(content_hash({})) == 64
