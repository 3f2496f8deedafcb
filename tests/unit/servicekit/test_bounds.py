"""Requests have limits that no contract can state: of bytes, of values in a Struct, of masks and of times."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from optaic.instance.v1.instance_pb2 import FreshnessPolicy, Instance
from optaic.instance.v1.instance_service_pb2 import (
    Change,
    CreateInstanceRequest,
    RehearseChangesRequest,
    UpdateInstanceRequest,
)
from optaic.run.v1.run_report_service_pb2 import ScheduledTick, StartRunRequest
from servicekit.bounds import DEFAULT_BYTES, check_bounds, check_size, most_bytes
from servicekit.errors import InvalidArgumentError, ResourceExhaustedError


def nested(levels: int) -> Struct:
    struct = inner = Struct()
    for _ in range(levels - 1):
        inner = inner.fields["a"].struct_value
    inner.fields["a"].null_value = NULL_VALUE
    return struct


def wide(count: int) -> Struct:
    struct = Struct()
    struct.fields["a"].list_value.values.extend([Value(number_value=1)] * count)
    return struct


def with_config(config: Struct) -> Message:
    return CreateInstanceRequest(instance=Instance(config=config))


def with_time(seconds: int, nanos: int = 0) -> Message:
    return StartRunRequest(scheduled=ScheduledTick(scheduled_time=Timestamp(seconds=seconds, nanos=nanos)))


def with_grace(seconds: int, nanos: int = 0) -> Message:
    policy = FreshnessPolicy(grace=Duration(seconds=seconds, nanos=nanos))
    return CreateInstanceRequest(instance=Instance(freshness_policy=policy))


def with_mask(paths: list[str]) -> Message:
    return UpdateInstanceRequest(update_mask=FieldMask(paths=paths))


def rehearsal(count: int) -> Message:
    create = CreateInstanceRequest(instance=Instance(config=wide(10_000)))
    return RehearseChangesRequest(changes=[Change(create_instance=create)] * count)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (with_config(nested(33)), "instance.config"),
        (with_config(wide(50_000)), "instance.config"),
        (with_time(9**17), "scheduled.scheduled_time"),
        (with_time(253_402_300_800), "scheduled.scheduled_time"),
        (with_time(-62_135_596_801), "scheduled.scheduled_time"),
        (with_time(0, -1), "scheduled.scheduled_time"),
        (with_time(0, 1_000_000_000), "scheduled.scheduled_time"),
        (with_grace(315_576_000_001), "instance.freshness_policy.grace"),
        (with_grace(1, -1), "instance.freshness_policy.grace"),
        (with_grace(0, 1_000_000_000), "instance.freshness_policy.grace"),
        (with_mask(["a"] * 200_000), "update_mask"),
        (with_mask(["a" * 1_001]), "update_mask"),
        (rehearsal(20), "changes[19].create_instance.instance.config"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_message_beyond_a_limit_is_refused_with_its_field(message: Message, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        check_bounds(message)
    assert [each.field for each in refusal.value.field_violations] == [field]


@pytest.mark.parametrize(
    "message",
    [
        with_config(nested(15)),
        with_config(wide(49_000)),
        with_time(253_402_300_799, 999_999_999),
        with_time(-62_135_596_800),
        with_grace(0),
        with_mask(["a" * 1_000] * 1_000),
        rehearsal(15),
    ],
)
def test_a_message_within_the_limits_is_taken(message: Message) -> None:
    check_bounds(message)


def test_a_method_reads_as_many_bytes_as_its_contract_says() -> None:
    assert most_bytes("/optaic.instance.v1.InstanceService/CreateInstance") == 1 << 20
    assert most_bytes("/optaic.instance.v1.InstanceService/GetInstance") == DEFAULT_BYTES
    assert most_bytes("/unknown.Service/Method") == DEFAULT_BYTES


def test_a_request_with_a_byte_too_many_is_refused_before_it_is_read() -> None:
    check_size(b"x" * 10, 10)
    with pytest.raises(ResourceExhaustedError) as refusal:
        check_size(b"x" * 11, 10)
    assert refusal.value.reason == "REQUEST_TOO_LARGE"
    assert refusal.value.metadata == {"limit": "10"}
