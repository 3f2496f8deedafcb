"""Every list, map and text that a request may contain has a limit in the contract, however deep it lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from buf.validate import validate_pb2
from optaic.audit.v1 import audit_service_pb2
from optaic.common.v1 import bounds_pb2
from optaic.definition.v1 import definition_service_pb2
from optaic.instance.v1 import data_removal_service_pb2, instance_service_pb2, probe_service_pb2
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import run_report_service_pb2, run_service_pb2
from optaic.status.v1 import status_service_pb2

MODULES = (
    audit_service_pb2,
    definition_service_pb2,
    data_removal_service_pb2,
    instance_service_pb2,
    lineage_service_pb2,
    probe_service_pb2,
    run_report_service_pb2,
    run_service_pb2,
    status_service_pb2,
)
METHODS = [
    method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def lacks(field: FieldDescriptor) -> Iterator[str]:
    """Yield what a field of a request has no limit for."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        if not rules.map.HasField("max_pairs"):
            yield "pairs"
        for name, part in (("key", rules.map.keys), ("value", rules.map.values)):
            if entry.fields_by_name[name].type in TEXTS and not is_short(part):
                yield f"{name}s"
        return
    if field.is_repeated:
        if not rules.repeated.HasField("max_items"):
            yield "items"
        rules = rules.repeated.items
    if field.type in TEXTS and not is_short(rules):
        yield "characters"


def is_short(rules: Any) -> bool:
    """Return whether the rules limit the length of a text."""
    text = rules.string
    has_length = text.HasField("max_len") or text.HasField("max_bytes") or rules.bytes.HasField("max_len")
    return has_length or text.uuid or bool(getattr(text, "in"))


def reached(message: Descriptor, seen: set[str]) -> Iterator[FieldDescriptor]:
    """Yield every field that a message may contain; the well-known types have limits of their own."""
    if message.full_name in seen or message.full_name.startswith("google."):
        return
    seen.add(message.full_name)
    for field in message.fields:
        yield field
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                value = field.message_type.fields_by_name["value"].message_type
                if value is not None:
                    yield from reached(value, seen)
            else:
                yield from reached(field.message_type, seen)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_field_of_a_request_has_a_limit(method: Any) -> None:
    fields = list(reached(method.input_type, set()))
    assert [f"{field.full_name}: {lack}" for field in fields for lack in lacks(field)] == []


def test_a_field_without_a_limit_is_found() -> None:
    answer = instance_service_pb2.ListInstancesResponse.DESCRIPTOR
    found = {field.name: list(lacks(field)) for field in answer.fields}
    assert found == {"instances": ["items"], "next_page_token": ["characters"]}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_no_method_reads_more_than_four_megabytes(method: Any) -> None:
    assert method.GetOptions().Extensions[bounds_pb2.max_request_bytes] <= 4 << 20
