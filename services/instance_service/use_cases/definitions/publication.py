"""Publish definition versions; a stored version never changes."""

from __future__ import annotations

from instance_service.domain import errors
from instance_service.domain.versions import precedence
from instance_service.resources.conversion import (
    timestamp,
)
from instance_service.resources.definitions.content import complete_version
from instance_service.resources.definitions.library import check_publication
from instance_service.resources.definitions.macros import CALLABLE
from instance_service.resources.instances.tracking import wake_tracking
from instance_service.resources.publication_report import report
from instance_service.store import definitions as store
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.mutation import mutate
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_STATE_ACTIVE,
    DefinitionKind,
    DefinitionState,
    DefinitionVersion,
)
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from servicekit import audit, off_loop, outbox
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.enums import enum_word


async def publish_definition(
    deps: Dependencies,
    context: RequestContext,
    request: PublishDefinitionRequest,
    *,
    is_reported: bool = True,
) -> DefinitionVersion:
    """Publish one version, as a draft if requested; if the same content is already published, return that version.

    The answer reports what the version means for instances that track the newest one, unless the request skips this.

    Raises:
        AlreadyExistsError: The version exists with other content.
        InvalidArgumentError: The content violates rules; every violation is listed.
    """
    tenant_id = context.tenant_id
    given = await off_loop.run(complete_version, request)
    given.author = context.actor

    async def publish(connection: Connection) -> DefinitionVersion:
        version = await _publish(deps, connection, tenant_id, request, given)
        if is_reported and not request.validate_only:
            version.publication_report.CopyFrom(await report(deps, connection, tenant_id, version))
        return version

    version = await mutate(deps, tenant_id, request, DefinitionVersion, publish)
    if request.validate_only:  # nothing was written, so the report can be made without waiting
        async with deps.database.read(tenant_id) as connection:
            version.publication_report.CopyFrom(await report(deps, connection, tenant_id, version))
    return version


async def _publish(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    request: PublishDefinitionRequest,
    version: DefinitionVersion,
) -> DefinitionVersion:
    now = deps.clock.now()
    key = {"tenant_id": tenant_id, "create_time": now}
    version.definition_id = await store.insert_definition(
        connection,
        {
            **key,
            "definition_id": deps.ids(),
            "kind": enum_word(DefinitionKind, request.kind),
            "name": request.name,
            "description": request.description,
        },
    )
    version.definition_version_id = deps.ids()
    version.create_time.CopyFrom(timestamp(now))
    row = {
        **key,
        "definition_version_id": version.definition_version_id,
        "definition_id": version.definition_id,
        "version": version.version,
        "precedence": precedence(version.version),
        "content_hash": version.content_hash,
        "state": enum_word(DefinitionState, version.state),
        "snapshot": version.SerializeToString(),
    }
    if await store.insert_version(connection, row):
        if version.kind in CALLABLE:
            await check_publication(connection, tenant_id, version)
        if version.state == DEFINITION_STATE_ACTIVE:
            await wake_tracking(connection, tenant_id, version.definition_id)
        await outbox.append(connection, [deps.events(tenant_id).published(version)])
        audit.note(f"definition_versions/{version.definition_version_id}")
        return version
    return await _existing(connection, tenant_id, version)


async def _existing(connection: Connection, tenant_id: str, version: DefinitionVersion) -> DefinitionVersion:
    row = await store.get_version(
        connection, tenant_id, definition_id=version.definition_id, version=version.version
    )
    assert row is not None
    if row.content_hash != version.content_hash:
        raise errors.version_conflict(
            version.definition_name, version.version, row.definition_version_id, row.content_hash
        )
    return DefinitionVersion.FromString(row.snapshot)
