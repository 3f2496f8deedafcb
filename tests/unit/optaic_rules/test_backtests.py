"""A default or limit of backtests stands in one place: contract, fingerprints and worker agree on it."""

import dataclasses
from typing import Any

import pytest

from buf.validate import validate_pb2
from instance_service.domain.fingerprints import backtest_settings
from optaic.instance.v1.spec_pb2 import BacktestConfig, BacktestSpec
from optaic.plugins import InvalidConfig
from optaic.rules import backtests
from optaic.rules.backtests import (
    DEFAULTS,
    EQUAL_WEIGHT,
    NEWEST_DEFAULTS,
    NEWEST_PROCEDURE,
    NEWEST_SETTINGS,
    NEWEST_SLIPPAGE_RATES,
    SLIPPAGE_RATES,
    limits_of,
)
from support.contract import comments, numbers_in, words_in
from worker.backtest import BacktestSettings
from worker.backtest.settings import Frequency, MissingPrices, Slippage, Weighting

CONFIG = "optaic.instance.v1.BacktestConfig"
OTHERS: dict[str, Any] = {
    "rebalance_frequency": "weekly",
    "transaction_costs": 0.01,
    "slippage_model": "fixed",
    "top_n": 7,
    "initial_capital": 5.0,
    "primary_weight": 0.5,
}
NUMBERS = ("transaction_costs", "slippage_rate", "top_n", "initial_capital", "primary_weight")
NEWEST_NUMBERS = ("min_session_coverage", "delisting_after", "delisting_return")


def test_released_defaults_do_not_change() -> None:
    assert dataclasses.asdict(DEFAULTS) == {
        "rebalance_frequency": "monthly",
        "transaction_costs": 0.001,
        "slippage_model": "none",
        "top_n": 5,
        "initial_capital": 1_000_000.0,
        "primary_weight": 1.0,
        "execution_lag": 1,
    }
    assert SLIPPAGE_RATES == {"none": 0.0, "fixed": 0.0005, "linear": 0.1}
    assert dataclasses.asdict(NEWEST_DEFAULTS) == {
        "missing_prices": "carry",
        "min_session_coverage": 0.5,
        "delisting_after": 21,
        "delisting_return": 0.0,
        "weighting": "equal",
        "long_short": False,
    }
    assert NEWEST_SLIPPAGE_RATES == {"none": 0.0, "fixed": 0.0005, "linear": 0.005, "volume": 0.1}
    assert NEWEST_PROCEDURE == 2
    assert EQUAL_WEIGHT == "equal_weight"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(DEFAULTS)])
def test_the_contract_states_the_default(field: str) -> None:
    comment, default = comments()[f"{CONFIG}.{field}"], getattr(DEFAULTS, field)
    if isinstance(default, str):
        assert words_in(comment)[-1] == default  # the other words before it are those that there are
    else:
        assert default in numbers_in(comment)


def test_the_contract_states_the_slippage_rates() -> None:
    rates = [SLIPPAGE_RATES["fixed"], SLIPPAGE_RATES["linear"], NEWEST_SLIPPAGE_RATES["linear"]]
    rates.append(NEWEST_SLIPPAGE_RATES["volume"])
    assert numbers_in(comments()[f"{CONFIG}.slippage_rate"]) == rates
    assert set(SLIPPAGE_RATES) == set(Slippage) - {"volume"}
    assert set(NEWEST_SLIPPAGE_RATES) == set(Slippage)


def test_every_setting_of_the_contract_has_a_default() -> None:
    names = {field.name for field in BacktestConfig.DESCRIPTOR.fields}
    assert backtests.complete_config({"procedure": 2}).keys() == names
    assert backtests.complete_config({}).keys() == names - {"procedure", *NEWEST_SETTINGS}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(NEWEST_DEFAULTS)])
def test_the_contract_states_the_default_and_the_procedure(field: str) -> None:
    comment, default = comments()[f"{CONFIG}.{field}"], getattr(NEWEST_DEFAULTS, field)
    assert f"Needs procedure {NEWEST_PROCEDURE}" in comment
    if isinstance(default, str):
        assert words_in(comment)[-1] == default
    elif isinstance(default, bool):
        assert f"absent means {str(default).lower()}" in comment
    else:
        assert default in numbers_in(comment)


def test_the_first_procedure_has_the_fingerprint_of_backtests_that_name_none() -> None:
    """They are older than the choice: their settings stand in fingerprints exactly as before it."""
    assert backtest_settings({})["config"] == {
        **dataclasses.asdict(DEFAULTS),
        "slippage_rate": 0.0,
    }
    for said in ({}, {"top_n": 7}, {"slippage_model": "linear"}):
        first = backtest_settings({"config": {**said, "procedure": 1}})
        assert first == backtest_settings({"config": said})
        assert first != backtest_settings({"config": {**said, "procedure": 2}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("missing_prices", "drop_session"), ("min_session_coverage", 0.0), ("delisting_after", 0),
        ("delisting_return", -1.0), ("weighting", "signal"), ("long_short", True),
    ],
)  # fmt: skip
def test_each_setting_of_the_newest_procedure_counts_and_reaches_the_worker(field: str, value: Any) -> None:
    bare, said = {"procedure": 2}, {"procedure": 2, field: value}
    assert backtest_settings({"config": said}) != backtest_settings({"config": bare})
    assert getattr(BacktestSettings.from_spec({"config": said}), field) == value
    default = {"procedure": 2, field: getattr(NEWEST_DEFAULTS, field)}
    assert backtest_settings({"config": default}) == backtest_settings({"config": bare})


