"""The RPCs of instance-service: each calls one use case."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import Message

from instance_service.ports import Experiments
from instance_service.use_cases import deletion_preview, probing, rehearsal
from instance_service.use_cases.access import bindings
from instance_service.use_cases.access import reading as access_reading
from instance_service.use_cases.data_removals import reading as removal_reading
from instance_service.use_cases.data_removals import work
from instance_service.use_cases.definitions import publication, states
from instance_service.use_cases.definitions import reading as definition_reading
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances import changes, deletion, pausing, reading
from instance_service.use_cases.projects import changes as project_changes
from instance_service.use_cases.projects import reading as project_reading
from instance_service.use_cases.promotions import datasets, models
from instance_service.use_cases.promotions import reading as promotion_reading
from optaic.definition.v1 import definition_service_pb2 as definition_api
from optaic.definition.v1.definition_pb2 import Definition, DefinitionVersion
from optaic.definition.v1.definition_service_pb2_grpc import DefinitionServiceServicer
from optaic.instance.v1 import access_service_pb2 as access_api
from optaic.instance.v1 import data_removal_service_pb2 as data_removal_api
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.instance.v1 import probe_service_pb2 as probe_api
from optaic.instance.v1.access_pb2 import RoleBinding
from optaic.instance.v1.access_service_pb2_grpc import AccessServiceServicer
from optaic.instance.v1.data_removal_service_pb2_grpc import DataRemovalServiceServicer
from optaic.instance.v1.instance_pb2 import Instance, Project
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceServicer
from optaic.instance.v1.probe_service_pb2_grpc import ProbeServiceServicer
from redaction import hide_credentials
from redaction.messages import without_credentials
from servicekit import off_loop
from servicekit.access import REPORT_RUNS, is_permitted
from servicekit.context import RequestContext, current
from servicekit.tokens import ReadTokens

_Message = TypeVar("_Message", bound=Message)


class DefinitionServicer(DefinitionServiceServicer):
    """The service optaic.definition.v1.DefinitionService."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def PublishDefinition(
        self, request: definition_api.PublishDefinitionRequest, _context: Any
    ) -> DefinitionVersion:
        return await publication.publish_definition(self._deps, current(), request)

    async def GetDefinition(self, request: definition_api.GetDefinitionRequest, _context: Any) -> Definition:
        return await definition_reading.get_definition(self._deps, current().tenant_id, request)

    async def ListDefinitions(
        self, request: definition_api.ListDefinitionsRequest, _context: Any
    ) -> definition_api.ListDefinitionsResponse:
        return await definition_reading.list_definitions(self._deps, current().tenant_id, request)

    async def GetDefinitionVersion(
        self, request: definition_api.GetDefinitionVersionRequest, _context: Any
    ) -> DefinitionVersion:
        return await definition_reading.get_version(self._deps, current().tenant_id, request)

    async def ListDefinitionVersions(
        self, request: definition_api.ListDefinitionVersionsRequest, _context: Any
    ) -> definition_api.ListDefinitionVersionsResponse:
        return await definition_reading.list_versions(self._deps, current().tenant_id, request)

    async def DeprecateDefinitionVersion(
        self, request: definition_api.DeprecateDefinitionVersionRequest, _context: Any
    ) -> DefinitionVersion:
        return await states.deprecate_version(self._deps, current(), request)

    async def ActivateDefinitionVersion(
        self, request: definition_api.ActivateDefinitionVersionRequest, _context: Any
    ) -> DefinitionVersion:
        return await states.activate_version(self._deps, current(), request)

    async def RetireDefinitionVersion(
        self, request: definition_api.RetireDefinitionVersionRequest, _context: Any
    ) -> DefinitionVersion:
        return await states.retire_version(self._deps, current(), request)


