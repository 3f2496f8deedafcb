"""Move a version through its states, DRAFT -> ACTIVE -> DEPRECATED -> RETIRED, one step at a time and never back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from instance_service.domain import errors
from instance_service.events import Events
from instance_service.resources.definitions.library import check_publication
from instance_service.resources.definitions.macros import CALLABLE
from instance_service.resources.instances.tracking import wake_tracking, wake_using
from instance_service.store import definitions as store
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.mutation import mutate
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_STATE_ACTIVE,
    DEFINITION_STATE_DEPRECATED,
    DEFINITION_STATE_DRAFT,
    DEFINITION_STATE_RETIRED,
    DefinitionState,
    DefinitionVersion,
)
from optaic.definition.v1.definition_service_pb2 import (
    ActivateDefinitionVersionRequest,
    DeprecateDefinitionVersionRequest,
    RetireDefinitionVersionRequest,
)
from servicekit import audit, outbox
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.enums import enum_word
from servicekit.events import Event

_Request = (
    ActivateDefinitionVersionRequest | DeprecateDefinitionVersionRequest | RetireDefinitionVersionRequest
)


@dataclass(frozen=True)
class _Step:
    """Describe a step between two states, and the event that it publishes."""

    source: DefinitionState.ValueType
    target: DefinitionState.ValueType
    event: Callable[[Events, DefinitionVersion, str], Event]


_ACTIVATE = _Step(
    DEFINITION_STATE_DRAFT,
    DEFINITION_STATE_ACTIVE,
    Events.published,
)
_DEPRECATE = _Step(DEFINITION_STATE_ACTIVE, DEFINITION_STATE_DEPRECATED, Events.deprecated)
_RETIRE = _Step(DEFINITION_STATE_DEPRECATED, DEFINITION_STATE_RETIRED, Events.retired)


async def activate_version(
    deps: Dependencies, context: RequestContext, request: ActivateDefinitionVersionRequest
) -> DefinitionVersion:
    """Activate a draft version (DRAFT -> ACTIVE), so that instances may track it.

    Raises:
        NotFoundError: It does not exist.
        FailedPreconditionError: It is neither a draft nor active.
        InvalidArgumentError: It is a macro or an operator that could not be published now.
    """
    return await _change_state(deps, context, request, _ACTIVATE)


async def deprecate_version(
    deps: Dependencies, context: RequestContext, request: DeprecateDefinitionVersionRequest
) -> DefinitionVersion:
    """Deprecate an active version (ACTIVE -> DEPRECATED), so that it is no longer the newest for any instance.

    Raises:
        NotFoundError: It does not exist.
        FailedPreconditionError: It is a draft or retired.
    """
    return await _change_state(deps, context, request, _DEPRECATE)


async def retire_version(
    deps: Dependencies, context: RequestContext, request: RetireDefinitionVersionRequest
) -> DefinitionVersion:
    """Retire a deprecated version (DEPRECATED -> RETIRED), so that no new instance can use it.

    Raises:
        NotFoundError: It does not exist.
        FailedPreconditionError: It is not deprecated.
    """
    return await _change_state(deps, context, request, _RETIRE)


async def _change_state(
    deps: Dependencies, context: RequestContext, request: _Request, step: _Step
) -> DefinitionVersion:
    tenant_id = context.tenant_id

    async def take(connection: Connection) -> DefinitionVersion:
        row = await store.get_version(
            connection, tenant_id, definition_version_id=request.definition_version_id
        )
        if row is None:
            raise errors.version_not_found(request.definition_version_id)
        version = DefinitionVersion.FromString(row.snapshot)
        if version.state != step.target:
            if version.state != step.source:
                states = (version.state, step.source, step.target)
                words = (enum_word(DefinitionState, one) for one in states)
                raise errors.invalid_version_state(version.definition_name, version.version, *words)
            version.state, version.author = step.target, context.actor
            await store.update_version_state(
                connection,
                tenant_id,
                version.definition_version_id,
                enum_word(DefinitionState, version.state),
                version.SerializeToString(),
            )
            if (
                step is _ACTIVATE and version.kind in CALLABLE
            ):  # the definitions that it calls may have changed
                await check_publication(connection, tenant_id, version)
            event = step.event(deps.events(tenant_id), version, request.reason)
            if step is _ACTIVATE:
                await wake_tracking(connection, tenant_id, version.definition_id)
            else:
                await wake_using(connection, tenant_id, version)
            await outbox.append(connection, [event])
            audit.note(f"definition_versions/{version.definition_version_id}", reason=request.reason)
        return version

    return await mutate(deps, tenant_id, request, DefinitionVersion, take)
