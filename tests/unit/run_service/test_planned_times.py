"""The scheduled times that a waiting one has to wait for: those of the flow that each upstream's schedule starts."""

import datetime as dt
from typing import Any

import pytest

from optaic.common.v1.flow_pb2 import FLOW_KIND_INFERENCE, FLOW_KIND_REFRESH, FLOW_KIND_TRAINING
from optaic.instance.v1 import instance_pb2
from run_service.use_cases.upstream_waits import _planned

_AFTER = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
_HOUR = dt.timedelta(hours=1)


def _scheduled(kind: instance_pb2.InstanceKind.ValueType, *flow_kinds: Any) -> instance_pb2.Instance:
    instance = instance_pb2.Instance(instance_id="i", kind=kind, state=instance_pb2.INSTANCE_STATE_ACTIVE)
    for flow_kind in flow_kinds:
        instance.flows.add(flow_kind=flow_kind)
    instance.schedule.interval.minutes = 60
    return instance


@pytest.mark.parametrize(
    ("flow_kind", "is_planned"), [("inference", True), ("training", False)], ids=["inference", "training"]
)
def test_the_schedule_of_a_model_plans_its_inference(flow_kind: str, is_planned: bool) -> None:
    instance = _scheduled(instance_pb2.INSTANCE_KIND_MODEL, FLOW_KIND_TRAINING, FLOW_KIND_INFERENCE)
    planned = _planned({"i": instance}, [("i", flow_kind)], _AFTER, _AFTER + _HOUR)
    assert planned == ({("i", flow_kind): [_AFTER + _HOUR]} if is_planned else {})


def test_the_schedule_of_a_paused_instance_plans_nothing() -> None:
    instance = _scheduled(instance_pb2.INSTANCE_KIND_DATASET, FLOW_KIND_REFRESH)
    assert _planned({"i": instance}, [("i", "refresh")], _AFTER, _AFTER + _HOUR)
    instance.state = instance_pb2.INSTANCE_STATE_PAUSED
    assert not _planned({"i": instance}, [("i", "refresh")], _AFTER, _AFTER + _HOUR)
