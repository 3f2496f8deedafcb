"""Plain values under our names and the known outside ones become messages."""

import datetime as dt

import pytest
from google.protobuf import duration_pb2, json_format

from optaic.client import messages
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2, schedule_pb2, spec_pb2


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("refresh", "REFRESH"),
        ("preview", "PREVIEW"),
        ("train", "TRAINING"),
        ("training", "TRAINING"),
        ("infer", "INFERENCE"),
        ("inference", "INFERENCE"),
        ("monitor", "MONITORING"),
        ("monitoring", "MONITORING"),
        ("optimize", "OPTIMIZE"),
        ("backtest", "BACKTEST"),
        ("FLOW_KIND_TRAINING", "TRAINING"),
        (3, "TRAINING"),
    ],
)
def test_flow_kinds_have_several_names(given: str | int, ours: str) -> None:
    assert messages.flow_kind(given) == flow_pb2.FlowKind.Value(f"FLOW_KIND_{ours}")


def test_an_unknown_word_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="refresh, preview"):
        messages.flow_kind("fly")


def test_other_field_names_are_accepted_at_any_depth() -> None:
    instance = instance_pb2.Instance()
    pipeline = {"definition_resource_id": "d", "config_json": {"as_of": dt.date(2021, 12, 31), "n": (1, 2)}}
    messages.fill(instance, {"dataset": {"pipeline": pipeline}})
    assert instance.dataset.pipeline.definition_id == "d"
    config = json_format.MessageToDict(instance.dataset.pipeline.config)
    assert config == {"as_of": "2021-12-31", "n": [1, 2]}


def test_a_config_is_free_to_use_any_name() -> None:
    instance = instance_pb2.Instance()
    config = {"started_at": 1, "config_json": {"parent_id": 2}}
    messages.fill(instance, {"config_json": config})
    assert json_format.MessageToDict(instance.config) == config


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        (
            {"type": "cron", "expression": "30 16 * * 1-5", "timezone": "UTC", "enabled": False},
            schedule_pb2.Schedule(
                cron=schedule_pb2.CronSchedule(expression="30 16 * * 1-5", timezone="UTC"), enabled=False
            ),
        ),
        (
            {"type": "interval", "expression": "15"},
            schedule_pb2.Schedule(interval=schedule_pb2.IntervalSchedule(minutes=15)),
        ),
        ({"type": "manual"}, schedule_pb2.Schedule(manual=schedule_pb2.ManualSchedule())),
        ({"manual": {}}, schedule_pb2.Schedule(manual=schedule_pb2.ManualSchedule())),
        (
            {"type": "manual", "timeout": dt.timedelta(minutes=90)},
            schedule_pb2.Schedule(
                manual=schedule_pb2.ManualSchedule(), timeout=duration_pb2.Duration(seconds=5400)
            ),
        ),
        (
            {"interval": {"minutes": 5}, "retry_policy": {"max_retries": 2, "backoff": "exponential"}},
            schedule_pb2.Schedule(
                interval=schedule_pb2.IntervalSchedule(minutes=5),
                retry_policy=schedule_pb2.RetryPolicy(
                    max_retries=2, backoff=schedule_pb2.RetryPolicy.BACKOFF_EXPONENTIAL
                ),
            ),
        ),
    ],
)
def test_schedules_of_both_shapes(given: dict[str, object], ours: schedule_pb2.Schedule) -> None:
    instance = instance_pb2.Instance()
    messages.fill(instance, {"schedule_json": given})
    assert instance.schedule == ours


def test_words_durations_labels_and_messages_are_taken() -> None:
    instance = instance_pb2.Instance()
    contract = spec_pb2.SignalContract(min_value=-3)
    messages.fill(
        instance,
        {
            "signal": {"contract": contract, "dataset": {"pipeline": {}}},
            "freshness_policy": {"frequency": "daily", "grace": dt.timedelta(hours=2)},
            "labels": {"team": "alpha"},
            "description": None,
        },
    )
    assert instance.signal.contract == contract
    assert instance.signal.dataset.HasField("pipeline")
    assert instance.freshness_policy.grace.seconds == 7200
    assert dict(instance.labels) == {"team": "alpha"}


def test_an_unknown_field_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no field 'colour'; its fields are accessor"):
        messages.fill(instance_pb2.Instance(), {"colour": "red"})


def test_a_value_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ValueError, match="dataset: must be a mapping, not the number 3"):
        messages.fill(instance_pb2.Instance(), {"dataset": 3})


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63) + 1, 10**400])
def test_a_whole_number_that_a_struct_would_change_is_refused_by_its_place(number: int) -> None:
    with pytest.raises(ValueError, match=r"^config\.limits\[1\]\.shares: -?\d+ is beyond 2\^53"):
        messages.fill(spec_pb2.ComponentSpec(), {"config": {"limits": [1, {"shares": number}], "n": 2**53}})


def test_an_update_mask_lists_the_fields_of_the_spec_and_other_values_as_a_whole() -> None:
    changes = {
        "dataset": {"pipeline": {"config_json": {"as_of": "x"}}, "monitoring_enabled": True},
        "backtest": {"assets": {"universe": ["A"]}, "config": {"top_n": 3}},
        "schedule_json": {"type": "cron", "expression": "x"},
        "labels": {"a": "b"},
    }
    assert messages.paths(instance_pb2.Instance.DESCRIPTOR, changes) == [
        "dataset.pipeline.config",
        "dataset.monitoring_enabled",
        "backtest.assets.universe",
        "backtest.config.top_n",
        "schedule",
        "labels",
    ]
