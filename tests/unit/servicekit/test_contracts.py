"""What a caller may send costs little to check, whatever is wrong with it."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import struct_pb2
from google.protobuf.message import Message

from buf.validate import validate_pb2
from optaic.instance.v1 import instance_service_pb2
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from servicekit import bounds, contracts, status
from servicekit.errors import FieldViolation, InvalidArgumentError

UNKNOWN: Any = 77  # no status has this number


def refused(message: Message) -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as error:
        contracts.check_contract(message)
    return error.value


def test_of_few_items_every_violation_is_listed() -> None:
    request = run_report_service_pb2.StartRunRequest(orchestrator_run_id="x")
    request.code.add()
    fields = {violation.field for violation in refused(request).field_violations}
    assert {"orchestrator_run_id", "start_secret", "code[0].definition_version_id"} <= fields


@pytest.mark.parametrize(
    "message",
    [
        run_report_service_pb2.StartRunRequest(code=[run_pb2.PluginCode() for _ in range(1_000)]),
        run_service_pb2.ListRunsRequest(statuses=[UNKNOWN] * 100_000),
        instance_service_pb2.BatchGetInstancesRequest(instance_ids=[""] * 1_000),
    ],
    ids=["messages", "numbers", "texts"],
)
def test_of_many_items_one_violation_is_listed(message: Message) -> None:
    assert len(refused(message).field_violations) == 1


def test_the_validator_does_not_walk_over_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Message] = []

    class Validator:
        def collect_violations(self, message: Message, *, fail_fast: bool = False) -> list[Any]:
            del fail_fast
            seen.append(message)
            return []

    request = instance_service_pb2.CreateInstanceRequest()
    request.instance.config.update({"a": [1, {"b": "c"}]})
    request.instance.dataset.pipeline.config.update({"d": 1})
    before = request.SerializeToString(deterministic=True)
    monkeypatch.setattr(contracts, "_validator", Validator)
    contracts.check_contract(request)
    assert request.SerializeToString(deterministic=True) == before
    (checked,) = seen
    assert all(value.ByteSize() == 0 for value in bounds.json_values(checked))
    assert len(list(bounds.json_values(checked))) == 2  # they are there, as a rule may require


def fields_of_messages() -> Iterator[Any]:
    """Yield every field whose type is JSON, of all contracts."""
    for module in (instance_service_pb2, run_report_service_pb2, run_service_pb2):
        pending, seen = list(module.DESCRIPTOR.message_types_by_name.values()), set[str]()
        while pending:
            message = pending.pop()
            if message.full_name in seen or message.full_name.startswith("google."):
                continue
            seen.add(message.full_name)
            for field in message.fields:
                if field.message_type is not None:
                    pending.append(field.message_type)
                    if field.message_type.full_name in bounds._JSON:
                        yield field


def test_no_rule_of_a_contract_reads_what_is_in_a_configuration() -> None:
    found = list(fields_of_messages())
    assert found
    for field in found:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        assert {rule.name for rule, _ in rules.ListFields()} <= {"required", "repeated"}, field.full_name
        assert not rules.cel


def test_a_refusal_with_many_violations_is_searched_for_secrets_a_bounded_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []

    def redact(text: str) -> str:
        texts.append(text)
        return text

    monkeypatch.setattr(status, "redactor", lambda: redact)
    violations = [FieldViolation(f"field[{number}]", "is wrong") for number in range(100_000)]
    made = status.to_status(InvalidArgumentError("INVALID", "no", field_violations=violations), "x")
    assert len(texts) < 2_000
    assert made.ByteSize() <= 6_000


def test_a_configuration_with_a_value_without_a_kind_is_refused() -> None:
    request = run_service_pb2.SubmitRunRequest()
    request.parameters.fields["start"].SetInParent()
    with pytest.raises(InvalidArgumentError) as error:
        bounds.check_bounds(request)
    assert [violation.field for violation in error.value.field_violations] == ["parameters"]
    request.parameters.fields["start"].null_value = struct_pb2.NULL_VALUE
    bounds.check_bounds(request)
