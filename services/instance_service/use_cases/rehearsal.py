"""Rehearse a sequence of changes: run the real use cases in one transaction, then roll it back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import structlog
from google.rpc import code_pb2

from instance_service.domain import errors
from instance_service.store import projects as project_store
from instance_service.use_cases.definitions.publication import publish_definition
from instance_service.use_cases.definitions.states import activate_version, deprecate_version, retire_version
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances.changes import create_instance, update_instance
from instance_service.use_cases.instances.deletion import delete_instance
from instance_service.use_cases.projects.changes import create_project
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import (
    Change,
    ChangeBlocking,
    ChangeVerdict,
    ChangeViolation,
    RehearseChangesRequest,
    RehearseChangesResponse,
)
from servicekit import confinement, off_loop
from servicekit.context import RequestContext
from servicekit.contracts import check_contract
from servicekit.database import Connection, ConstraintError, lock_tenant
from servicekit.errors import DomainError
from servicekit.ids import IdSource, is_id

_LONGEST_SECONDS = 20.0  # counted from when the tenant's lock is acquired, because other changes wait for it
_NO_CHANGE = "the change cannot be rehearsed"
_log = structlog.get_logger(__name__)


class _RollbackError(Exception):
    """End the transaction so that everything is rolled back."""


async def rehearse_changes(
    deps: Dependencies, context: RequestContext, request: RehearseChangesRequest
) -> RehearseChangesResponse:
    """Check every change in turn, each on top of those before, and keep none; if allowed, stop when time is up.

    Raises:
        InvalidArgumentError: The changes take too long.
    """
    answer = RehearseChangesResponse()
    try:
        async with deps.database.transaction(context.tenant_id) as connection:
            await lock_tenant(connection, context.tenant_id)  # waits at most for the statement timeout
            try:
                async with asyncio.timeout(_LONGEST_SECONDS):
                    for index, change in enumerate(request.changes):
                        answer.verdicts.append(await _judge(deps, connection, context.inner(index), change))
                        await asyncio.sleep(0)  # many refusals in a row wait for nothing
            except TimeoutError:
                judged, given = len(answer.verdicts), len(request.changes)
                if not (request.allow_partial and judged):
                    raise errors.rehearsal_too_long(judged, given, _LONGEST_SECONDS) from None
                answer.verdicts.extend([ChangeVerdict(is_not_judged=True)] * (given - judged))
            raise _RollbackError  # noqa: TRY301 - rolls back
    except _RollbackError:
        return answer


async def _judge(
    deps: Dependencies, connection: Connection, context: RequestContext, change: Change
) -> ChangeVerdict:
    moved_flows: list[FlowRef] = []
    inner = replace(deps, rehearsal=connection, moved_flows=moved_flows)
    try:
        made = await _make(inner, context, change)
    except DomainError as error:
        await _create_stand_in(inner, context, change)
        return _refused(await _as_seen(connection, context, error))
    except ConstraintError:
        if not change.assumed_id:
            raise
        return _refused(
            errors.invalid_field(
                "INVALID_ARGUMENT", "assumed_id", "is already used; choose another UUID", _NO_CHANGE
            )
        )
    conditions = made.conditions if isinstance(made, Instance) else ()
    return ChangeVerdict(conditions=conditions, moved_flows=moved_flows)


async def _as_seen(connection: Connection, context: RequestContext, error: DomainError) -> DomainError:
    """Return an error as the caller may see it; on this connection, because the others may all wait for its lock."""
    if context.scopes is None:
        return error
    projects = await project_store.locate(connection, context.tenant_id, error.about)
    unreadable = {each for each in error.about if not context.scopes.may_read(projects.get(each, ""))}
    return confinement.hide_in_error(error, unreadable, context.stand_ins)


async def _make(deps: Dependencies, context: RequestContext, change: Change) -> Any:
    """Make one change as its RPC would.

    Raises:
        DomainError: The change is refused.
    """
    kind = change.WhichOneof("change")
    if kind is None or (change.assumed_id and not is_id(change.assumed_id.lower())):
        raise (
            errors.invalid_field("INVALID_ARGUMENT", "change", "is required", _NO_CHANGE)
            if kind is None
            else errors.invalid_field("INVALID_ARGUMENT", "assumed_id", "is not a UUID", _NO_CHANGE)
        )
    request = getattr(change, kind)
    await off_loop.run(check_contract, request)

    def assuming(place: int = 0) -> Dependencies:
        return replace(deps, ids=_assumed(deps.ids, change.assumed_id.lower(), place))

    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "create_project": lambda: create_project(assuming(), context, request),
        "publish_definition": lambda: publish_definition(
            assuming(1), context, _without_trial(request), is_reported=False
        ),
        "activate_definition_version": lambda: activate_version(deps, context, request),
        "deprecate_definition_version": lambda: deprecate_version(deps, context, request),
        "retire_definition_version": lambda: retire_version(deps, context, request),
        "create_instance": lambda: create_instance(assuming(), context, _as_trial(request)),
        "update_instance": lambda: update_instance(deps, context, request),
        "delete_instance": lambda: delete_instance(deps, context, request),
    }
    return await calls[kind]()


async def _create_stand_in(deps: Dependencies, context: RequestContext, change: Change) -> None:
    """Create a stand-in for a refused resource if possible, so that later changes are judged on their own."""
    again = Change()
    again.CopyFrom(change)
    kind = change.WhichOneof("change")
    if kind == "create_project" and change.assumed_id:
        again.create_project.project.Clear()
        again.create_project.project.name = f"p{change.assumed_id}"
    elif kind != "create_instance" or not change.assumed_id:
        return
    else:
        again.create_instance.instance.name = f"i{change.assumed_id}"
    try:
        await _make(replace(deps, is_lenient=True), context, again)
    except Exception as error:  # noqa: BLE001 - without a stand-in, changes that refer to it report it as missing
        _log.debug("no stand-in", problem=repr(error))


def _assumed(ids: IdSource, assumed_id: str, place: int) -> IdSource:
    """Return an id source that gives the caller's assumed id at one place, where the created resource gets its id."""
    count = -1

    def next_id() -> str:
        nonlocal count
        count += 1
        return assumed_id if assumed_id and count == place else ids()

    return next_id


def _without_trial(request: Any) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    copy.validate_only = False  # otherwise another connection would make its report
    return copy


def _as_trial(request: Any) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    copy.validate_only = True  # do not wait for ACTIVE
    return copy


def _refused(error: DomainError) -> ChangeVerdict:
    return ChangeVerdict(
        code=code_pb2.Code.Value(error.code),
        reason=error.reason,
        message=error.message,
        violations=[
            ChangeViolation(field=each.field, description=each.description, reason=each.reason)
            for each in error.field_violations
        ],
        blocking=[
            ChangeBlocking(type=each.type, subject=each.subject, description=each.description)
            for each in error.preconditions
        ],
    )