class InstanceServicer(InstanceServiceServicer):
    """The service optaic.instance.v1.InstanceService."""

    def __init__(
        self,
        deps: Dependencies,
        experiments: Experiments,
        run_events: ReadTokens,
    ) -> None:
        """Store what the methods use; only services and executors read URLs with credentials."""
        self._deps = deps
        self._experiments = experiments
        self._run_events = run_events

    async def CreateProject(self, request: instance_api.CreateProjectRequest, _context: Any) -> Project:
        return await self._shown(await project_changes.create_project(self._deps, current(), request))

    async def GetProject(self, request: instance_api.GetProjectRequest, _context: Any) -> Project:
        return await self._shown(await project_reading.get_project(self._deps, current(), request))

    async def ListProjects(
        self, request: instance_api.ListProjectsRequest, _context: Any
    ) -> instance_api.ListProjectsResponse:
        return await self._shown(await project_reading.list_projects(self._deps, current(), request))

    async def UpdateProject(self, request: instance_api.UpdateProjectRequest, _context: Any) -> Project:
        return await self._shown(await project_changes.update_project(self._deps, current(), request))

    async def DeleteProject(self, request: instance_api.DeleteProjectRequest, _context: Any) -> Project:
        return await self._shown(await project_changes.delete_project(self._deps, current(), request))

    async def PreviewDeletion(
        self, request: instance_api.PreviewDeletionRequest, _context: Any
    ) -> instance_api.PreviewDeletionResponse:
        return await deletion_preview.preview_deletion(self._deps, current().tenant_id, request)

    async def CreateInstance(self, request: instance_api.CreateInstanceRequest, _context: Any) -> Instance:
        return await self._shown(await changes.create_instance(self._deps, await self._after_runs(), request))

    async def GetInstance(self, request: instance_api.GetInstanceRequest, _context: Any) -> Instance:
        return await self._shown(await reading.get_instance(self._deps, current().tenant_id, request))

    async def BatchGetInstances(
        self, request: instance_api.BatchGetInstancesRequest, _context: Any
    ) -> instance_api.BatchGetInstancesResponse:
        return await self._shown(await reading.batch_get_instances(self._deps, current().tenant_id, request))

    async def ListInstances(
        self, request: instance_api.ListInstancesRequest, _context: Any
    ) -> instance_api.ListInstancesResponse:
        return await self._shown(await reading.list_instances(self._deps, current(), request))

    async def UpdateInstance(self, request: instance_api.UpdateInstanceRequest, _context: Any) -> Instance:
        return await self._shown(await changes.update_instance(self._deps, await self._after_runs(), request))

    async def DeleteInstance(self, request: instance_api.DeleteInstanceRequest, _context: Any) -> Instance:
        return await self._shown(await deletion.delete_instance(self._deps, current(), request))

    async def RehearseChanges(
        self, request: instance_api.RehearseChangesRequest, _context: Any
    ) -> instance_api.RehearseChangesResponse:
        return await rehearsal.rehearse_changes(self._deps, await self._after_runs(), request)

    async def PauseInstance(self, request: instance_api.PauseInstanceRequest, _context: Any) -> Instance:
        return await self._shown(await pausing.pause_instance(self._deps, current(), request))

    async def ResumeInstance(self, request: instance_api.ResumeInstanceRequest, _context: Any) -> Instance:
        return await self._shown(await pausing.resume_instance(self._deps, current(), request))

    async def ListInstanceRevisions(
        self, request: instance_api.ListInstanceRevisionsRequest, _context: Any
    ) -> instance_api.ListInstanceRevisionsResponse:
        return await self._shown(await reading.list_revisions(self._deps, current().tenant_id, request))

    async def DiffInstanceRevisions(
        self, request: instance_api.DiffInstanceRevisionsRequest, _context: Any
    ) -> instance_api.DiffInstanceRevisionsResponse:
        return await self._shown(await reading.diff_revisions(self._deps, current().tenant_id, request))

    async def PromoteDataset(self, request: instance_api.PromoteDatasetRequest, _context: Any) -> Instance:
        return await self._shown(
            await datasets.promote_dataset(self._deps, await self._after_runs(), request)
        )

    async def PromoteModelVersion(
        self, request: instance_api.PromoteModelVersionRequest, _context: Any
    ) -> Instance:
        return await self._shown(
            await models.promote_model_version(self._deps, current(), request, self._experiments)
        )

    async def RemoveChampion(self, request: instance_api.RemoveChampionRequest, _context: Any) -> Instance:
        return await self._shown(await models.remove_champion(self._deps, current(), request))

    async def ListModelPromotions(
        self, request: instance_api.ListModelPromotionsRequest, _context: Any
    ) -> instance_api.ListModelPromotionsResponse:
        return await self._shown(
            await promotion_reading.list_model_promotions(self._deps, current().tenant_id, request)
        )

    async def _after_runs(self) -> RequestContext:
        """Return the request once the runs that the caller has seen are recorded here, with the columns of their outputs."""
        caller = current()
        await self._run_events.wait(caller.tenant_id, caller.read_tokens, caller.deadline)
        return caller

    async def _shown(self, answer: _Message) -> _Message:
        caller = current()
        if caller.is_service or is_permitted(caller.roles, REPORT_RUNS):
            return answer
        return await off_loop.run_if_large(answer.ByteSize(), without_credentials, answer, hide_credentials)


class AccessServicer(AccessServiceServicer):
    """The service optaic.instance.v1.AccessService."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def GrantRole(self, request: access_api.GrantRoleRequest, _context: Any) -> RoleBinding:
        return await bindings.grant_role(self._deps, current(), request)

    async def RevokeRole(self, request: access_api.RevokeRoleRequest, _context: Any) -> RoleBinding:
        return await bindings.revoke_role(self._deps, current(), request)

    async def ListRoleBindings(
        self, request: access_api.ListRoleBindingsRequest, _context: Any
    ) -> access_api.ListRoleBindingsResponse:
        return await access_reading.list_role_bindings(self._deps, current().tenant_id, request)


class DataRemovalServicer(DataRemovalServiceServicer):
    """The service optaic.instance.v1.DataRemovalService."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def ListDataRemovals(
        self, request: data_removal_api.ListDataRemovalsRequest, _context: Any
    ) -> data_removal_api.ListDataRemovalsResponse:
        return await removal_reading.list_data_removals(self._deps, current().tenant_id, request)

    async def ClaimDataRemoval(
        self, _request: data_removal_api.ClaimDataRemovalRequest, _context: Any
    ) -> data_removal_api.ClaimDataRemovalResponse:
        return await work.claim_data_removal(self._deps, current().tenant_id)

    async def FinishDataRemoval(
        self, request: data_removal_api.FinishDataRemovalRequest, _context: Any
    ) -> data_removal_api.FinishDataRemovalResponse:
        return await work.finish_data_removal(self._deps, current().tenant_id, request)


class ProbeServicer(ProbeServiceServicer):
    """The service optaic.instance.v1.ProbeService."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def ClaimProbes(
        self, request: probe_api.ClaimProbesRequest, _context: Any
    ) -> probe_api.ClaimProbesResponse:
        return await probing.claim_probes(self._deps, current().tenant_id, request)

    async def FinishProbe(
        self, request: probe_api.FinishProbeRequest, _context: Any
    ) -> probe_api.FinishProbeResponse:
        return await probing.finish_probe(self._deps, current().tenant_id, request)
