"""What a newest version means for the instances that follow it."""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from instance_service.domain.versions import precedence
from instance_service.resources.definitions.changes import unchecked_formats, version_changes
from instance_service.resources.definitions.macros import CALLABLE, load_inner
from instance_service.resources.instances.drafts import Pending, complete, gather, prepare
from instance_service.store import definitions as store
from instance_service.store import following as users
from instance_service.store import queue
from instance_service.store.tables import Connection, Row
from instance_service.use_cases.dependencies import Dependencies
from optaic.definition.v1.definition_pb2 import (
    COMPATIBILITY_BREAKING,
    COMPATIBILITY_COMPATIBLE,
    DEFINITION_STATE_ACTIVE,
    DEFINITION_STATE_DRAFT,
    DefinitionVersion,
    PublicationReport,
    SchemaChange,
    SchemaNote,
    TrackingInstance,
)
from optaic.instance.v1.instance_pb2 import Instance
from servicekit.errors import DomainError, FieldViolation

MOST_LISTED = 1_000
_COMING = (DEFINITION_STATE_DRAFT, DEFINITION_STATE_ACTIVE)  # who follows may get these
_MOST_REASONS = 10  # why one instance does not fit
_MOST_BYTES = 1_500_000  # of either list: clients take answers of four megabytes by default
_Check: TypeAlias = Callable[[Row], Sequence[FieldViolation]]
_Item = TypeVar("_Item", SchemaChange, SchemaNote, TrackingInstance)


async def wake_followers(connection: Connection, tenant_id: str, definition_id: str) -> None:
    """Have every instance that follows the definition looked at."""
    await queue.enqueue(
        connection, tenant_id, await users.list_followers(connection, tenant_id, definition_id)
    )


async def wake_users(connection: Connection, tenant_id: str, version: DefinitionVersion) -> None:
    """Have every instance looked at that uses a version, or follows its definition."""
    await wake_followers(connection, tenant_id, version.definition_id)
    found = await users.list_users(connection, tenant_id, version.definition_version_id)
    await queue.enqueue(connection, tenant_id, found)


async def report(
    deps: Dependencies, connection: Connection, tenant_id: str, version: DefinitionVersion
) -> PublicationReport:
    """Return what a version changes, against the newest active one before it, and who would follow it."""
    rank = precedence(version.version)
    previous = DefinitionVersion.FromString(
        await store.previous_version(connection, tenant_id, version.definition_id, rank) or b""
    )
    rows: Sequence[Row] = ()
    if version.state in _COMING and not await store.is_surpassed(
        connection, tenant_id, version.definition_id, rank
    ):
        rows = await users.list_tracking(connection, tenant_id, version.definition_id, MOST_LISTED)
    check = await _trial(deps, connection, tenant_id, version, rows)
    # A thousand instances against a large schema take a while: the loop has other callers.
    return await asyncio.to_thread(_report, previous, version, rows, check)


def _report(
    previous: DefinitionVersion, version: DefinitionVersion, rows: Sequence[Row], check: _Check
) -> PublicationReport:
    changes = [
        SchemaChange(
            path=change.path,
            description=change.description,
            compatibility=COMPATIBILITY_BREAKING if change.is_breaking else COMPATIBILITY_COMPATIBLE,
        )
        for change in (version_changes(previous, version) if previous.version else ())
    ]
    is_breaking = any(change.compatibility == COMPATIBILITY_BREAKING for change in changes)
    tracking = [
        TrackingInstance(
            instance_id=row.instance_id,
            name=row.name,
            project_id=row.project_id,
            violations=_reasons(check(row)),
        )
        for row in rows
    ]
    return PublicationReport(
        previous_version=previous.version,
        compatibility=COMPATIBILITY_BREAKING if is_breaking else COMPATIBILITY_COMPATIBLE,
        schema_changes=_fitting(changes),
        tracking_instances=_fitting(tracking),
        tracking_instance_count=rows[0].total if rows else 0,
        schema_notes=_fitting(
            [SchemaNote(path=path, description=text) for path, text in unchecked_formats(version)]
        ),
    )


def _reasons(violations: Sequence[FieldViolation]) -> list[str]:
    texts = [f"{violation.field}: {violation.description}"[:500] for violation in violations[:_MOST_REASONS]]
    more = len(violations) - len(texts)
    return [*texts, f"and {more} more"] if more else texts


def _fitting(items: Sequence[_Item]) -> Sequence[_Item]:
    sizes = list(itertools.accumulate(item.ByteSize() for item in items))
    return items[: bisect.bisect_right(sizes, _MOST_BYTES)]


async def _trial(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    version: DefinitionVersion,
    rows: Sequence[Row],
) -> _Check:
    """Return what tells how an instance breaks rules with a version, of its definition or of what it calls by name."""

    def prepare_all() -> dict[str, Pending]:
        instances = [Instance.FromString(row.snapshot) for row in rows]
        return {one.instance_id: prepare(deps, one, one) for one in instances}

    pending = await asyncio.to_thread(prepare_all)
    facts = await gather(connection, tenant_id, list(pending.values()), version)
    if version.kind in CALLABLE:
        known = {**await load_inner(connection, tenant_id, version), version.definition_name: version}
        facts = replace(facts, macros={key: {**found, **known} for key, found in facts.macros.items()})

    def check(row: Row) -> Sequence[FieldViolation]:
        try:
            complete(tenant_id, pending[row.instance_id], facts)
        except DomainError as error:
            return error.field_violations
        return ()

    return check
