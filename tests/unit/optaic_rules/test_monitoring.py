"""Contracts, services and worker agree on the settings of a monitoring."""

from dataclasses import asdict, fields

import pytest

from optaic.instance.v1.spec_pb2 import MonitoringConfig, MonitoringThresholds
from optaic.rules.monitoring import (
    FLOORS,
    MOST_ALERTS,
    REFERENCE_SESSIONS,
    THRESHOLDS,
    MonitoringSettings,
    describe_alert,
    differing_settings,
    read_settings,
)
from optaic.run.v1.run_pb2 import MonitoringAlert, MonitoringResult
from support.contract import comments, numbers_in, words_in

CONFIG, LIMITS = "optaic.instance.v1.MonitoringConfig", "optaic.instance.v1.MonitoringThresholds"


def test_each_setting_is_a_field_of_the_contract() -> None:
    given = {*MonitoringConfig.DESCRIPTOR.fields_by_name, *MonitoringThresholds.DESCRIPTOR.fields_by_name}
    assert {field.name for field in fields(MonitoringSettings)} == given - {"thresholds"}
    assert set(THRESHOLDS.values()) == set(MonitoringThresholds.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("name", [field.name for field in fields(MonitoringSettings)])
def test_the_contract_states_each_default(name: str) -> None:
    owner = CONFIG if name in MonitoringConfig.DESCRIPTOR.fields_by_name else LIMITS
    default = getattr(MonitoringSettings(), name)
    stated = REFERENCE_SESSIONS if name == "reference_sessions" else default
    assert stated in numbers_in(comments()[f"{owner}.{name}"])


def test_the_contract_names_each_figure_with_a_threshold() -> None:
    named = words_in(comments()["optaic.run.v1.MonitoringAlert.metric"])
    assert set(THRESHOLDS) <= set(named)
    assert {"realised_ic", "hit_rate"} == FLOORS
    assert set(words_in(comments()["optaic.run.v1.MonitoringAlert.threshold"])) == FLOORS
    rules = MonitoringResult.DESCRIPTOR.fields_by_name["alerts"].GetOptions()
    assert f"max_items: {MOST_ALERTS}" in str(rules)
    assert max(map(len, THRESHOLDS)) <= 64


def test_what_is_left_out_is_the_default() -> None:
    assert read_settings(MonitoringConfig()) == MonitoringSettings()
    assert differing_settings(MonitoringConfig()) == {}
    said = MonitoringConfig(
        window_sessions=63,
        thresholds=MonitoringThresholds(max_psi=0.25, max_duplicate_share=0, min_hit_rate=0),
    )
    assert differing_settings(said) == {}
    other = MonitoringConfig(window_sessions=5, thresholds=MonitoringThresholds(max_psi=0))
    assert differing_settings(other) == {"window_sessions": 5, "max_psi": 0.0}
    assert asdict(read_settings(other)) == {
        **asdict(MonitoringSettings()),
        "window_sessions": 5,
        "max_psi": 0.0,
    }


def test_an_alert_says_what_lies_beyond_what() -> None:
    alert = MonitoringAlert(metric="psi", column="close", value=0.41234, threshold=0.25)
    assert (
        describe_alert(alert.metric, alert.column, alert.value, alert.threshold)
        == "psi of close is 0.4123, above 0.25"
    )
    assert describe_alert("realised_ic", "", -0.02, 0.0) == "realised_ic is -0.02, below 0"
