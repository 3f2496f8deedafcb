"""Every method of the four services, and who may call it, written out, so that no change of a contract widens it unnoticed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from optaic.audit.v1 import audit_service_pb2
from optaic.definition.v1 import definition_service_pb2
from optaic.instance.v1 import (
    access_service_pb2,
    data_removal_service_pb2,
    instance_service_pb2,
    probe_service_pb2,
)
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import data_move_service_pb2, run_report_service_pb2, run_service_pb2
from optaic.status.v1 import status_service_pb2
from support.control_plane import ControlPlane
from support.identities import Metadata

PEOPLE = ("viewer", "researcher", "maintainer", "admin")
ROLES = (*PEOPLE, "executor", "service")
_READING = {*PEOPLE, "service"}
_CONFIGURATION = {*_READING, "executor"}
_EDITING = {"researcher", "maintainer", "admin"}
_MAINTAINING = {"maintainer", "admin"}
# Where a role in some projects is not enough: what concerns the whole tenant, or what only programs do.
TENANT_WIDE = {
    "GrantRole",
    "RevokeRole",
    "ListRoleBindings",
    "PublishDefinition",
    "DeprecateDefinitionVersion",
    "ActivateDefinitionVersion",
    "RetireDefinitionVersion",
    "CreateProject",
    "ListDataRemovals",
    "ClaimDataRemoval",
    "FinishDataRemoval",
    "ClaimProbes",
    "FinishProbe",
    "BatchCheckUpstreamFreshness",
    "PlanFlows",
    "RecomputeFreshness",
    "MoveDataRoot",
    "GetDataMove",
    "BeginDataMove",
    "SwitchDataMove",
    "EndDataMove",
    "AcceptCode",
    "ListCodeHashes",
    "StartRun",
    "Heartbeat",
    "CompleteRun",
    "FailRun",
    "WatchDispatches",
    "ReportTelemetry",
    "ListTrainedVersions",
    "ListRunOutputs",
    "ListAuditRecords",
    "ListAuditSeals",
}
# Who may call each method.
ALLOWED: dict[str, set[str]] = {
    "GrantRole": {"admin"},
    "RevokeRole": {"admin"},
    "ListRoleBindings": {"admin"},
    "PublishDefinition": _EDITING,
    "GetDefinition": _CONFIGURATION,
    "ListDefinitions": _CONFIGURATION,
    "GetDefinitionVersion": _CONFIGURATION,
    "ListDefinitionVersions": _CONFIGURATION,
    "DeprecateDefinitionVersion": _MAINTAINING,
    "ActivateDefinitionVersion": _MAINTAINING,
    "RetireDefinitionVersion": _MAINTAINING,
    "CreateProject": _EDITING,
    "GetProject": _READING,
    "ListProjects": _READING,
    "UpdateProject": _MAINTAINING,
    "DeleteProject": _MAINTAINING,
    "PreviewDeletion": _READING,
    "CreateInstance": _EDITING,
    "GetInstance": _CONFIGURATION,
    "BatchGetInstances": _CONFIGURATION,
    "ListInstances": _READING,
    "UpdateInstance": _EDITING,
    "DeleteInstance": _EDITING,
    "PauseInstance": _EDITING,
    "ResumeInstance": _EDITING,
    "ListInstanceRevisions": _READING,
    "DiffInstanceRevisions": _READING,
    "PromoteDataset": _MAINTAINING,
    "PromoteModelVersion": _MAINTAINING,
    "RemoveChampion": _MAINTAINING,
    "ListModelPromotions": _READING,
    "RehearseChanges": _READING,
    "ListDataRemovals": _READING,
    "ClaimDataRemoval": {"executor"},
    "FinishDataRemoval": {"executor"},
    "ClaimProbes": {"executor"},
    "FinishProbe": {"executor"},
    "CheckUpstreamFreshness": _READING,
    "BatchCheckUpstreamFreshness": {"service"},
    "PlanFlows": {"service"},
    "GetFlowState": _READING,
    "ListUpstreams": _READING,
    "ListDownstreams": _READING,
    "GetLineageGraph": _READING,
    "DiffLineage": _READING,
    "GetExecutionOrder": _READING,
    "ExplainStaleness": _READING,
    "PreviewImpact": _READING,
    "InvalidateFlow": _MAINTAINING,
    "AcceptStaleness": _MAINTAINING,
    "RevokeAcceptedStaleness": _MAINTAINING,
    "RecomputeFreshness": _MAINTAINING,
    "MoveDataRoot": {"service"},
    "GetInstanceStatus": _READING,
    "BatchGetInstanceStatuses": _READING,
    "ListInstanceStatuses": _READING,
    "GetFlowStatus": _READING,
    "WatchInstanceStatuses": _READING,
    "GetStatusHistory": _READING,
    "ListInstanceAvailability": _READING,
    "CreateRealtimeToken": _READING,
    "SubmitRun": _EDITING,
    "BatchSubmitRuns": _EDITING,
    "ReportExternalVersion": _EDITING,
    "GetRun": _READING,
    "ListRuns": _READING,
    "CancelRun": _EDITING,
    "RetryRun": _EDITING,
    "WatchRun": _READING,
    "ListActivities": _READING,
    "AcceptCode": _MAINTAINING,
    "ListCodeHashes": _READING,
    "ListRunLogs": _READING,
    "WatchRunLogs": _READING,
    "GetRunTraceback": _READING,
    "SignArtifactUrl": _READING,
    "ListRunOutputs": {"executor"},
    "PlanRefresh": _READING,
    "SubmitRefresh": _EDITING,
    "GetRefresh": _READING,
    "ListRefreshes": _READING,
    "ListRefreshFlows": _READING,
    "WatchRefresh": _READING,
    "CancelRefresh": _EDITING,
    "ResumeRefresh": _EDITING,
    "StartRun": {"executor"},
    "Heartbeat": {"executor"},
    "CompleteRun": {"executor"},
    "FailRun": {"executor"},
    "WatchDispatches": {"executor"},
    "ReportTelemetry": {"executor"},
    "ListTrainedVersions": {"executor"},
    "GetDataMove": {"admin"},
    "BeginDataMove": {"admin"},
    "SwitchDataMove": {"admin"},
    "EndDataMove": {"admin"},
    "ListAuditRecords": {"admin"},
    "ListAuditSeals": {"admin"},
}
CONTRACTS: dict[str, tuple[Any, ...]] = {
    "instance": (
        access_service_pb2,
        definition_service_pb2,
        instance_service_pb2,
        data_removal_service_pb2,
        probe_service_pb2,
        audit_service_pb2,
    ),
    "lineage": (lineage_service_pb2, audit_service_pb2),
    "status": (status_service_pb2, audit_service_pb2),
    "run": (run_service_pb2, run_report_service_pb2, data_move_service_pb2, audit_service_pb2),
}
METHODS: list[tuple[str, MethodDescriptor]] = [
    (service, method)
    for service, modules in CONTRACTS.items()
    for module in modules
    for contract in module.DESCRIPTOR.services_by_name.values()
    for method in contract.methods
]
_SECONDS = 20


def address(plane: ControlPlane, service: str) -> str:
    found: str = getattr(plane, service).app.server.address
    return found


@asynccontextmanager
async def channel_to(plane: ControlPlane, service: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address(plane, service)) as channel:
        yield channel


async def full_answer(
    channel: Any, path: str, *, is_stream: bool, request: bytes, metadata: Metadata
) -> bytes | grpc.aio.AioRpcError:
    """Return an answer as it came, of a stream the first; or the error."""
    make = channel.unary_stream if is_stream else channel.unary_unary
    pending = make(path)(request, metadata=metadata, timeout=_SECONDS)
    try:
        answer: bytes = await (pending.read() if is_stream else pending)
    except grpc.aio.AioRpcError as error:
        return error
    finally:
        pending.cancel()
    return answer
