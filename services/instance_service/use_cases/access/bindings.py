"""Grant and revoke roles."""

from __future__ import annotations

from instance_service.domain import errors
from instance_service.events import Events
from instance_service.resources.conversion import timestamp
from instance_service.resources.projects import find_project
from instance_service.store import role_bindings as store
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.mutation import mutate
from optaic.common.v1.access_pb2 import ROLE_UNSPECIFIED, Role
from optaic.instance.v1.access_pb2 import RoleBinding
from optaic.instance.v1.access_service_pb2 import GrantRoleRequest, RevokeRoleRequest
from servicekit import audit, outbox
from servicekit.bindings import apply_bindings
from servicekit.context import RequestContext
from servicekit.database import Connection


async def grant_role(deps: Dependencies, context: RequestContext, request: GrantRoleRequest) -> RoleBinding:
    """Give an actor a role in a project or in the whole tenant; without a difference nothing changes.

    Raises:
        NotFoundError: The project does not exist.
    """
    tenant_id = context.tenant_id

    async def grant(connection: Connection) -> RoleBinding:
        if request.project_id:
            await find_project(connection, tenant_id, request.project_id)
        known = await store.get_binding(connection, tenant_id, request.actor, request.project_id)
        if known is None:
            binding = RoleBinding(binding_id=deps.ids(), actor=request.actor, project_id=request.project_id)
        else:
            binding = RoleBinding.FromString(known)
            if binding.role == request.role:
                return binding
        return await _write(deps, connection, context, binding, request.role)

    return await mutate(deps, tenant_id, request, RoleBinding, grant)


async def revoke_role(deps: Dependencies, context: RequestContext, request: RevokeRoleRequest) -> RoleBinding:
    """Take away the role that an actor has in a project or in the whole tenant.

    The binding stays without a role: the roles of the actor's token must not come back.

    Raises:
        NotFoundError: The actor has no role there.
    """
    tenant_id = context.tenant_id

    async def revoke(connection: Connection) -> RoleBinding:
        known = await store.get_binding(connection, tenant_id, request.actor, request.project_id)
        binding = RoleBinding.FromString(known or b"")
        if binding.role == ROLE_UNSPECIFIED:
            raise errors.role_binding_not_found(request.actor, request.project_id)
        return await _write(deps, connection, context, binding, ROLE_UNSPECIFIED)

    return await mutate(deps, tenant_id, request, RoleBinding, revoke)


async def _write(
    deps: Dependencies,
    connection: Connection,
    context: RequestContext,
    binding: RoleBinding,
    role: Role.ValueType,
) -> RoleBinding:
    """Store the next revision of a binding and announce it."""
    binding.role = role
    binding.revision += 1
    binding.updated_by = context.actor
    binding.update_time.CopyFrom(timestamp(deps.clock.now()))
    audit.note(f"role_bindings/{binding.binding_id}", before=binding.revision - 1, after=binding.revision)
    await apply_bindings(connection, context.tenant_id, [binding])
    events = Events(context.tenant_id, deps.clock, deps.ids)
    await outbox.append(connection, [events.role_binding_changed(binding)])
    return binding
