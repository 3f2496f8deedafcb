"""The size of a page stands in one place: contracts, services and client agree on it."""

import ast
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2
from optaic.audit.v1 import audit_service_pb2
from optaic.definition.v1 import definition_service_pb2
from optaic.instance.v1 import access_service_pb2, data_removal_service_pb2, instance_service_pb2
from optaic.lineage.v1 import lineage_service_pb2
from optaic.rules.pages import DEFAULT_SIZE, LARGEST_SIZE, LONG_DEFAULT_SIZE, LONG_LARGEST_SIZE
from optaic.run.v1 import run_report_service_pb2, run_service_pb2
from optaic.status.v1 import status_service_pb2
from support.contract import ROOT, comments, numbers_in

MODULES = (
    access_service_pb2,
    audit_service_pb2,
    data_removal_service_pb2,
    definition_service_pb2,
    instance_service_pb2,
    lineage_service_pb2,
    run_report_service_pb2,
    run_service_pb2,
    status_service_pb2,
)
LONG = {
    "DiffLineageRequest",
    "ListUpstreamsRequest",
    "ListDownstreamsRequest",
    "PreviewDeletionRequest",
    "PreviewImpactRequest",
}
FIELDS = [
    message.fields_by_name["page_size"]
    for module in MODULES
    for message in module.DESCRIPTOR.message_types_by_name.values()
    if "page_size" in message.fields_by_name
]


def test_every_list_is_looked_at() -> None:
    assert {field.full_name for field in FIELDS} == {
        name for name in comments() if name.endswith(".page_size")
    }


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.full_name)
def test_the_contract_states_default_and_limit(field: FieldDescriptor) -> None:
    assert field.containing_type is not None
    is_long = field.containing_type.name in LONG
    default, largest = (LONG_DEFAULT_SIZE, LONG_LARGEST_SIZE) if is_long else (DEFAULT_SIZE, LARGEST_SIZE)
    assert sorted(numbers_in(comments()[field.full_name])) == [0, default, largest]
    assert field.GetOptions().Extensions[validate_pb2.field].int32.lte == largest


def test_services_and_client_write_no_size_of_their_own() -> None:
    sources = [
        path for folder in ("services", "shared/optaic/client") for path in (ROOT / folder).rglob("*.py")
    ]
    assert sources
    found: list[tuple[Path, str]] = []
    for path in sources:
        text = path.read_text()
        found += [(path, match) for match in re.findall(r"page_size or [\d_]\w*", text)]
        found += [
            (path, ast.unparse(keyword))
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg == "page_size"
            and isinstance(keyword.value, ast.Constant)
            and keyword.value.value != 1  # whether there is any
        ]
    assert not found
