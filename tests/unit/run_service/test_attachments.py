"""What a question to lineage-service carries: all that lineage-service reads of an instance and of a run, and little more."""

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from lineage_service.conversion import run_fact_of_event, snapshot_of
from optaic.instance.v1.instance_pb2 import FreshnessPolicy, Instance
from optaic.run.v1 import run_events_pb2, run_pb2
from run_service.domain.statuses import RunStatus
from run_service.use_cases.attachments import attached_event, attached_instance
from servicekit.contracts import check_contract

_ID = "01900000-0000-7000-8000-000000000001"
_DEEPEST = 5
_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64, FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT,
}  # fmt: skip


def _fill(message: Any, level: int = 0) -> Any:
    """Set every field of a message, however deep."""
    descriptor: Descriptor = message.DESCRIPTOR
    for field in descriptor.fields:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if (
            level == _DEEPEST
            or is_map
            or (field.containing_oneof and message.WhichOneof(field.containing_oneof.name))
        ):
            continue
        if field.is_repeated and field.message_type is not None:
            _fill(getattr(message, field.name).add(), level + 1)
        elif field.message_type is not None:
            place = getattr(message, field.name)
            place.SetInParent()
            _fill(place, level + 1)
        elif field.is_repeated:
            getattr(message, field.name).append(_value(field))
        else:
            setattr(message, field.name, _value(field))
    return message


def _value(field: FieldDescriptor) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return True
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return 1
    return 1 if field.cpp_type in _NUMBERS else _ID


def test_lineage_service_reads_the_same_of_an_attached_instance() -> None:
    instance = _fill(Instance())
    assert snapshot_of(attached_instance(instance)) == snapshot_of(instance)


@pytest.mark.parametrize("status", list(RunStatus))
def test_lineage_service_reads_the_same_of_an_attached_run(status: RunStatus) -> None:
    run: run_pb2.Run = _fill(run_pb2.Run())
    assert run.pipeline.rows_fetched
    attached = attached_event(status, run, "event")
    sent = getattr(attached, attached.WhichOneof("event") or "")
    told = type(sent)(run=run)
    assert run_fact_of_event(sent, "event") == run_fact_of_event(told, "event")
    assert type(told) in {
        run_events_pb2.RunSubmitted, run_events_pb2.RunStarted, run_events_pb2.RunCompleted, run_events_pb2.RunFailed,
        run_events_pb2.RunCancelled,
    }  # fmt: skip


def test_an_attached_run_of_another_kind_has_no_result() -> None:
    run = run_pb2.Run(instance_id=_ID, run_id=_ID, run_number=1)
    run.backtest.first_date = "2026-01-02"
    assert attached_event(RunStatus.COMPLETED, run, "event").completed.run.WhichOneof("result") is None


def test_an_attached_instance_is_small_and_keeps_the_contract() -> None:
    instance = Instance(instance_id=_ID, name="a", description="x" * 4096)
    instance.schedule.timeout.seconds = 5  # without a timing, as an update of earlier releases could leave it
    instance.freshness_policy.grace.seconds = 5  # and a policy without a frequency
    instance.config["large"] = "x" * 100_000
    attached = attached_instance(instance)
    check_contract(attached)
    assert attached.ByteSize() < 100


def test_an_attached_instance_keeps_its_freshness_policy() -> None:
    instance = Instance(freshness_policy=FreshnessPolicy(frequency=FreshnessPolicy.FREQUENCY_DAILY))
    assert attached_instance(instance).freshness_policy == instance.freshness_policy
