"""Create and update instances; a change and its event are one transaction."""

from __future__ import annotations

from instance_service.domain import errors
from instance_service.resources.conversion import dataset_of, timestamp
from instance_service.resources.instances.drafts import draft_instance
from instance_service.resources.instances.following import follow_optimizers
from instance_service.resources.instances.locking import check_etag, check_not_deleting, lock
from instance_service.resources.instances.masks import apply_mask
from instance_service.resources.instances.naming import rename_in_dependants
from instance_service.resources.instances.pending import check_kind
from instance_service.resources.instances.revisions import (
    Revision,
    check_name,
    is_same,
    note_revision,
    stamp,
    write_revisions,
)
from instance_service.resources.instances.rows import rows_of
from instance_service.resources.projects import check_project_lives, project_of
from instance_service.store import instances as store
from instance_service.store import projects, queue
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances.waiting import when_active
from instance_service.use_cases.mutation import mutate
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_STATE_PROVISIONING,
    Condition,
    Instance,
)
from optaic.instance.v1.instance_service_pb2 import (
    CreateInstanceRequest,
    UpdateInstanceRequest,
)
from optaic.rules.kinds import COMPONENT_KINDS
from redaction.messages import restore_credentials
from servicekit import audit, off_loop, outbox
from servicekit.context import RequestContext
from servicekit.contracts import check_contract
from servicekit.database import Connection
from servicekit.errors import InvalidArgumentError
from servicekit.ids import is_id

CONDITION = "PrefectDeploymentReady"
_OUTPUT_OF_MODEL = (
    "mlflow_experiment_id",
    "mlflow_registered_model_name",
    "evidently_project_id",
    "champion",
)
_OUTPUT_ONLY = (
    "instance_id",
    "kind",
    "status_aggregation_contract",
    "state",
    "revision",
    "etag",
    "flows",
    "conditions",
    "create_time",
    "update_time",
    "owner_instance_id",
    "macro_version_ids",
)


async def create_instance(
    deps: Dependencies, context: RequestContext, request: CreateInstanceRequest
) -> Instance:
    """Create an instance, then wait until it is active; without a given time, the wait is short.

    Raises:
        NotFoundError: The project, a definition or an upstream does not exist.
        FailedPreconditionError: The project is being deleted.
        AlreadyExistsError: The name is already used.
        InvalidArgumentError: Rules are violated; every violation is listed.
    """
    tenant_id, given = context.tenant_id, _without_output(request.instance)
    check_kind(given)

    async def insert(connection: Connection) -> Instance:
        await _check_project(connection, tenant_id, given.project_id)
        given.state = INSTANCE_STATE_PROVISIONING
        now = timestamp(deps.clock.now())
        given.conditions.append(
            Condition(
                type=CONDITION, reason="Pending", message="the deployments are being made", since_time=now
            )
        )
        draft = await draft_instance(deps, connection, tenant_id, given)
        instance = draft.instance
        await check_name(connection, tenant_id, instance)
        for item in (instance, *draft.components):
            stamp(deps, item, None)
        size, changed = instance.ByteSize(), [instance, *draft.components]
        rows = await off_loop.run_if_large(
            size, rows_of, tenant_id, draft, changed, context.actor, request.reason
        )
        await store.insert_instances(connection, rows)
        await queue.enqueue(connection, tenant_id, [instance.instance_id])
        event = await off_loop.run_if_large(size, deps.events(tenant_id).created, instance)
        await outbox.append(connection, [event])
        audit.note(f"instances/{instance.instance_id}", after=instance.revision, reason=request.reason)
        return instance

    created = await mutate(deps, tenant_id, request, Instance, insert)
    return created if request.validate_only else await when_active(deps, context, created)


async def update_instance(
    deps: Dependencies, context: RequestContext, request: UpdateInstanceRequest
) -> Instance:
    """Update the masked fields of an instance as a new revision; without a difference no revision is made.

    Raises:
        NotFoundError: The instance, a definition or an upstream does not exist.
        AbortedError: The etag is stale.
        FailedPreconditionError: A cycle would close, or the instance is being deleted.
        InvalidArgumentError: Rules are violated; every violation is listed.
    """
    tenant_id = context.tenant_id

    async def update(connection: Connection) -> Instance:
        current = await lock(connection, tenant_id, request.instance.instance_id)
        check_etag(current, request.instance.etag)
        check_kind(current)
        check_not_deleting(current)
        size = current.ByteSize() + request.ByteSize()
        desired = await off_loop.run_if_large(size, _desired, current, request)
        draft = await draft_instance(deps, connection, tenant_id, desired, current)
        if await off_loop.run_if_large(size, is_same, draft.instance, current):
            return current
        revision = Revision(current, draft, request.reason)
        await write_revisions(deps, connection, tenant_id, context.actor, [revision])
        note_revision(revision)
        await follow_optimizers(deps, connection, tenant_id, [revision])
        if draft.instance.name != current.name:
            await rename_in_dependants(connection, tenant_id, draft.instance, current.name)
        return draft.instance

    return await mutate(deps, tenant_id, request, Instance, update)


def _desired(current: Instance, request: UpdateInstanceRequest) -> Instance:
    """Return the instance as the caller wants it.

    Raises:
        InvalidArgumentError: The mask names a field that is unknown or cannot change, or the instance would break a rule of its
            contract. A mask can set one field of a message that the stored instance does not have.
    """
    desired = apply_mask(current, request.instance, request.update_mask.paths)
    restore_credentials(desired, current)
    try:
        check_contract(desired)
    except InvalidArgumentError as error:
        first = error.field_violations[0]
        raise errors.broken_contract(first.field, first.description) from error
    return desired


def _without_output(given: Instance) -> Instance:
    instance = Instance()
    instance.CopyFrom(given)
    instance.project_id = instance.project_id.lower()
    for name in _OUTPUT_ONLY:
        instance.ClearField(name)  # type: ignore[arg-type]  # the type stubs require literals
    if (dataset := dataset_of(instance)) is not None:
        for kind in COMPONENT_KINDS:
            dataset.ClearField(f"{kind}_instance_id")  # type: ignore[arg-type]  # the type stubs require literals
        dataset.ClearField("evidently_project_id")
    if instance.WhichOneof("spec") == "model":
        for name in _OUTPUT_OF_MODEL:
            instance.model.ClearField(name)  # type: ignore[arg-type]  # the type stubs require literals
    return instance


async def _check_project(connection: Connection, tenant_id: str, project_id: str) -> None:
    snapshot = await projects.get_project(connection, tenant_id, project_id) if is_id(project_id) else None
    if snapshot is None:
        raise errors.project_of_instance_not_found(project_id)
    check_project_lives(project_of(snapshot))