def test_what_dropped_sessions_cannot_use_is_not_in_the_fingerprint() -> None:
    dropping = {"procedure": 2, "missing_prices": "drop_session"}
    said = {**dropping, "min_session_coverage": 0.9}
    assert backtest_settings({"config": said}) == backtest_settings({"config": dropping})
    said = {**dropping, "delisting_after": 3}  # with a membership whoever is no member may lack closes
    assert backtest_settings({"config": said}) != backtest_settings({"config": dropping})


@pytest.mark.parametrize(("procedure", "rate"), [(1, 0.1), (2, 0.005)])
def test_each_procedure_has_its_own_slippage_rates(procedure: int, rate: float) -> None:
    config = {"procedure": procedure, "slippage_model": "linear"}
    assert BacktestSettings.from_spec({"config": config}).slippage_rate == rate
    if procedure == 1:
        with pytest.raises(InvalidConfig, match="slippage_model"):
            BacktestSettings.from_spec({"config": {"slippage_model": "volume"}})


def test_the_contract_states_the_benchmark() -> None:
    assert EQUAL_WEIGHT in words_in(comments()["optaic.instance.v1.BacktestSpec.Assets.benchmark"])
    assert BacktestSettings.from_spec({}).benchmark == backtest_settings({})["benchmark"] == EQUAL_WEIGHT


@pytest.mark.parametrize("field", sorted(OTHERS))
def test_a_changed_default_reaches_the_worker_and_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    before = backtest_settings({})
    monkeypatch.setattr(backtests, "DEFAULTS", dataclasses.replace(DEFAULTS, **{field: OTHERS[field]}))
    assert getattr(BacktestSettings.from_spec({}), field) == OTHERS[field]
    assert backtest_settings({})["config"][field] == OTHERS[field]
    assert backtest_settings({}) != before
    said = {"config": {field: getattr(DEFAULTS, field)}}  # what does not rely on the default stays
    assert backtest_settings(said) == before


@pytest.mark.parametrize("model", sorted(SLIPPAGE_RATES))
def test_a_changed_slippage_rate_reaches_the_worker_and_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(backtests, "SLIPPAGE_RATES", {**SLIPPAGE_RATES, model: 0.3})
    spec = {"config": {"slippage_model": model}}
    assert BacktestSettings.from_spec(spec).slippage_rate == 0.3
    assert backtest_settings(spec)["config"]["slippage_rate"] == 0.3


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("rebalance_frequency", Frequency),
        ("slippage_model", Slippage),
        ("missing_prices", MissingPrices),
        ("weighting", Weighting),
    ],
)
def test_the_worker_knows_the_words_of_the_contract(field: str, words: Any) -> None:
    options = BacktestConfig.DESCRIPTOR.fields_by_name[field].GetOptions()
    admitted = getattr(options.Extensions[validate_pb2.field].string, "in")
    assert set(admitted) - {""} == set(words)


def edges(setting: str) -> tuple[list[float], list[float]]:
    """Return the outermost numbers that a setting may have, and the next beyond them."""
    limits = limits_of(setting)
    step = 1 if setting in {"top_n", "delisting_after"} else 1e-9
    excluded = limits.below < limits.maximum
    top = limits.below - step if excluded else limits.maximum
    over = limits.below if excluded else limits.maximum * 2
    return [limits.minimum, top], [limits.minimum - step, over]


@pytest.mark.parametrize("setting", [*NUMBERS, *NEWEST_NUMBERS])
def test_the_worker_has_the_limits_of_the_contract(setting: str) -> None:
    inside, outside = edges(setting)
    for value in inside:
        config = {"procedure": 2, "slippage_model": "linear", setting: value}
        assert getattr(BacktestSettings.from_spec({"config": config}), setting) == value
    for value in outside:
        with pytest.raises(InvalidConfig, match=setting):
            BacktestSettings.from_spec({"config": {**config, setting: value}})


def test_the_limits_are_those_that_the_contract_states() -> None:
    assert (limits_of("top_n").minimum, limits_of("top_n").maximum) == (1, 10_000)
    assert (limits_of("transaction_costs").minimum, limits_of("transaction_costs").below) == (0, 1)
    assert (limits_of("execution_lag").minimum, limits_of("execution_lag").maximum) == (1, 1)


def test_settings_that_the_contract_admits_are_read_as_it_has_them() -> None:
    spec = BacktestSpec(config=BacktestConfig(top_n=10_000, execution_lag=1))
    read = BacktestSettings.from_spec({"config": {"top_n": float(spec.config.top_n), "execution_lag": 1.0}})
    assert read.top_n == 10_000
