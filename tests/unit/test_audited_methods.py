"""Each method that changes something leaves an audit record; the contract says so."""

import pytest
from google.protobuf.descriptor import MethodDescriptor

from optaic.audit.v1 import audit_pb2, audit_service_pb2
from optaic.common.v1 import access_pb2
from optaic.definition.v1 import definition_service_pb2
from optaic.instance.v1 import data_removal_service_pb2, instance_service_pb2, probe_service_pb2
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import data_move_service_pb2, run_report_service_pb2, run_service_pb2
from optaic.status.v1 import status_service_pb2

CONTRACTS = (
    audit_service_pb2, data_move_service_pb2, data_removal_service_pb2, definition_service_pb2, instance_service_pb2,
    lineage_service_pb2,
    probe_service_pb2, run_report_service_pb2, run_service_pb2, status_service_pb2,
)  # fmt: skip
METHODS = [
    method
    for contract in CONTRACTS
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
READING = {
    access_pb2.PERMISSION_READ_CONFIGURATION,
    access_pb2.PERMISSION_READ,
    access_pb2.PERMISSION_READ_AUDIT,
    access_pb2.PERMISSION_SERVE,
}
# Changes that only another service asks for, in the name of the caller of its own method.
AUDITED = {"MoveDataRoot"}
UNAUDITED = {
    "Heartbeat": "it keeps a lease every few seconds and reports progress, which is no decision",
    "ClaimDataRemoval": "a worker asks every few minutes whether there is work; FinishDataRemoval is audited",
    "ClaimProbes": "a worker asks every few seconds whether there is work",
    "FinishProbe": "a worker tells every minute what a source looks like, which is no decision",
    "WatchDispatches": "a worker hears of the flow runs that it may start; it changes nothing",
    "ListTrainedVersions": "it changes nothing",
    "ListRunOutputs": "it changes nothing",
    "GetDataMove": "it changes nothing",
    "PreviewDeletion": "it changes nothing",
    "RehearseChanges": "it changes nothing",
}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: str(method.full_name))
def test_a_method_is_audited_unless_it_only_reads(method: MethodDescriptor) -> None:
    options = method.GetOptions()
    is_reading = options.Extensions[access_pb2.permission] in READING
    expected = method.name in AUDITED or (not is_reading and method.name not in UNAUDITED)
    assert options.Extensions[audit_pb2.audited] == expected


def test_the_exceptions_exist() -> None:
    assert {method.name for method in METHODS} >= UNAUDITED.keys() | AUDITED
