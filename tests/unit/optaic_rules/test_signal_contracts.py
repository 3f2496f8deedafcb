"""A default of signal contracts stands in one place: contract, fingerprints and worker agree on it."""

import dataclasses
from typing import Any

import pytest

from instance_service.domain.fingerprints import canonical_json
from instance_service.resources.conversion import contract_words
from optaic.instance.v1.spec_pb2 import SignalContract
from optaic.rules import signal_contracts
from optaic.rules.signal_contracts import DEFAULTS, complete_contract
from support.contract import comments, words_in
from worker.builtin import signal_guard
from worker.recipe_reading import refresh as refresh_reading

MESSAGE = "optaic.instance.v1.SignalContract"
OTHERS: dict[str, Any] = {
    "min_value": -1.0,
    "max_value": 1.0,
    "nan_policy": "drop",
    "bounds_policy": "winsorize",
    "index_columns": ("day",),
}
WORKER_NAMES = {"min_value": "minimum", "max_value": "maximum"}


def test_released_defaults_do_not_change() -> None:
    assert dataclasses.asdict(DEFAULTS) == {
        "min_value": None,
        "max_value": None,
        "neutral_value": 0.0,
        "nan_policy": "keep",
        "bounds_policy": "reject",
        "index_columns": ("date", "entity"),
    }


def read(contract: SignalContract) -> signal_guard.SignalContract:
    return refresh_reading._read_contract(contract, {})


def test_the_contract_states_the_defaults() -> None:
    said = comments()
    assert DEFAULTS.nan_policy.upper() in said[f"{MESSAGE}.NanPolicy.NAN_POLICY_UNSPECIFIED"]
    assert DEFAULTS.bounds_policy.upper() in said[f"{MESSAGE}.BoundsPolicy.BOUNDS_POLICY_UNSPECIFIED"]
    for bound in ("min_value", "max_value"):
        assert "unbounded" in said[f"{MESSAGE}.{bound}"]
        assert getattr(DEFAULTS, bound) is None
    assert tuple(words_in(said[f"{MESSAGE}.index_columns"])) == DEFAULTS.index_columns


def test_a_default_is_a_field_of_the_contract() -> None:
    fields = {field.name for field in SignalContract.DESCRIPTOR.fields}
    assert {field.name for field in dataclasses.fields(DEFAULTS)} == fields
    assert SignalContract().neutral_value == DEFAULTS.neutral_value  # the contract cannot leave it out


def test_the_worker_enforces_what_the_fingerprint_contains() -> None:
    bare, completed = read(SignalContract()), complete_contract(contract_words(SignalContract()))
    for name, value in completed.items():
        enforced = getattr(bare, WORKER_NAMES.get(name, name))
        assert enforced == (tuple(value) if isinstance(value, list) else value)
    by_itself = signal_guard.SignalContract(neutral_value=DEFAULTS.neutral_value)
    assert bare == by_itself


@pytest.mark.parametrize("field", sorted(OTHERS))
def test_a_changed_default_reaches_the_worker_and_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    before = canonical_json(complete_contract(contract_words(SignalContract())))
    changed = dataclasses.replace(DEFAULTS, **{field: OTHERS[field]})
    for module in (signal_contracts, refresh_reading):
        monkeypatch.setattr(module, "DEFAULTS", changed)
    assert canonical_json(complete_contract(contract_words(SignalContract()))) != before
    assert getattr(read(SignalContract()), WORKER_NAMES.get(field, field)) == OTHERS[field]


def test_the_fingerprint_contains_the_defaults_as_before() -> None:
    assert canonical_json(complete_contract({})) == (
        '{"bounds_policy":"reject","index_columns":["date","entity"],"max_value":null,"min_value":null,'
        '"nan_policy":"keep","neutral_value":0}'
    )
